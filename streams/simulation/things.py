"""What lies about, and what gets in the way: tables, hands that hold cards, and objects that are no cards.

A sprite is float32 [H, W, 4], linear RGB times coverage, and coverage, at TEXEL_PER_MM, as the faces of cards are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.simulation.camera import Light, decode_srgb
from streams.simulation.deck import CARD_MM, MARGIN_MM, TEXEL_PER_MM, Face

_FINE = 2  # drawn so much larger
_REACH_MM = 46.0  # how far a hand's sprite goes beyond the card
_SKINS = ((238, 201, 174), (222, 171, 127), (196, 138, 98), (141, 88, 58), (92, 58, 40))  # sRGB

_Points = NDArray[np.float64]


class _Canvas:
    """A transparent sheet to draw on, in millimetres from its centre, in colours as a screen shows them."""

    def __init__(self, width_mm: float, height_mm: float) -> None:
        self._scale = TEXEL_PER_MM * _FINE
        self.size = (round(width_mm * TEXEL_PER_MM), round(height_mm * TEXEL_PER_MM))
        shape = (self.size[1] * _FINE, self.size[0] * _FINE)
        self._colour = np.zeros((*shape, 3), np.uint8)
        self._cover = np.zeros(shape, np.uint8)

    def stroke(self, points: _Points, width_mm: float, colour: tuple[int, ...]) -> None:
        """A line with round ends."""
        path, thick = [self._at(points)], max(1, round(width_mm * self._scale))
        cv2.polylines(self._colour, path, False, colour, thick, cv2.LINE_8)
        cv2.polylines(self._cover, path, False, 255, thick, cv2.LINE_8)

    def fill(self, points: _Points, colour: tuple[int, ...]) -> None:
        """A polygon."""
        cv2.fillPoly(self._colour, [self._at(points)], colour)
        cv2.fillPoly(self._cover, [self._at(points)], 255)

    def finish(self) -> Face:
        """The sprite."""
        cover = self._cover.astype(np.float32)[..., None] / 255
        face = np.concatenate([decode_srgb(self._colour) * cover, cover], axis=2)
        return np.asarray(cv2.resize(face, self.size, interpolation=cv2.INTER_AREA), np.float32)

    def _at(self, points: _Points) -> NDArray[np.int32]:
        pixels = points * self._scale + np.array(self._cover.shape[::-1]) / 2
        return np.round(pixels).astype(np.int32).reshape(-1, 1, 2)


def hold(face: Face, rng: np.random.Generator) -> tuple[Face, float]:
    """A card in a hand, one or two fingers of which reach over an edge, and the share of the card that stays bare."""
    height, width = face.shape[:2]
    grow = round(_REACH_MM * TEXEL_PER_MM)
    held = np.zeros((height + 2 * grow, width + 2 * grow, 4), np.float32)
    held[grow:-grow, grow:-grow] = face
    hand = _fingers_on_card(rng, (held.shape[1] / TEXEL_PER_MM, held.shape[0] / TEXEL_PER_MM))
    card = held[..., 3]
    return hand + (1 - hand[..., 3:]) * held, float(((1 - hand[..., 3]) * card).sum() / card.sum())


def draw_thing(rng: np.random.Generator, kind: str | None = None) -> Face:
    """Something that is no card: one of THINGS, or any."""
    return THINGS[kind or _DEALT[rng.integers(len(_DEALT))]](rng)


def draw_table(rng: np.random.Generator, width: int, height: int) -> Light:
    """A table top: plain, of wood, cloth, tiles, or covered with printed matter; float32 [height, width, 3]."""
    base = rng.uniform(25, 185) + rng.normal(0, 22, 3)
    kinds = (_plain, _wood, _cloth, _tiles, _prints)
    pattern = kinds[rng.choice(len(kinds), p=(0.3, 0.25, 0.2, 0.1, 0.15))](rng, width, height)  # [H, W] or [H, W, 3]
    shade = _smooth(rng, width, height, 0.5 * max(width, height)) * 8
    pixels = base + (pattern if pattern.ndim == 3 else pattern[..., None]) + shade[..., None]
    return decode_srgb(np.clip(pixels, 5, 235).astype(np.uint8))


# --- tables: what they add to an even colour, in sRGB steps -----------------------------------------------------------


def _plain(rng: np.random.Generator, width: int, height: int) -> _Points:
    return rng.normal(0, 1.0, (height, width))


def _wood(rng: np.random.Generator, width: int, height: int) -> _Points:
    return rng.uniform(6, 20) * _smooth(rng, width, height, 2.0, stretch=rng.uniform(10, 40))


def _cloth(rng: np.random.Generator, width: int, height: int) -> _Points:
    pitch, (y, x) = rng.uniform(3, 8), np.mgrid[:height, :width]
    waves: _Points = np.sin(2 * np.pi * x / pitch) + np.sin(2 * np.pi * y / pitch)
    return rng.uniform(3, 9) * waves


def _tiles(rng: np.random.Generator, width: int, height: int) -> _Points:
    pitch, (y, x) = rng.uniform(20, 70), np.mgrid[:height, :width]
    turn = rng.uniform(0, np.pi / 2)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    squares: _Points = (np.floor(u / pitch) + np.floor(v / pitch)) % 2
    return rng.uniform(8, 30) * squares


def _prints(rng: np.random.Generator, width: int, height: int) -> _Points:
    sheet = np.full((height, width, 3), 128, np.uint8)
    for _ in range(rng.integers(3, 10)):
        centre, size = rng.uniform((0, 0), (width, height)), rng.uniform(15, 110, 2)
        box = cv2.boxPoints(((centre[0], centre[1]), (size[0], size[1]), rng.uniform(0, 90))).astype(np.int32)
        cv2.fillPoly(sheet, [box], rng.normal(128, 40, 3).tolist())
        if rng.random() < 0.4:
            at = (int(centre[0]), int(centre[1]))
            text = "".join(rng.choice(list("abcdefghstuvwz"), 8))
            cv2.putText(
                sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 0.9), rng.normal(128, 50, 3).tolist()
            )
    return np.asarray(sheet - 128.0, np.float64)


def _smooth(rng: np.random.Generator, width: int, height: int, radius: float, stretch: float = 1.0) -> _Points:
    """Smooth noise of unit variance, stretched along one axis."""
    step = max(1.0, radius / 3)  # it is drawn as coarsely as it is smooth
    shape = (max(2, round(height / step)), max(2, round(width / step)))
    radii = (radius * stretch / step, radius / step)
    across, down = radii if rng.random() < 0.5 else radii[::-1]
    noise = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), across, sigmaY=down)
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = noise - noise.mean()
    return np.asarray(noise / max(float(noise.std()), 1e-9), np.float64)


# --- hands and things -------------------------------------------------------------------------------------------------


def _fingers_on_card(rng: np.random.Generator, size_mm: tuple[float, float]) -> Face:
    canvas, skin = _Canvas(*size_mm), _skin(rng)
    side = rng.integers(4)
    across, along = ((CARD_MM[0], CARD_MM[1]), (CARD_MM[1], CARD_MM[0]))[side % 2]
    for k in range(rng.integers(1, 3)):
        place, over = rng.uniform(-0.3, 0.3) * across + 24 * k, rng.uniform(8, 20)
        root = np.array([place + rng.uniform(-12, 12), along / 2 + _REACH_MM])
        _finger(canvas, rng, root, np.array([place, along / 2 - over]), rng.uniform(13, 18), skin, side * np.pi / 2)
    return canvas.finish()


def _open_hand(rng: np.random.Generator) -> Face:
    canvas, skin = _Canvas(190, 190), _skin(rng)
    turn = rng.uniform(0, 2 * np.pi)
    canvas.stroke(_turn(np.array([[0.0, 25.0], [0.0, 90.0]]), turn), 52, _darker(skin, 0.95))
    canvas.fill(_turn(np.array([[-32.0, 0], [32, 0], [34, 45], [-34, 45]]), turn), skin)
    for k in range(4):
        root = np.array([-26.0 + 17 * k, 5.0])
        tip = root + np.array([rng.uniform(-8, 8), -rng.uniform(25, 70)])
        _finger(canvas, rng, root, tip, rng.uniform(14, 17), skin, turn)
    _finger(canvas, rng, np.array([30.0, 35.0]), np.array([58.0, rng.uniform(-10, 15)]), 18, skin, turn)
    return canvas.finish()


def _finger(
    canvas: _Canvas,
    rng: np.random.Generator,
    root: _Points,
    tip: _Points,
    width_mm: float,
    skin: tuple[int, ...],
    turn: float,
) -> None:
    ends = np.array([root, (root + tip) / 2 + rng.uniform(-3, 3, 2), tip])
    canvas.stroke(_turn(ends, turn), width_mm, _darker(skin, 0.78))
    canvas.stroke(_turn(ends, turn), width_mm - 2, skin)
    way = (tip - root) / max(float(np.linalg.norm(tip - root)), 1e-6)
    canvas.stroke(_turn(np.array([tip, tip + way]), turn), width_mm * 0.5, _lighter(skin, 0.25))  # the nail


def _card_back(rng: np.random.Generator) -> Face:
    canvas, ink = _Canvas(CARD_MM[0] + 2 * MARGIN_MM, CARD_MM[1] + 2 * MARGIN_MM), _any_colour(rng)
    canvas.fill(_box_points(*CARD_MM), (225, 222, 215))
    canvas.fill(_box_points(CARD_MM[0] - 8, CARD_MM[1] - 8), ink)
    pale = _lighter(ink, 0.5)
    for offset in np.arange(-70, 71, rng.uniform(6, 12)):
        for way in (1, -1):
            line = np.array([[-27.0, way * -27 + offset], [27.0, way * 27 + offset]])
            canvas.stroke(np.clip(line, (-27.5, -40), (27.5, 40)), 0.8, pale)
    return canvas.finish()


def _paper(rng: np.random.Generator) -> Face:
    width, height = rng.uniform(40, 110, 2)
    canvas = _Canvas(width + 6, height + 6)
    canvas.fill(_box_points(width, height), _lighter(_any_colour(rng), 0.8))
    if rng.random() < 0.6:
        for y in np.arange(-height / 2 + 8, height / 2 - 8, rng.uniform(5, 9)):
            canvas.stroke(np.array([[-width / 2 + 6, y], [rng.uniform(0, width / 2 - 6), y]]), 1.4, (90, 90, 95))
    return canvas.finish()


def _pen(rng: np.random.Generator) -> Face:
    canvas, turn = _Canvas(160, 160), rng.uniform(0, np.pi)
    colour = _any_colour(rng)
    canvas.stroke(_turn(np.array([[-68.0, 0], [60, 0]]), turn), rng.uniform(7, 11), colour)
    canvas.stroke(_turn(np.array([[60.0, 0], [72, 0]]), turn), 3, _darker(colour, 0.4))
    return canvas.finish()


def _phone(rng: np.random.Generator) -> Face:
    canvas = _Canvas(78, 156)
    canvas.stroke(_box_points(58, 136, closed=True), 10, (25, 25, 28))
    canvas.fill(_box_points(62, 138), (25, 25, 28))
    canvas.fill(_box_points(60, 124), tuple(rng.integers(20, 230, 3).tolist()))
    return canvas.finish()


def _cup(rng: np.random.Generator) -> Face:
    canvas, ring = _Canvas(120, 110), np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle, colour = np.stack([np.cos(ring), np.sin(ring)], axis=1), _any_colour(rng)
    canvas.stroke(np.array([[36.0, 0], [54, 0]]), 12, colour)
    for radius, tone in ((42, colour), (37, _darker(colour, 0.7)), (33, (70, 42, 24))):
        canvas.fill(radius * circle, tone)
    return canvas.finish()


def _cable(rng: np.random.Generator) -> Face:
    canvas, s = _Canvas(190, 190), np.linspace(-1, 1, 40)
    bends = rng.uniform(-45, 45, 4)
    path = np.stack([80 * s, bends[0] * s + bends[1] * np.sin(3 * s) + bends[2] * np.cos(5 * s + bends[3])], axis=1)
    canvas.stroke(_turn(path, rng.uniform(0, np.pi)), rng.uniform(3, 7), _any_colour(rng))
    return canvas.finish()


def _box(rng: np.random.Generator) -> Face:
    width, height = rng.uniform(25, 100, 2)
    canvas, colour = _Canvas(width + 6, height + 6), _any_colour(rng)
    canvas.fill(_box_points(width, height), colour)
    canvas.fill(_box_points(width * 0.8, height * rng.uniform(0.2, 0.8)), _lighter(colour, rng.uniform(0, 0.6)))
    return canvas.finish()


def _box_points(width_mm: float, height_mm: float, *, closed: bool = False) -> _Points:
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]][: 5 if closed else 4])
    return corners * (width_mm / 2, height_mm / 2)


def _turn(points: _Points, angle: float) -> _Points:
    c, s = np.cos(angle), np.sin(angle)
    turned: _Points = points @ np.array([[c, s], [-s, c]])
    return turned


def _skin(rng: np.random.Generator) -> tuple[int, ...]:
    return _darker(_SKINS[rng.integers(len(_SKINS))], rng.uniform(0.85, 1.05))


def _any_colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(15, 230, 3).tolist())


def _darker(colour: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(min(255, round(c * factor)) for c in colour)


def _lighter(colour: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(c + share * (245 - c)) if c < 245 else c for c in colour)


THINGS: Mapping[str, Callable[[np.random.Generator], Face]] = {
    "hand": _open_hand,
    "card back": _card_back,
    "paper": _paper,
    "pen": _pen,
    "phone": _phone,
    "cup": _cup,
    "cable": _cable,
    "box": _box,
}
_DEALT = ("hand", *THINGS)  # hands twice as often as anything else
