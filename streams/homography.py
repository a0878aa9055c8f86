"""A homography, which maps pixels of an event camera to those of another one's frames, and frames warped by it."""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.errors import StreamError
from streams.items import Image

Homography = NDArray[np.float64]  # [3, 3]

_MOST_BYTES = 1 << 14  # of a file with nine numbers and remarks
_MOST_CONDITION = 1e12
_SHRINK = 1.5  # pixels of a frame for one of the events': beyond, it is averaged before it is sampled


class Warp:
    """Frames in the pixels of the events, by a homography [3, 3] from these to those of the frames.

    Raises StreamError where that cannot be inverted.
    """

    def __init__(self, homography: Homography, size: tuple[int, int]) -> None:
        self._matrix, self._size = checked(homography, "the homography"), size

    def __call__(self, image: Image) -> Image:
        """uint8 [height, width, 3] of the events' size; black where the frame does not reach."""
        matrix, image = self._shrunk(image)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpPerspective(image, matrix, self._size, flags=flags), np.uint8)

    def _shrunk(self, image: Image) -> tuple[Homography, Image]:
        """A frame with many more pixels than the events have, averaged; and what maps to its pixels."""
        x, y = (side / 2 for side in self._size)
        corners = np.array([[x, y, 1], [x + 1, y, 1], [x, y + 1, 1]]) @ self._matrix.T
        if (np.abs(corners[:, 2]) < 1e-9).any():
            return self._matrix, image
        centre, right, below = corners[:, :2] / corners[:, 2:]
        scale = math.sqrt(abs(float(np.linalg.det(np.array([right - centre, below - centre])))))
        if scale < _SHRINK:
            return self._matrix, image
        height, width = image.shape[:2]
        small = (max(1, round(width / scale)), max(1, round(height / scale)))
        by_x, by_y = small[0] / width, small[1] / height
        shrink = np.array([[by_x, 0, by_x / 2 - 0.5], [0, by_y, by_y / 2 - 0.5], [0, 0, 1]])
        return shrink @ self._matrix, np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)


def load_homography(path: str | Path) -> Homography:
    """Nine numbers [3, 3] of a text file, row by row, with blanks, commas or new lines between them; # begins a remark.

    Raises StreamError that names the file.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StreamError(f"{path}: cannot be read ({reason}); give a text file with nine numbers") from None
    try:
        lines = data.decode("utf-8-sig").replace(",", " ").splitlines()
        words = [word for line in lines for word in line.partition("#")[0].split()]
        if len(data) > _MOST_BYTES or len(words) != 9:
            raise ValueError
        numbers = np.loadtxt(io.StringIO(" ".join(words)), np.float64).reshape(3, 3)
    except ValueError:
        raise StreamError(f"{path}: a homography is nine numbers, three rows of three, and nothing else") from None
    return checked(numbers, str(path))


def checked(homography: Homography, name: str) -> Homography:
    """The same, float64 [3, 3]. Raises StreamError where it is of another shape, or cannot be inverted."""
    matrix = np.asarray(homography, np.float64)
    if matrix.shape != (3, 3):
        raise StreamError(f"{name}: must be three rows of three numbers, not an array of {matrix.shape}")
    if not np.isfinite(matrix).all() or not np.linalg.cond(matrix) < _MOST_CONDITION:
        raise StreamError(f"{name}: cannot be inverted, so it maps nothing; it must take event pixels to RGB pixels")
    return matrix
