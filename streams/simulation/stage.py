"""A table, and flat things that move over it, the later ones above the earlier: what the simulated camera looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.simulation.camera import Light, Times
from streams.simulation.deck import CARD_MM, TEXEL_PER_MM, Face
from streams.simulation.geometry import (
    Homography,
    Points,
    area,
    land,
    marks,
    of_texels,
    outline,
    projection,
    rectangle,
)
from streams.simulation.script import Poses

SCAN_US = 1_000  # motion is looked at this often
_MOST_MOTION_PX = 1.0  # from render to render
_COARSE = 4  # visibility is measured on an image so much smaller
_WHOLE_CARD: Face = np.ones([round(side * TEXEL_PER_MM) for side in CARD_MM[::-1]], np.float32)


@dataclass(frozen=True, slots=True)
class Actor:
    """Something flat that moves over the table from one moment to another, and its label if it is a card."""

    start_us: int
    end_us: int
    draw: Callable[[], Face]  # its sprite
    poses: Callable[[Times], Poses]  # [n] microseconds to [n, 6]
    label: str | None = None
    bare: float = 1.0  # the share of it that is not covered by the hand that holds it

    def is_there(self, t_us: int) -> bool:
        """Whether it takes part at this moment."""
        return self.start_us <= t_us < self.end_us


class Stage:
    """Renders actors over a table; a `streams.simulation.camera.Scene`."""

    def __init__(self, actors: Sequence[Actor], table: Light, lamp: float = 1.0) -> None:
        self._actors = actors
        self._table = table
        self._lamp = np.float32(lamp)
        self._size = (table.shape[1], table.shape[0])
        self._outlines: dict[Actor, Points] = {}

    def render(self, t_us: int) -> Light:
        """The light at one moment, float32 [H, W, 3]."""
        light = self._table.copy()
        for actor in self._actors:
            if actor.is_there(t_us):
                onto = projection(actor.poses(np.array([t_us]))[0], *self._size)
                lay(light, actor.draw(), onto, self._outline(actor))
        light *= self._lamp
        return light

    def render_times(self, t_start_us: int, t_end_us: int) -> Times:
        """Moments between which nothing that is in the image moves by more than about a pixel."""
        ends = np.array([t_start_us, t_end_us], np.int64)
        times = np.unique(np.concatenate([ends, *(self._steps(actor, t_start_us, t_end_us) for actor in self._actors)]))
        return times[(times >= t_start_us) & (times <= t_end_us)]

    def visible(self, actor: Actor, t_us: int) -> float:
        """The share of a card that is in the image and not covered by anything, at one moment."""
        if not actor.is_there(t_us):
            return 0.0
        seen = self._covered(_WHOLE_CARD, actor, t_us)
        for other in self._actors[self._actors.index(actor) + 1 :]:
            if other.is_there(t_us):
                seen *= 1 - self._covered(other.draw()[..., 3], other, t_us)
        corners = rectangle(CARD_MM, projection(actor.poses(np.array([t_us]))[0], *self._size))
        return min(1.0, float(seen.sum()) * _COARSE**2 / max(area(corners), 1.0)) * actor.bare

    def _covered(self, cover: Face, actor: Actor, t_us: int) -> Face:
        """Where an actor is: its coverage [h, w] on a coarse image."""
        width, height = self._size
        shrink = np.diag([1 / _COARSE, 1 / _COARSE, 1])
        onto = shrink @ projection(actor.poses(np.array([t_us]))[0], width, height) @ of_texels(cover)
        size = (-(-width // _COARSE), -(-height // _COARSE))
        return np.asarray(cv2.warpPerspective(cover, onto, size, flags=cv2.INTER_LINEAR), np.float32)

    def _outline(self, actor: Actor) -> Points:
        if actor not in self._outlines:
            self._outlines[actor] = outline(actor.draw())
        return self._outlines[actor]

    def _steps(self, actor: Actor, t_start_us: int, t_end_us: int) -> Times:
        first, last = max(actor.start_us, t_start_us), min(actor.end_us, t_end_us)
        if first >= last:
            return np.empty(0, np.int64)
        scan = np.append(np.arange(first, last, SCAN_US), last)
        points = marks(actor.draw())
        seen = np.array([land(points, projection(pose, *self._size)) for pose in actor.poses(scan)])  # [n, k, 2]
        inside = np.asarray(((seen > -1) & (seen < self._size)).all(axis=2))
        moved = np.linalg.norm(np.diff(seen, axis=0), axis=2)
        moved = np.where(inside[1:] | inside[:-1], moved, 0).max(axis=1)
        travelled = np.append(0, np.cumsum(moved))
        times: Times = np.interp(np.arange(0, travelled[-1], _MOST_MOTION_PX), travelled, scan).astype(np.int64)
        return np.append(times, [first, last])


def lay(light: Light, sprite: Face, onto: Homography, within: Points) -> None:
    """Put a sprite, whose `outline` is given, over a part of the light, in place."""
    height, width = light.shape[:2]
    corners = land(within, onto)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    left, right = max(math.floor(left) - 1, 0), min(math.ceil(right) + 2, width)
    top, bottom = max(math.floor(top) - 1, 0), min(math.ceil(bottom) + 2, height)
    if left >= right or top >= bottom:
        return
    moved: NDArray[np.float64] = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]]) @ onto @ of_texels(sprite)
    patch = cv2.warpPerspective(sprite, moved, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    bare = 1 - cv2.extractChannel(patch, 3)
    region = light[top:bottom, left:right]
    kept = cv2.multiply(region, cv2.merge((bare, bare, bare)))  # several times as fast as numpy's broadcasting
    region[:] = cv2.add(kept, cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB))
