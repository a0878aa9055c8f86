"""Labelling recordings: `velora label`, against a loop of whole windows, recording after recording.

The loop decodes, renders and encodes each window from nothing, as a script around the model would; it does a few
windows before and as many after, since it is slow. Both see the same recordings, in one dtype. `device_busy` is the
share of the time in which the model is asked, which on a GPU counts what the host does for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from app.bench.asked import Asked
from app.bench.book import Book
from app.bench.fabricated import write_recording
from app.bench.models import dtype_name, is_random
from app.bench.push import from_scratch
from app.bench.timing import timed
from app.labelling.inputs import find
from app.labelling.labeller import Labeller
from app.labelling.notes import Note
from app.labelling.settings import Settings
from app.model import render_config
from streams import Sample, open_source, synchronize
from streams.cores import usable_cores
from velora import Recognizer

_FEED = {"denoise": False, "roi": None, "flip": None, "rotate": 0}
_RECORDINGS, _EVENTS, _RATE = 2, 6_000_000, 1e6  # of 6 s: a window is full only after most of a second
_QUICK_EVENTS = 1_500_000
_LOOPED, _QUICK_LOOPED = 4, 2  # windows


def measure(asked: Asked, book: Book) -> None:
    """A row a model."""
    book.doing("writing recordings")
    recordings = _written(asked)
    for name in asked.models:
        book.doing(name)
        _row(asked, book, name, recordings)


def _written(asked: Asked) -> Path:
    folder = asked.folder / "to-label"
    folder.mkdir(exist_ok=True)
    for k in range(max(_RECORDINGS, usable_cores() - 1)):  # one for each reader
        write_recording(folder / f"{k}.aedat4", _QUICK_EVENTS if asked.quick else _EVENTS, _RATE)
    return folder


def _row(asked: Asked, book: Book, name: str, folder: Path) -> None:
    model: dict[str, Any] = {"model": name, "labels": None, "weights": None, "random_weights": is_random(name)}
    model |= {"device": asked.device, "dtype": asked.dtype}
    out = asked.folder / "labels" / str(asked.models.index(name))
    recordings = find([str(folder)], None, out).recordings
    jobs, looped = max(1, usable_cores() - 1), _QUICK_LOOPED if asked.quick else _LOOPED
    with Labeller(Settings(out, model, _FEED, stride=1), jobs) as labeller:
        list(labeller.label_all(recordings[:jobs], told=book.heed))  # all readers have started, and all is warm
        recognizer = labeller.recognizer
        loop_s = _loop(recognizer, recordings[0].path, looped, book)
        before = labeller.model_s
        notes: list[Note] = []
        label_s = timed(lambda: notes.extend(labeller.label_all(recordings, told=book.heed)))
        busy_s, batch = labeller.model_s - before, labeller.batch
        loop_s += _loop(recognizer, recordings[-1].path, looped, book)
    windows = sum(note.windows for note in notes)
    row = book.row(
        model=name,
        dtype=dtype_name(recognizer.dtype),
        device=str(recognizer.device),
        batch=batch,
        jobs=jobs,
        recordings=len(notes),
        windows=windows,
        random_weights=bool(recognizer.random_parts),
    )
    row.figures["windows_per_s"] = windows / label_s
    row.rate("loop_windows_per_s", 1, loop_s)
    row.ratio("label_vs_loop", "windows_per_s", "loop_windows_per_s")
    row.figures["device_busy"] = busy_s / label_s
    row.figures["reading_share"] = sum(note.read_s for note in notes) / label_s
    row.figures["real_time_factor"] = sum(note.seconds for note in notes) / label_s


def _loop(recognizer: Recognizer, path: Path, count: int, book: Book) -> list[float]:
    """Seconds of each window of the loop; the first one is not counted."""
    loop, seconds = _windows(recognizer, path), list[float]()
    next(loop)
    for _ in range(count):
        book.heed()
        seconds.append(timed(lambda: next(loop)))
    return seconds


def _windows(recognizer: Recognizer, path: Path) -> Iterator[torch.Tensor]:
    window: deque[Sample] = deque(maxlen=recognizer.config.frames)
    with open_source(path) as source:
        for sample in synchronize(source, render=render_config(recognizer)):
            window.append(sample)
            if len(window) == window.maxlen:
                yield from_scratch(recognizer, list(window))
