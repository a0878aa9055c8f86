"""Endless labelled stills of cards, of every kind that a recogniser may meet: what the demo's backbone is trained on.

Colour, grey, inverted, blurred by motion, and event images: what the sensor's model reports of a moving card while the
shutter is open. Faces, tables and things are drawn once and used for many stills; a few are replaced all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streams.items import Image, join_events
from streams.render import RenderConfig, render_events
from streams.simulation.camera import Light, encode_srgb, luminance
from streams.simulation.cards import LABELS, NO_CARD, SENSOR, VISIBLE
from streams.simulation.deck import CARD_MM, RANKS, SUITS, Face, draw_design, draw_face
from streams.simulation.event_model import EventModel
from streams.simulation.geometry import projection, rectangle
from streams.simulation.scenes import LIGHTS, SPEEDS, draw_hand
from streams.simulation.sensor import SENSORS
from streams.simulation.stage import Actor, Stage
from streams.simulation.things import draw_table, draw_thing, hold

KINDS = ("colour", "grey", "inverted", "blurred", "events")
_CARDS, _TABLES, _THINGS = 196, 50, 50  # kept
_KEEP = 40  # stills from one replacement to the next
_SECONDS = 3.0  # of an imagined performance, of which a still is one moment
_EXPOSURE_US = (3_000, 14_000)
_WELL, _READ_NOISE = 10_000.0, 40.0  # electrons
_RENDERS = 6  # of what moves while the shutter is open
_ELSEWHERE = 0.1  # of stills, the share without a card


@dataclass(frozen=True, slots=True)
class Still:
    """One still, its label (a position in LABELS), and where the card is: float [4, 2] pixels, None without one."""

    image: Image
    label: int
    corners: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _Card:
    sprite: Face
    bare: float
    rank: str


class Stills:
    """A source of stills; the same seed gives the same ones."""

    def __init__(self, seed: int | tuple[int, ...], kinds: dict[str, float] | None = None) -> None:
        """`kinds` says how often each of KINDS comes, where they are not to come as usual."""
        shares = kinds or dict(zip(KINDS, (0.25, 0.1, 0.05, 0.15, 0.45), strict=True))
        self._kinds, self._shares = list(shares), np.array(list(shares.values())) / sum(shares.values())
        self._rng = np.random.default_rng(seed)
        self._cards = [self._draw_card(RANKS[k % len(RANKS)]) for k in range(_CARDS)]
        self._tables = [draw_table(self._rng, *SENSOR) for _ in range(_TABLES)]
        self._things = [draw_thing(self._rng) for _ in range(_THINGS)]
        self._model = EventModel(SENSOR[1], SENSOR[0], SENSORS["davis346"], seed=int(self._rng.integers(2**32)))
        self._noise = self._rng.standard_normal((2 * SENSOR[1], 2 * SENSOR[0], 3), np.float32)
        self._count = 0

    def __iter__(self) -> Iterator[Still]:
        while True:
            if self._count % _KEEP == _KEEP - 1:
                self._renew()
            self._count += 1
            yield self._still()

    def _still(self) -> Still:
        rng = self._rng
        speed, light = rng.choice(list(SPEEDS)), rng.choice(list(LIGHTS))
        stage, card, lamp = self._stage(str(speed), float(rng.uniform(*LIGHTS[light])))
        t_us = int(rng.integers(500_000, 2_500_000))
        image = getattr(self, f"_{rng.choice(self._kinds, p=self._shares)}")(stage, t_us, lamp)
        if card is None or card.label is None or stage.visible(card, t_us) < VISIBLE:
            return Still(image, LABELS.index(NO_CARD), None)
        corners = rectangle(CARD_MM, projection(card.poses(np.array([t_us]))[0], *SENSOR))
        return Still(image, LABELS.index(card.label), corners)

    def _stage(self, speed: str, lamp: float) -> tuple[Stage, Actor | None, float]:
        rng = self._rng
        card: Actor | None = None
        cast = []
        if rng.random() >= _ELSEWHERE:
            own = self._cards[rng.integers(_CARDS)]
            card = replace(self._moved(own.sprite, speed), label=own.rank, bare=own.bare)
            cast.append(card)
        if rng.random() < (0.2 if card else 0.8):
            cast.append(self._moved(self._things[rng.integers(_THINGS)], speed, aside=card is not None))
        table = self._tables[rng.integers(_TABLES)][:: rng.choice([1, -1]), :: rng.choice([1, -1])]
        return Stage(cast, np.ascontiguousarray(table), lamp), card, lamp

    def _moved(self, sprite: Face, speed: str, *, aside: bool = False) -> Actor:
        hand = draw_hand(self._rng, speed, _SECONDS)
        if aside:
            angle = self._rng.uniform(0, 2 * np.pi)
            hand.place[:2] = 0.5 + np.array([np.cos(angle), np.sin(angle)]) * self._rng.uniform(0.2, 0.5)
            hand.place[2] = self._rng.uniform(-np.pi, np.pi)
        return Actor(0, round(_SECONDS * 1e6), lambda: sprite, lambda t: hand.poses(t / 1e6))

    # --- kinds of stills ----------------------------------------------------------------------------------------------

    def _colour(self, stage: Stage, t_us: int, lamp: float) -> Image:
        return self._read(stage.render(t_us), lamp)

    def _grey(self, stage: Stage, t_us: int, lamp: float) -> Image:
        grey = luminance(stage.render(t_us))
        return self._read(np.repeat(grey[..., None], 3, axis=2), lamp)

    def _inverted(self, stage: Stage, t_us: int, lamp: float) -> Image:
        return 255 - self._read(stage.render(t_us), lamp)

    def _blurred(self, stage: Stage, t_us: int, lamp: float) -> Image:
        exposure_us = min(30_000, 9_000 / lamp)
        moments = t_us - exposure_us * np.linspace(0, 1, _RENDERS)
        renders: list[Light] = [stage.render(int(moment)) for moment in moments]
        return self._read(np.mean(renders, axis=0, dtype=np.float32), lamp)

    def _events(self, stage: Stage, t_us: int, lamp: float) -> Image:
        """As an event camera reports it: white, with ON and OFF painted."""
        span_us = int(self._rng.uniform(*_EXPOSURE_US))
        times = stage.render_times(t_us - span_us, t_us)
        times = times[np.linspace(0, len(times) - 1, min(len(times), _RENDERS)).astype(int)]
        self._model.reset()
        events = [self._model.push(int(moment), luminance(stage.render(int(moment)))) for moment in times]
        return render_events(join_events(events), SENSOR, t_us, RenderConfig())

    def _read(self, light: Light, lamp: float) -> Image:
        """As a sensor reads it, exposed as long as it may be, or brightened afterwards."""
        exposed = light * np.float32(min(2.0, 0.8 / lamp))
        variance = np.maximum(exposed, 0) / np.float32(_WELL) + np.float32((_READ_NOISE / _WELL) ** 2)
        y, x = self._rng.integers(0, np.array(self._noise.shape[:2]) - exposed.shape[:2])
        noisy = exposed + self._noise[y : y + SENSOR[1], x : x + SENSOR[0]] * np.sqrt(variance)
        return encode_srgb(noisy * np.float32(self._rng.uniform(0.7, 1.3)))

    # --- what is drawn once -------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Replace a card, and sometimes a table or a thing."""
        rng = self._rng
        place = int(rng.integers(_CARDS))
        self._cards[place] = self._draw_card(RANKS[place % len(RANKS)])
        if rng.random() < 0.5:
            self._tables[rng.integers(_TABLES)] = draw_table(rng, *SENSOR)
            self._things[rng.integers(_THINGS)] = draw_thing(rng)

    def _draw_card(self, rank: str) -> _Card:
        rng = self._rng
        face = draw_face(rank, SUITS[rng.integers(len(SUITS))], draw_design(rng))
        return _Card(*(hold(face, rng) if rng.random() < 0.5 else (face, 1.0)), rank)
