"""Short scenes for training and evaluation, all different: what lies on the table, who plays, in what light, how fast.

    scene = scene("train", 17)                     the same for ever, and in no other split
    scene("test", 3, light="dark", speed="fast")

A scene shows one card, or none; something may pass over it, and it may come or go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from streams.items import EventPacket, Item, RgbFrame
from streams.simulation.camera import record
from streams.simulation.cards import REAL_CAMERA, SENSOR, T_START_US, visible_labels
from streams.simulation.deck import RANKS, SUITS, Face, draw_design, draw_face
from streams.simulation.event_model import EventModel
from streams.simulation.geometry import outline, projection
from streams.simulation.script import OUT_OF_VIEW, SIDES, Hand, Poses
from streams.simulation.sensor import SENSORS, Sensor
from streams.simulation.stage import Actor, Stage, lay
from streams.simulation.things import draw_table, draw_thing, hold
from streams.source import Source

VERSION = "2"  # of the scenes: a cache of others is no good

#: The lamp's light, of 1.0.
LIGHTS = {"normal": (0.4, 1.0), "dim": (0.09, 0.16), "dark": (0.02, 0.035)}
#: How fast a hand moves what it holds: pixels a second, on average.
SPEEDS = {"slow": (15.0, 60.0), "medium": (150.0, 300.0), "fast": (600.0, 1000.0)}

SECONDS = 1.5  # of a scene, where nobody says otherwise
_SPLITS = ("train", "val", "test")
_NO_CARD = 0.12  # of all scenes
_COMES_OR_GOES = 0.1
_HELD, _OTHER, _LITTER, _GREY = 0.6, 0.25, 0.35, 0.4  # how often


@dataclass(frozen=True)
class CardScene:
    """One scene. `light` and `speed` are names, of LIGHTS and SPEEDS."""

    split: str
    number: int
    light: str
    speed: str
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        """Such as test_0003_dark_fast."""
        return f"{self.split}_{self.number:05d}_{self.light}_{self.speed}"

    @property
    def version(self) -> str:
        """Changes when the same scene would look otherwise."""
        return VERSION

    @property
    def labels(self) -> list[tuple[int, int, str]]:
        """What it shows: (start_us, end_us, label), without holes."""
        return visible_labels(self.stage, [a for a in self.cast if a.label], T_START_US, self._end_us)

    def items(self) -> Iterator[EventPacket | RgbFrame]:
        """What the camera records of it, in order of end."""
        seed = int(self._rng("sensor").integers(2**32))
        width, height = SENSOR
        model = EventModel(height, width, self.sensor, seed=seed)
        colour = self._rng("camera").random() >= _GREY
        camera = replace(REAL_CAMERA, colour=colour, exposure_us=self.exposure_us)
        return record(self.stage, model, T_START_US, self._end_us, camera, seed=seed)

    @property
    def exposure_us(self) -> int:
        """Of each frame; auto-exposure has settled before."""
        return min(REAL_CAMERA.longest_us, round(12_000 / self._lamp))

    @property
    def sensor(self) -> Sensor:
        """A DAVIS346, with biases as one or another user sets them."""
        rng, usual = self._rng("biases"), SENSORS["davis346"]
        contrast, slower = rng.uniform(0.85, 1.45), 10 ** rng.uniform(0, 0.7)
        return replace(
            usual,
            threshold_on=usual.threshold_on * contrast,
            threshold_off=usual.threshold_off * contrast,
            refractory_us=round(usual.refractory_us * slower),
        )

    @cached_property
    def stage(self) -> Stage:
        """What the camera looks at."""
        rng = self._rng("table")
        table = draw_table(rng, *SENSOR)
        for _ in range(rng.integers(1, 4) if rng.random() < _LITTER else 0):
            thing = draw_thing(rng)
            lay(table, thing, projection(_anywhere(rng), *SENSOR), outline(thing))
        return Stage(self.cast, table, self._lamp)

    @cached_property
    def cast(self) -> list[Actor]:
        """What moves in it: the card, which alone has a label, or another thing, and what passes."""
        rng = self._rng("cast")
        cast = [_nothing(rng, self.speed, self.seconds) if rng.random() < _NO_CARD else self._card(rng)]
        if rng.random() < _OTHER:
            cast.append(_passing(rng, self.speed, self.seconds))
        return [actor for actor in cast if actor is not None]

    def _card(self, rng: np.random.Generator) -> Actor:
        rank, suit = RANKS[rng.integers(len(RANKS))], SUITS[rng.integers(len(SUITS))]
        face = draw_face(rank, suit, draw_design(rng))
        sprite, bare = hold(face, rng) if rng.random() < _HELD else (face, 1.0)
        start_us, end_us = _appearance(rng, self.seconds)
        hand = draw_hand(rng, self.speed, (end_us - start_us) / 1e6)
        return Actor(start_us, end_us, lambda: sprite, lambda t: hand.poses((t - start_us) / 1e6), rank, bare)

    @property
    def _lamp(self) -> float:
        return float(self._rng("lamp").uniform(*LIGHTS[self.light]))

    @property
    def _end_us(self) -> int:
        return T_START_US + round(self.seconds * 1e6)

    def _rng(self, part: str) -> np.random.Generator:
        """Parts of a scene are drawn apart, so that one lamp or another changes nothing else."""
        return np.random.default_rng([_SPLITS.index(self.split), self.number, *part.encode()])


def scene(
    split: str, number: int, *, light: str | None = None, speed: str | None = None, seconds: float = SECONDS
) -> CardScene:
    """Scene `number` of a split, "train", "val" or "test"; any light and speed, or those asked for.

    Raises ValueError for names that there are not.
    """
    for what, name, known in (("split", split, _SPLITS), ("light", light, LIGHTS), ("speed", speed, SPEEDS)):
        if name is not None and name not in known:
            raise ValueError(f"there is no {what} {name!r}: {', '.join(known)}")
    rng = np.random.default_rng([_SPLITS.index(split), number])
    drawn_light, drawn_speed = str(rng.choice(list(LIGHTS))), str(rng.choice(list(SPEEDS)))
    return CardScene(split, number, light or drawn_light, speed or drawn_speed, seconds)


def draw_hand(rng: np.random.Generator, speed: str, seconds: float) -> Hand:
    """How something is moved about a place over the table, from out of view to out of view."""
    pixels_a_second, reach = rng.uniform(*SPEEDS[speed]), rng.uniform(12, 32)
    hz = pixels_a_second / (5.2 * reach)  # mean speed of two sine waves across each other
    sides = SIDES[rng.choice(len(SIDES), 2, replace=False)]
    place = rng.uniform([0.36, 0.38, -0.35, -0.2, -0.2, 0.75], [0.64, 0.62, 0.35, 0.2, 0.2, 1.35])
    sway = np.array([reach / SENSOR[0], reach / SENSOR[1], 0.12, 0.08, 0.08, 0.02]) * rng.uniform(0.7, 1.1, 6)
    return Hand(
        seconds=seconds,
        place=place,
        enters=sides[0] * OUT_OF_VIEW * 1.3,
        leaves=sides[1] * OUT_OF_VIEW * 1.3,
        slide_s=rng.uniform(0.25, 0.35),
        sway_hz=hz * rng.uniform(0.8, 1.25, 6),
        sway_phase=rng.uniform(0, 2 * np.pi, 6),
        pause_at_s=rng.uniform(0, seconds),
        pause_s=rng.uniform(0.2, 0.5) * (rng.random() < 0.2),
        sway=sway,
    )


def _appearance(rng: np.random.Generator, seconds: float) -> tuple[int, int]:
    """When a card comes into view and when it has left it: mostly before the scene and after it."""
    start_us, end_us = T_START_US - 1_000_000, T_START_US + round(seconds * 1e6) + 1_000_000
    if rng.random() < _COMES_OR_GOES:
        moment_us = T_START_US + round(rng.uniform(0.1, max(seconds - 0.1, 0.1)) * 1e6)
        return (moment_us, end_us) if rng.random() < 0.5 else (start_us, moment_us)
    return start_us, end_us


def _nothing(rng: np.random.Generator, speed: str, seconds: float) -> Actor | None:
    """What a scene without a card shows: something else, moved as a card would be, or an empty table."""
    if rng.random() < 0.3:
        return None
    sprite: Face = draw_thing(rng)
    start_us, end_us = _appearance(rng, seconds)
    hand = draw_hand(rng, speed, (end_us - start_us) / 1e6)
    return Actor(start_us, end_us, lambda: sprite, lambda t: hand.poses((t - start_us) / 1e6))


def _passing(rng: np.random.Generator, speed: str, lasts: float) -> Actor:
    """Something that crosses the image above all else."""
    sprite, start_us = draw_thing(rng), T_START_US + round(rng.uniform(-0.5, lasts) * 1e6)
    seconds = {"slow": 2.0, "medium": 0.9, "fast": 0.5}[speed] * rng.uniform(0.8, 1.2)
    begin, end = _anywhere(rng), _anywhere(rng)
    angle = rng.uniform(0, 2 * np.pi)
    way = np.array([np.cos(angle), np.sin(angle)]) * 1.1
    begin[:2], end[:2] = 0.5 - way + rng.uniform(-0.3, 0.3, 2), 0.5 + way + rng.uniform(-0.3, 0.3, 2)
    end[2:] = begin[2:] + rng.uniform(-0.2, 0.2, 4)

    def poses(t_us: np.ndarray) -> Poses:
        share = np.clip((t_us - start_us) / (seconds * 1e6), 0, 1)[:, None]
        return np.asarray(begin + (end - begin) * share)

    return Actor(start_us, start_us + round(seconds * 1e6), lambda: sprite, poses)


def _anywhere(rng: np.random.Generator) -> Poses:
    return rng.uniform([0, 0, -np.pi, -0.1, -0.1, 0.7], [1, 1, np.pi, 0.1, 0.1, 1.2])


class SceneSource(Source):
    """A scene as the road takes it."""

    def __init__(self, of: CardScene) -> None:
        super().__init__()
        self._scene = of
        self.name = of.name
        self.event_size = self.frame_size = SENSOR
        self.sample_period_us = REAL_CAMERA.frame_period_us

    def __iter__(self) -> Iterator[Item]:
        return self._scene.items()

    def close(self) -> None:
        """There is nothing to free."""
