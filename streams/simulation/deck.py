"""The faces of playing cards, drawn once at high resolution, as light to be warped into a scene.

A card is 63 x 88 mm; all drawing is in millimetres from its top left corner.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from streams.simulation.camera import decode_srgb

CARD_MM = (63.0, 88.0)
MARGIN_MM = 3.0  # of nothing around the card, so that its edge blends into the table
TEXEL_PER_MM = 3.0  # of the finished face

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "JOKER")
SUITS = ("spades", "hearts", "clubs", "diamonds")

Point = tuple[float, float]
Colour = tuple[int, int, int]
Face = NDArray[np.float32]

_OVERSAMPLING = 5  # drawn so much larger, then averaged in linear light
_BLUR_TEXELS = 0.95  # the lens, and what keeps edges smooth when the face is sampled at half its resolution


@dataclass(frozen=True, slots=True)
class Design:
    """How a deck is printed; sizes are of the usual ones."""

    paper: Colour = (220, 218, 210)
    inks: tuple[Colour, ...] = ((84, 84, 92), (196, 52, 50), (84, 84, 92), (196, 52, 50))  # as SUITS
    gold: Colour = (222, 184, 92)
    blue: Colour = (96, 122, 176)
    cream: Colour = (232, 214, 170)
    weight: float = 0.035  # of the letters' strokes, of their height
    widest_mm: float = 10.0  # of an index
    squeeze: float = 1.0  # width of the letters
    slant: float = 0.0  # of the letters, to the right
    index: float = 1.0  # size of the corner indices
    pips: float = 1.0  # size of the pips
    poster: bool = False  # one large rank instead of pips and courts
    border: bool = False  # a line along the card's edge


PLAIN = Design()


def draw_design(rng: np.random.Generator) -> Design:
    """A deck as some printer might make it."""
    red, black = _ink_colour(rng, 0.0, (0.7, 0.9)), _grey(rng, 20, 90)
    four_colours = rng.random() < 0.2
    return Design(
        paper=_grey(rng, 200, 245, tint=12),
        inks=(black, red, _ink_colour(rng, 0.36, (0.4, 0.6)), _ink_colour(rng, 0.6, (0.6, 0.8)))
        if four_colours
        else (black, red, black, red),
        gold=_ink_colour(rng, 0.12, (0.7, 0.95)),
        blue=_ink_colour(rng, 0.6, (0.5, 0.8)),
        cream=_grey(rng, 200, 240, tint=35),
        weight=rng.uniform(0.0, 0.075),
        widest_mm=rng.uniform(8.5, 11.5),
        squeeze=rng.uniform(0.75, 1.15),
        slant=rng.choice([0.0, 0.0, rng.uniform(0.05, 0.25)]),
        index=rng.uniform(0.85, 1.3),
        pips=rng.uniform(0.8, 1.15),
        poster=rng.random() < 0.12,
        border=rng.random() < 0.2,
    )


def _grey(rng: np.random.Generator, low: int, high: int, tint: int = 0) -> Colour:
    """A grey, less of it in green and blue by up to `tint`."""
    value = int(rng.integers(low, high + 1))
    green, blue = sorted(rng.integers(0, tint + 1, 2).tolist())
    return (value, max(value - green, 0), max(value - blue, 0))


def _ink_colour(rng: np.random.Generator, hue: float, values: tuple[float, float]) -> Colour:
    r, g, b = colorsys.hsv_to_rgb((hue + rng.uniform(-0.02, 0.02)) % 1, rng.uniform(0.6, 0.95), rng.uniform(*values))
    return (round(255 * r), round(255 * g), round(255 * b))


# Pips as (column, height): columns -1, 0, 1; height 0 at the top row, 1 at the bottom row. The lower half stands
# on its head.
_SIDES_2 = [(c, h) for c in (-1, 1) for h in (0.0, 1.0)]
_SIDES_3 = [(c, h) for c in (-1, 1) for h in (0.0, 0.5, 1.0)]
_SIDES_4 = [(c, h) for c in (-1, 1) for h in (0.0, 1 / 3, 2 / 3, 1.0)]
PIPS: dict[str, list[tuple[int, float]]] = {
    "2": [(0, 0.0), (0, 1.0)],
    "3": [(0, 0.0), (0, 0.5), (0, 1.0)],
    "4": _SIDES_2,
    "5": [*_SIDES_2, (0, 0.5)],
    "6": _SIDES_3,
    "7": [*_SIDES_3, (0, 0.25)],
    "8": [*_SIDES_3, (0, 0.25), (0, 0.75)],
    "9": [*_SIDES_4, (0, 0.5)],
    "10": [*_SIDES_4, (0, 1 / 6), (0, 5 / 6)],
}


@lru_cache(maxsize=16)
def draw_face(rank: str, suit: str, design: Design = PLAIN) -> Face:
    """The face of a card as float32 [H, W, 4]: linear RGB times coverage, and coverage; TEXEL_PER_MM, with a margin."""
    sheet = _Sheet(design)
    colour = design.inks[SUITS.index(suit)]
    _draw_middle(sheet, rank, suit, colour)
    for upside_down in (False, True):
        _draw_index(sheet, rank, suit, colour, upside_down)
    return sheet.finish()


def _draw_middle(sheet: _Sheet, rank: str, suit: str, colour: Colour) -> None:
    design = sheet.design
    if design.border:
        sheet.frame((2.2, 2.2, 60.8, 85.8), colour, design.paper)
    if design.poster and rank != "JOKER":
        sheet.text(rank, (31.5, 44.0), 40.0, colour, widest_mm=36.0)
    elif rank == "JOKER":
        _draw_joker(sheet, colour)
    elif rank in ("J", "Q", "K"):
        _draw_court(sheet, rank, colour)
    elif rank == "A":
        sheet.polygons(suit_shape(suit), (31.5, 44.0), 27.0 * design.pips, colour)
    else:
        for column, height in PIPS[rank]:
            at = (31.5 + 11.0 * column, 14.5 + 59.0 * height)
            sheet.polygons(suit_shape(suit), at, 11.5 * design.pips, colour, upside_down=height > 0.5)


def _draw_index(sheet: _Sheet, rank: str, suit: str, colour: Colour, upside_down: bool) -> None:
    size = sheet.design.index
    if rank == "JOKER":
        for row, letter in enumerate(rank):
            sheet.text(letter, (6.5, 9.0 + 9.5 * row), 7.5, colour, upside_down)
        return
    sheet.text(rank, (7.2, 3.5 + 6.5 * size), 13.0 * size, colour, upside_down, widest_mm=sheet.design.widest_mm)
    at = (7.2, 3.5 + 21.0 * size)
    sheet.polygons(suit_shape(suit), _turned(at) if upside_down else at, 9.5, colour, upside_down)


def _draw_court(sheet: _Sheet, rank: str, colour: Colour) -> None:
    design = sheet.design
    sheet.frame((14.0, 6.0, 49.0, 82.0), colour, design.cream)
    for upside_down in (False, True):
        sheet.text(rank, (31.5, 31.5), 18.0, colour, upside_down)
        at = _turned((31.5, 14.5)) if upside_down else (31.5, 14.5)
        crown = design.gold if rank != "J" else design.blue
        sheet.polygons(headgear_shape(rank), at, 14.0, crown, upside_down, outline=colour)
    sheet.polygons([[(-0.5, -0.035), (0.5, -0.035), (0.5, 0.035), (-0.5, 0.035)]], (31.5, 44.0), 35.0, colour)


def _draw_joker(sheet: _Sheet, colour: Colour) -> None:
    sheet.polygons(star_shape(5, 0.45), (31.5, 30.0), 32.0, sheet.design.gold, outline=colour)
    sheet.polygons(headgear_shape("JOKER"), (31.5, 62.0), 34.0, sheet.design.blue, outline=colour)


class _Sheet:
    """Paper to draw on: coordinates in millimetres, colours as a screen shows them."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self._scale = TEXEL_PER_MM * _OVERSAMPLING
        size = [round((side + 2 * MARGIN_MM) * self._scale) for side in CARD_MM]
        self._image = Image.new("RGB", (size[0], size[1]), design.paper)
        self._cover = Image.new("L", (size[0], size[1]), 0)
        self._draw = ImageDraw.Draw(self._image)
        card = (*self._at((0.0, 0.0)), *self._at(CARD_MM))
        ImageDraw.Draw(self._cover).rounded_rectangle(card, 3.5 * self._scale, fill=255)

    def polygons(
        self,
        shape: Iterable[Sequence[Point]],
        centre: Point,
        size_mm: float,
        colour: Colour,
        upside_down: bool = False,
        outline: Colour | None = None,
    ) -> None:
        """A shape of polygons in a unit square around the origin, y down."""
        size = -size_mm if upside_down else size_mm
        for polygon in shape:
            points = [self._at((centre[0] + size * x, centre[1] + size * y)) for x, y in polygon]
            self._draw.polygon(points, fill=colour)
            if outline is not None:
                self._draw.line([*points, points[0], points[1]], outline, round(0.9 * self._scale), joint="curve")

    def frame(self, box: tuple[float, float, float, float], colour: Colour, fill: Colour) -> None:
        corners = (*self._at(box[:2]), *self._at(box[2:]))
        self._draw.rectangle(corners, fill=fill, outline=colour, width=round(0.9 * self._scale))

    def text(
        self,
        text: str,
        centre: Point,
        height_mm: float,
        colour: Colour,
        upside_down: bool = False,
        widest_mm: float = math.inf,
    ) -> None:
        """Text whose ink is ``height_mm`` high and at most ``widest_mm`` wide, around ``centre``."""
        ink = _ink(text, round(height_mm * self._scale), self.design.weight, self.design.slant)
        width = min(ink.width * self.design.squeeze, widest_mm * self._scale)
        ink = ink.resize((round(width), round(height_mm * self._scale)), Image.Resampling.LANCZOS)
        if upside_down:
            ink, centre = ink.transpose(Image.Transpose.ROTATE_180), _turned(centre)
        x, y = self._at(centre)
        self._image.paste(colour, (round(x - ink.width / 2), round(y - ink.height / 2)), ink)

    def finish(self) -> Face:
        light = decode_srgb(np.asarray(self._image))
        cover = np.asarray(self._cover, np.float32)[..., None] / 255
        face = np.concatenate([light * cover, cover], axis=2)
        height, width = (side // _OVERSAMPLING for side in face.shape[:2])
        face = cv2.resize(face, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(face, (0, 0), _BLUR_TEXELS), np.float32)

    def _at(self, point: Sequence[float]) -> Point:
        return ((point[0] + MARGIN_MM) * self._scale, (point[1] + MARGIN_MM) * self._scale)


def _turned(point: Point) -> Point:
    return (CARD_MM[0] - point[0], CARD_MM[1] - point[1])


def _ink(text: str, height: int, weight: float, slant: float) -> Image.Image:
    """The mask of a text, cropped to what is inked."""
    font = ImageFont.load_default(size=1.4 * height)
    stroke = round(weight * height)
    left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
    mask = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)), 0)
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=font, stroke_width=stroke)
    if slant:
        lean = slant * mask.height
        size = (math.ceil(mask.width + lean), mask.height)
        mask = mask.transform(size, Image.Transform.AFFINE, (1, slant, -lean, 0, 1, 0), Image.Resampling.BILINEAR)
    box = mask.getbbox()
    if box is None:
        raise ValueError(f"nothing to draw in {text!r}")
    return mask.crop(box)


