"""Panes side by side, and below them what is seen at that moment, as one picture of a video."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from app.fonts import font_for
from app.label_file import LabelRow
from app.strip import GAP, PANES, Moment, Past, View
from streams import Sample, Source
from streams.items import Image
from streams.text import on_one_line

_LEAST_WIDTH = 960  # small sensors are enlarged by whole factors: a video halves the resolution of colours
_MOST_WIDTH = 3840
_PAPER, _INK, _FAINT = (17, 24, 39), (243, 244, 246), (156, 163, 175)
_LONGEST = 60  # characters of a label


def panes_of(source: Source) -> tuple[str, ...]:
    """What there is to show of a source: RGB beside events, where it has both."""
    there = {"rgb": source.frame_size is not None, "events": source.event_size is not None}
    return tuple(pane for pane in PANES if there.get(pane))


def check_panes(text: str) -> tuple[str, ...]:
    """Names of panes with commas. Raises ValueError for others."""
    panes = tuple(pane.strip() for pane in text.split(","))
    if odd := [pane for pane in panes if pane not in PANES]:
        raise ValueError(f"there is no pane {odd[0]!r}, only {', '.join(PANES)}")
    return panes


class Drawing:
    """Draws pictures of one size: that of the first one. With `rows`, labels and time stand below the panes."""

    def __init__(self, panes: Sequence[str], rows: Iterable[LabelRow] | None) -> None:
        self._view = View(tuple(panes), _MOST_WIDTH // len(panes))
        self._past = Past()
        self._numbers = itertools.count()
        self._caption = None if rows is None else Current(rows)
        self._size: tuple[int, int] | None = None  # of the panes, before they are enlarged
        self._strip: tuple[int, Image] = (-1, np.zeros((0, 0, 3), np.uint8))  # of the newest sample

    def picture(self, sample: Sample, time_us: int, origin_us: int) -> Image:
        """Uint8 [H, W, 3] in RGB order, H and W even."""
        if sample.index != self._strip[0]:
            self._strip = sample.index, self._panes(sample)
        strip = self._strip[1]
        if self._caption is None:
            return strip
        row = self._caption.at(time_us)
        label, sure = ("", None) if row is None else (row.label, row.confidence)
        told = f"{(time_us - origin_us) / 1e6:.1f} s"
        return np.concatenate([strip, _caption(strip.shape[1], label, sure, told)])

    def _panes(self, sample: Sample) -> Image:
        panes = Moment(next(self._numbers), sample, self._past.before(sample, 1), 0.0).panes(self._view)
        gap = np.full((panes[0].shape[0], GAP, 3), _PAPER, np.uint8)
        strip = np.hstack([column for pane in panes for column in (gap, pane)][1:])
        height, width = self._size = self._size or (strip.shape[0], strip.shape[1])
        if strip.shape[:2] != (height, width):
            strip = np.asarray(cv2.resize(strip, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        factor = max(1, -(-_LEAST_WIDTH // width))
        strip = strip.repeat(factor, axis=0).repeat(factor, axis=1)
        return np.pad(strip, ((0, strip.shape[0] % 2), (0, strip.shape[1] % 2), (0, 0)), "edge")


class Current:
    """The label that holds at a moment, of spans that may overlap: the one that began last. Moments must not fall."""

    def __init__(self, rows: Iterable[LabelRow]) -> None:
        self._waiting = deque(sorted(rows, key=lambda row: row.start_us))
        self._open: list[LabelRow] = []

    def at(self, time_us: int) -> LabelRow | None:
        while self._waiting and self._waiting[0].start_us <= time_us:
            self._open.append(self._waiting.popleft())
        self._open = [row for row in self._open if row.end_us > time_us]
        return self._open[-1] if self._open else None


@lru_cache(maxsize=8)
def _caption(width: int, label: str, confidence: float | None, time: str) -> Image:
    """A band below the panes, uint8 [h, width, 3], h even."""
    size = max(14, width // 48)
    page = Pictures.new("RGB", (width, 2 * size), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(1.2 * size)
    middle, said = float(size), on_one_line(label, _LONGEST) or "no label"
    own = font_for(said, 1.2 * size)
    draw.text((size, middle), said, _INK if label else _FAINT, own, anchor="lm")
    if confidence is not None:
        after = size + draw.textlength(said, own)
        draw.text((after + size, middle), f"{confidence:.0%}", _FAINT, font, anchor="lm")
    draw.text((width - size, middle), time, _FAINT, font, anchor="rm")
    return np.asarray(page, np.uint8)
