"""Flat things in space: where a sprite's texels land in the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.simulation.deck import CARD_MM, TEXEL_PER_MM, Face
from streams.simulation.script import CARD_HEIGHT, Poses

Homography = NDArray[np.float64]  # [3, 3]
Points = NDArray[np.float64]  # [n, 2] pixels

_EYE_MM = 420.0  # from the eye to the card: how strong the perspective is


def projection(pose: Poses, width: int, height: int) -> Homography:
    """From millimetres on the thing, from its middle, to pixels of the image: a plane turned in space."""
    x, y, turn, tilt_x, tilt_y, size = pose
    axes = _rotation(turn, tilt_x, tilt_y)[:, :2]  # where the thing's own x and y point
    pixels_per_mm = size * CARD_HEIGHT * height / CARD_MM[1]
    centre = np.array([x * width, y * height, 1])
    lens = np.column_stack([np.eye(3, 2) * pixels_per_mm, centre / _EYE_MM])
    plane = np.column_stack([lens @ axes, centre])
    centres = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])  # of pixels are at whole numbers
    onto: Homography = centres @ plane
    return onto


def of_texels(sprite: Face) -> Homography:
    """From a sprite's texels, whose centres are at whole numbers, to millimetres from its middle."""
    origin = [0.5 / TEXEL_PER_MM - side / TEXEL_PER_MM / 2 for side in sprite.shape[1::-1]]
    return np.array([[1 / TEXEL_PER_MM, 0, origin[0]], [0, 1 / TEXEL_PER_MM, origin[1]], [0, 0, 1]])


def rectangle(size_mm: tuple[float, float], onto: Homography) -> Points:
    """Where the corners of a rectangle around the middle land: [4, 2]."""
    width, height = size_mm[0] / 2, size_mm[1] / 2
    corners = np.array([[-width, width, width, -width], [-height, -height, height, height], [1, 1, 1, 1]])
    projected = onto @ corners
    points: Points = (projected[:2] / projected[2]).T
    return points


def size_mm(sprite: Face) -> tuple[float, float]:
    """Width and height of a sprite."""
    return sprite.shape[1] / TEXEL_PER_MM, sprite.shape[0] / TEXEL_PER_MM


def area(corners: Points) -> float:
    """Of a polygon, in square pixels (the shoelace formula)."""
    x, y = corners.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _rotation(turn: float, tilt_x: float, tilt_y: float) -> NDArray[np.float64]:
    (cz, cx, cy), (sz, sx, sy) = np.cos([turn, tilt_x, tilt_y]), np.sin([turn, tilt_x, tilt_y])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turned: NDArray[np.float64] = about_x @ about_y @ about_z
    return turned
