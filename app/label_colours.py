"""One colour a label, the same as on the page (page.js), for whatever shows labels elsewhere."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

_TURN = 137.508  # degrees: neighbours in a list are far apart on the wheel
_SATURATION, _LIGHTNESS = 0.62, (0.46, 0.58, 0.38)


def colour(label: str, labels: Sequence[str]) -> tuple[int, float]:
    """Hue in degrees and lightness, 0 to 1; of a label that is in no list by its letters."""
    place = labels.index(label) if label in labels else _hash(label)
    return round(place * _TURN % 360), _LIGHTNESS[place % 3]


def hex_colour(label: str, labels: Sequence[str]) -> str:
    """As #rrggbb."""
    hue, lightness = colour(label, labels)
    parts = colorsys.hls_to_rgb(hue / 360, lightness, _SATURATION)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _hash(label: str) -> int:
    number = 0
    for letter in label:
        number = (number * 31 + ord(letter)) % 1_000_003
    return number
