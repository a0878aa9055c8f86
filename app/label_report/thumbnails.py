"""Small pictures of what was seen where the recogniser was least sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track as progress

from app.export.places import Places
from app.film.drawing import panes_of
from app.film.make import Look
from app.label_report.tracks import Doubt
from app.strip import GAP, Moment, View, encode_strip
from streams import Sample, StreamError, synchronize
from streams.items import Image

_WIDTH = 346  # pixels of a pane, at most


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG of the panes side by side, or why there is none."""

    jpeg: bytes = b""
    size: tuple[int, int] = (2, 1)
    failure: str = ""


def thumbnails(
    doubts: Sequence[Doubt], places: Places, look: Look, stopped: Callable[[], bool]
) -> dict[Doubt, Thumbnail]:
    """What the middle of each span looks like; a recording is opened once. Those that were made until `stopped`."""
    console = Console(stderr=True)
    ordered = sorted(doubts, key=lambda doubt: (doubt.track.name, doubt.middle_us))
    taken = _taken(ordered, places, look)
    shown = progress(taken, "looking", len(ordered), console=console, transient=True, disable=not console.is_terminal)
    found: dict[Doubt, Thumbnail] = {}
    for doubt, thumbnail in shown:
        found[doubt] = thumbnail
        if stopped():
            break
    return found


def _taken(doubts: Sequence[Doubt], places: Places, look: Look) -> Iterator[tuple[Doubt, Thumbnail]]:
    for _, group in groupby(doubts, key=lambda doubt: doubt.track.name):
        own = list(group)
        recording = places.find(own[0].track.labelled.note)
        if recording is None:
            yield from ((doubt, Thumbnail(failure="the recording has gone or changed")) for doubt in own)
            continue
        waiting = list(own)
        try:
            for doubt, picture in _pictures(recording, own, look):
                waiting.remove(doubt)
                yield doubt, picture
        except (StreamError, ValueError, OSError) as error:
            yield from ((doubt, Thumbnail(failure=str(error))) for doubt in waiting)


def _pictures(recording: Path, doubts: Sequence[Doubt], look: Look) -> Iterator[tuple[Doubt, Thumbnail]]:
    with look.open(recording) as source:
        view = View(panes_of(source))
        for doubt in doubts:
            sample = next(synchronize(source, from_us=doubt.middle_us), None)
            yield doubt, Thumbnail(failure="nothing can be seen there") if sample is None else _drawn(sample, view)


def _drawn(sample: Sample, view: View) -> Thumbnail:
    picture = encode_strip(_small(Moment(0, sample, None, 0.0).panes(view)))
    return Thumbnail(picture.jpeg, (sum(picture.widths) + GAP * (len(picture.widths) - 1), picture.height))


def _small(panes: Sequence[Image]) -> list[Image]:
    """Panes of one height, at most _WIDTH wide each; small sensors are enlarged by whole factors."""
    height, widest = panes[0].shape[0], max(pane.shape[1] for pane in panes)
    if widest <= _WIDTH:
        factor = _WIDTH // widest
        return [pane.repeat(factor, axis=0).repeat(factor, axis=1) for pane in panes]
    low = max(1, round(height * _WIDTH / widest))
    sizes = [(max(1, round(pane.shape[1] * _WIDTH / widest)), low) for pane in panes]
    return [
        np.asarray(cv2.resize(pane, size, interpolation=cv2.INTER_AREA), np.uint8)
        for pane, size in zip(panes, sizes, strict=True)
    ]