# --- shapes: lists of polygons in the unit square around the origin, y down -------------------------------------------


def suit_shape(suit: str) -> list[list[Point]]:
    if suit == "diamonds":
        return [[(0.0, -0.5), (0.38, 0.0), (0.0, 0.5), (-0.38, 0.0)]]
    if suit == "hearts":
        return [_heart(point_down=True)]
    stem = [(-0.09, 0.0), (0.09, 0.0), (0.2, 0.5), (-0.2, 0.5)]
    if suit == "spades":
        return [[(x, 0.8 * y - 0.1) for x, y in _heart(point_down=False)], stem]
    return [_disc((0.0, -0.27), 0.23), _disc((-0.26, 0.1), 0.23), _disc((0.26, 0.1), 0.23), stem]


def star_shape(points: int, inner: float) -> list[list[Point]]:
    """A star whose notches are ``inner`` as far out as its points."""
    radii = [0.5, 0.5 * inner] * points
    return [[_polar(radius, math.pi * (k / points - 0.5)) for k, radius in enumerate(radii)]]


def headgear_shape(rank: str) -> list[list[Point]]:
    """A crown of five points for K, a tiara of three balls for Q, a feathered cap for J, a belled hat for JOKER."""
    if rank == "K":
        spikes = [(-0.6, -0.3), (-0.3, 0.0), (0.0, -0.45), (0.3, 0.0), (0.6, -0.3), (0.5, 0.4), (-0.5, 0.4)]
        return [spikes]
    if rank == "Q":
        band = [(-0.5, -0.1), (-0.2, 0.12), (0.0, -0.15), (0.2, 0.12), (0.5, -0.1), (0.42, 0.4), (-0.42, 0.4)]
        return [band, *(_disc(at, 0.13) for at in ((-0.5, -0.22), (0.0, -0.3), (0.5, -0.22)))]
    if rank == "J":
        return [[(-0.5, 0.1), (0.1, -0.05), (0.75, -0.45), (0.45, 0.12), (0.5, 0.4), (-0.5, 0.4)]]
    left = [(-0.05, 0.35), (-0.4, 0.35), (-0.45, 0.05), (-0.25, -0.35), (0.0, 0.0)]
    hat = [*left, (0.25, -0.35), (0.45, 0.05), (0.4, 0.35)]
    return [hat, *(_disc(at, 0.09) for at in ((-0.27, -0.4), (0.27, -0.4)))]


def _heart(*, point_down: bool) -> list[Point]:
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 0.5 * np.sin(turn) ** 3
    y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 29 + 0.09
    return list(zip(x.tolist(), (y if point_down else -y).tolist(), strict=True))


def _disc(centre: Point, radius: float) -> list[Point]:
    ring = (_polar(radius, 2 * math.pi * k / 32) for k in range(32))
    return [(centre[0] + x, centre[1] + y) for x, y in ring]


def _polar(radius: float, angle: float) -> Point:
    return (radius * math.cos(angle), radius * math.sin(angle))
