"""What a tab shows, as a picture to keep: the panes with label, confidence and time below them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from app.fonts import font_for
from app.strip import GAP, View
from app.viewer import Viewer
from streams.text import on_one_line

_LEAST_WIDTH, _MOST_HEIGHT = 960, 2160  # small sensors are enlarged by whole factors
_INK, _FAINT, _PAPER = (17, 24, 39), (107, 114, 128), (255, 255, 255)


def snapshot(viewer: Viewer) -> bytes:
    """A PNG. There must be a moment to show."""
    shown, channel = viewer.shown, viewer.channel
    moment, prediction = shown.moment, shown.prediction
    assert moment is not None
    panes = moment.panes(View())
    gap = np.full((panes[0].shape[0], GAP, 3), 255, np.uint8)
    strip = np.hstack([column for pane in panes for column in (gap, pane)][1:])
    factor = max(1, min(-(-_LEAST_WIDTH // strip.shape[1]), _MOST_HEIGHT // strip.shape[0]))
    strip = strip.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = strip.shape[:2]
    size = max(14, width // 50)
    page = Image.new("RGB", (width, height + 4 * size), _PAPER)
    page.paste(Image.fromarray(strip))
    draw = ImageDraw.Draw(page)
    label = "no label yet" if prediction is None or shown.stale else f"{prediction.label}  {prediction.confidence:.0%}"
    if prediction is not None and prediction.unsure:
        label = f"unsure ({label})"
    origin_us = channel.timeline.origin_us if channel.timeline else 0
    told = [f"{channel.name}", f"{(moment.sample.t_end_us - origin_us) / 1e6:.3f} s", channel.recognizer.name]
    if channel.recognizer.random_parts:
        told.append("random weights")
    for text, place, ink, large in ((label, 1 / 3, _INK, 1.5), (" · ".join(told), 2.5, _FAINT, 1.0)):
        line = on_one_line(text, 120)
        draw.text((size, height + place * size), line, ink, font_for(line, large * size))
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()
