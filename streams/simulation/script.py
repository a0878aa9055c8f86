"""Who plays what, and how the hand moves it: the script that pictures, events and labels are all made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streams.simulation.deck import RANKS, SUITS

Seconds = NDArray[np.float64]
Poses = NDArray[np.float64]  # [n, 6]: x, y (of the image's width and height), turn, tilt_x, tilt_y (rad), size

CARD_HEIGHT = 0.5  # of the image's height, for a card of size 1
_SLIDE_S = (0.22, 0.28)
_PLAY_S = (3.5, 4.5)  # from the first moment of sliding in to the last of sliding out
_GAP_S = (0.35, 0.7)
_PAUSE_S = (0.2, 0.4)
_PAUSE_PROBABILITY = 0.6
_HALT_S = 0.15  # how long a hand takes to stop, and to go on
SIDES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # left, right, top, bottom
OUT_OF_VIEW = np.array([0.76, 0.85])  # so far from the image's centre, however turned (of width and height)
_SWAY = np.array([0.035, 0.03, 0.15, 0.1, 0.1, 0.015])  # amplitude of each column of Poses
_SWAY_HZ = (0.24, 0.44)
_MOST_TURN = 0.35  # rad


@dataclass(frozen=True, slots=True)
class Hand:
    """A smooth path: in from one side, swaying about a place over the table, perhaps halting, out at another side."""

    seconds: float
    place: Poses  # [6] what it sways about
    enters: Poses  # [2] where from, relative to the place
    leaves: Poses  # [2] where to
    slide_s: float
    sway_hz: Poses  # [6]
    sway_phase: Poses  # [6]
    pause_at_s: float
    pause_s: float
    sway: Poses = field(default_factory=_SWAY.copy)  # [6] amplitudes

    def poses(self, t_s: Seconds) -> Poses:
        """The card's pose at each of ``t_s`` [n], seconds since the hand began: [n, 6]."""
        clock = t_s - _halted(t_s - self.pause_at_s) + _halted(t_s - self.pause_at_s - self.pause_s)
        sway = np.sin(2 * np.pi * self.sway_hz * clock[:, None] + self.sway_phase)
        poses: Poses = self.place + self.sway * sway
        outside_in = 1 - _ease(t_s / self.slide_s)
        outside_out = _ease((t_s - self.seconds) / self.slide_s + 1)
        poses[:, :2] += np.outer(outside_in, self.enters) + np.outer(outside_out, self.leaves)
        return poses


@dataclass(frozen=True, slots=True)
class Play:
    """One card's turn, from sliding in to sliding out."""

    start_us: int
    end_us: int
    rank: str
    suit: str
    hand: Hand

    def poses(self, t_us: NDArray[np.int64]) -> Poses:
        """The card's pose at each of ``t_us`` [n], on the recording's clock: [n, 6]."""
        return self.hand.poses((t_us - self.start_us) / 1e6)


def plays(seed: int, t_start_us: int, ranks: Sequence[str] | None = None) -> Iterator[Play]:
    """Endless plays with pauses between them; every rank comes up once before any comes up again."""
    names = tuple(RANKS if ranks is None else ranks)
    unknown = sorted(set(names) - set(RANKS))
    if unknown or not names:
        raise ValueError(f"ranks must be some of {', '.join(RANKS)}; got {', '.join(unknown) or 'none'}")
    return _plays(np.random.default_rng(seed), t_start_us, names)


def _plays(rng: np.random.Generator, t_us: int, names: tuple[str, ...]) -> Iterator[Play]:
    while True:
        for rank in rng.permutation(np.array(names)).tolist():
            t_us += _microseconds(rng.uniform(*_GAP_S))
            suit, hand = SUITS[rng.integers(len(SUITS))], _hand(rng)
            end_us = t_us + _microseconds(hand.seconds)
            yield Play(t_us, end_us, rank, suit, hand)
            t_us = end_us


def _hand(rng: np.random.Generator) -> Hand:
    seconds = rng.uniform(*_PLAY_S)
    low, high = [0.44, 0.47, -_MOST_TURN, 0, 0, 0.97], [0.56, 0.53, _MOST_TURN, 0, 0, 1.03]
    place = rng.uniform(low, high)
    sides = SIDES[rng.choice(len(SIDES), 2, replace=False)]
    enters, leaves = sides * OUT_OF_VIEW - np.abs(sides) * (place[:2] - 0.5)
    return Hand(
        seconds=seconds,
        place=place,
        enters=enters,
        leaves=leaves,
        slide_s=rng.uniform(*_SLIDE_S),
        sway_hz=rng.uniform(*_SWAY_HZ, 6),
        sway_phase=rng.uniform(0, 2 * np.pi, 6),
        pause_at_s=seconds * rng.uniform(0.4, 0.6),
        pause_s=rng.uniform(*_PAUSE_S) * (rng.random() < _PAUSE_PROBABILITY),
    )


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _ease(x: Seconds) -> Seconds:
    """From 0 to 1 over the unit interval, at rest at both ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _halted(t_s: Seconds) -> Seconds:
    """Time lost to a halt that begins at 0 and lasts: the integral of _ease(t / _HALT_S)."""
    x = np.maximum(t_s / _HALT_S, 0)
    braking = np.minimum(x, 1)
    lost: Seconds = _HALT_S * (braking**3 - braking**4 / 2 + np.maximum(x - 1, 0))
    return lost
