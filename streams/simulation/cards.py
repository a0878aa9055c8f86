"""Playing cards, one at a time, turned and moved over a table: a scene with known labels.

``simulate_cards(15, seed=0)`` is a recording, ``card_labels(15, seed=0)`` says what is in it. Contrasts, thresholds and
speeds are chosen so that 15 seconds, compressed, stay below 10 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

import numpy as np

from streams.items import EventPacket, RgbFrame
from streams.simulation.camera import Camera, Light, decode_srgb, record
from streams.simulation.deck import RANKS, draw_face
from streams.simulation.event_model import EventModel
from streams.simulation.script import Play, plays
from streams.simulation.sensor import SENSORS, Sensor
from streams.simulation.stage import Actor, Stage

NO_CARD = "no card"
LABELS = (*RANKS, NO_CARD)
SENSOR = (346, 260)  # width and height of a DAVIS346

T_START_US = 1_000_000
#: Without a lamp: the long refractory period stands in for the limited bandwidth of the pixels.
QUIET_SENSOR = Sensor(threshold_on=0.42, threshold_off=0.42, threshold_sigma=0.015, refractory_us=4_000)

REAL_CAMERA = Camera(auto_exposure=True, well=10_000, read_noise=40)

#: The share of a card that must be in view for its label to hold.
VISIBLE = 0.6
_SCAN_US = 5_000  # labels change at multiples of this
_TABLE = np.array([[[112, 140, 132]]], np.uint8)  # sRGB


def simulate_cards(
    seconds: float,
    seed: int,
    *,
    ranks: Sequence[str] | None = None,
    width: int = SENSOR[0],
    height: int = SENSOR[1],
    lamp: float | None = None,
    colour: bool = True,
) -> Iterator[EventPacket | RgbFrame]:
    """A recording of cards, in order of end; packets of at most 10 ms, 30 frames a second, the same for a seed.

    Starts at T_START_US. ``ranks`` limits what is played; ValueError for ranks that no deck has. With a ``lamp``, of
    1.0 or darker, the camera has a sensor's noise and chooses its exposures by the light; without, neither.
    """
    scene, _ = card_stage(seconds, seed, ranks, width=width, height=height, lamp=1.0 if lamp is None else lamp)
    model = EventModel(height, width, QUIET_SENSOR if lamp is None else SENSORS["davis346"], seed=seed)
    camera = Camera(colour=colour) if lamp is None else replace(REAL_CAMERA, colour=colour)
    return record(scene, model, T_START_US, _end_us(seconds), camera, seed=seed)


def card_labels(seconds: float, seed: int, ranks: Sequence[str] | None = None) -> list[tuple[int, int, str]]:
    """What ``simulate_cards`` with these arguments shows: (start_us, end_us, label), without holes.

    A card counts while VISIBLE of it can be seen; all other time is NO_CARD.
    """
    return visible_labels(*card_stage(seconds, seed, ranks), T_START_US, _end_us(seconds))


def visible_labels(stage: Stage, cards: Sequence[Actor], t_start_us: int, t_end_us: int) -> list[tuple[int, int, str]]:
    """What a stage shows: (start_us, end_us, label), without holes; a card counts while VISIBLE of it can be seen."""
    scan = np.arange(t_start_us, t_end_us, _SCAN_US)
    shown = np.full(len(scan), NO_CARD, object)
    for card in cards:
        first, last = np.searchsorted(scan, [card.start_us, card.end_us])
        for k in range(first, last):
            if stage.visible(card, int(scan[k])) >= VISIBLE:
                shown[k] = card.label
    starts = np.flatnonzero(np.append(True, shown[1:] != shown[:-1])) if len(scan) else np.empty(0, int)
    ends = np.append(scan[starts[1:]], t_end_us)
    return [(int(scan[k]), int(end), str(shown[k])) for k, end in zip(starts, ends, strict=True)]


def _actor(play: Play) -> Actor:
    return Actor(play.start_us, play.end_us, partial(draw_face, play.rank, play.suit), play.poses, play.rank)


def card_stage(
    seconds: float,
    seed: int,
    ranks: Sequence[str] | None,
    *,
    width: int = SENSOR[0],
    height: int = SENSOR[1],
    lamp: float = 1.0,
) -> tuple[Stage, list[Actor]]:
    """What the camera looks at, and the cards that come by."""
    end_us = _end_us(seconds)
    cards = [_actor(play) for play in takewhile(lambda play: play.start_us < end_us, plays(seed, T_START_US, ranks))]
    table: Light = np.tile(decode_srgb(_TABLE), (height, width, 1))
    return Stage(cards, table, lamp), cards


def _end_us(seconds: float) -> int:
    if seconds <= 0:
        raise ValueError(f"a recording lasts longer than 0 s, got {seconds}")
    return T_START_US + round(seconds * 1e6)
