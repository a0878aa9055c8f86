"""Flat things in space: where a sprite's texels land in the image."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.simulation.deck import CARD_MM, TEXEL_PER_MM, Face
from streams.simulation.script import CARD_HEIGHT, Poses

Homography = NDArray[np.float64]  # [3, 3]
Points = NDArray[np.float64]  # [n, 2] pixels, or millimetres on the thing from its middle

_EYE_MM = 420.0  # from the eye to the card: how strong the perspective is
_MARKS = 10  # along a side


def projection(pose: Poses, width: int, height: int) -> Homography:
    """From millimetres on the thing, from its middle, to pixels of the image: a plane turned in space."""
    x, y, turn, tilt_x, tilt_y, size = pose.tolist()
    (ax, bx), (ay, by), (az, bz) = _axes(turn, tilt_x, tilt_y)
    scale = size * CARD_HEIGHT * height / CARD_MM[1]  # pixels a millimetre
    left, top = x * width - 0.5, y * height - 0.5  # of its middle: centres of pixels are at whole numbers
    return np.array(
        [
            [scale * ax + left * az / _EYE_MM, scale * bx + left * bz / _EYE_MM, left],
            [scale * ay + top * az / _EYE_MM, scale * by + top * bz / _EYE_MM, top],
            [az / _EYE_MM, bz / _EYE_MM, 1],
        ]
    )


def of_texels(sprite: Face) -> Homography:
    """From a sprite's texels, whose centres are at whole numbers, to millimetres from its middle."""
    origin = [0.5 / TEXEL_PER_MM - side / TEXEL_PER_MM / 2 for side in sprite.shape[1::-1]]
    return np.array([[1 / TEXEL_PER_MM, 0, origin[0]], [0, 1 / TEXEL_PER_MM, origin[1]], [0, 0, 1]])


def rectangle(size_mm: tuple[float, float], onto: Homography) -> Points:
    """Where the corners of a rectangle around the middle land: [4, 2]."""
    width, height = size_mm[0] / 2, size_mm[1] / 2
    return land(np.array([[-width, -height], [width, -height], [width, height], [-width, height]]), onto)


def land(points: Points, onto: Homography) -> Points:
    """Where points land: [n, 2]."""
    projected = points @ onto[:, :2].T + onto[:, 2]
    landed: Points = projected[:, :2] / projected[:, 2:]
    return landed


def outline(sprite: Face) -> Points:
    """The corners of the smallest convex shape around all that a sprite covers, with the texel that blurring adds."""
    texels = cv2.findNonZero((sprite[..., 3] > 0).astype(np.uint8))
    if texels is None:
        return np.zeros((1, 2))
    spread = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    hull = cv2.convexHull((cv2.convexHull(texels).astype(np.float32) + spread).reshape(-1, 1, 2))
    return land(hull[:, 0].astype(np.float64), of_texels(sprite))


def marks(sprite: Face) -> Points:
    """Points of a sprite, all over what it covers and around it, by which motion is told."""
    step = max(1, max(sprite.shape[:2]) // _MARKS)
    rows, columns = np.nonzero(sprite[::step, ::step, 3] > 0)
    within = np.column_stack([columns, rows]).astype(np.float64) * step
    return np.concatenate([land(within, of_texels(sprite)), outline(sprite)])


def area(corners: Points) -> float:
    """Of a polygon, in square pixels (the shoelace formula)."""
    x, y = corners.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _axes(turn: float, tilt_x: float, tilt_y: float) -> list[tuple[float, float]]:
    """Where the thing's own x and y point, a row for each direction of space: turned, tilted about y, then about x."""
    cz, sz = math.cos(turn), math.sin(turn)
    cx, sx = math.cos(tilt_x), math.sin(tilt_x)
    cy, sy = math.cos(tilt_y), math.sin(tilt_y)
    return [
        (cy * cz, -cy * sz),
        (cx * sz + sx * sy * cz, cx * cz - sx * sy * sz),
        (sx * sz - cx * sy * cz, sx * cz + cx * sy * sz),
    ]
