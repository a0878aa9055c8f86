"""The road without the model, on one thread: decoding, synchronising and rendering, against bare decoding."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from app.bench.asked import Asked
from app.bench.book import Book
from app.bench.fabricated import write_recording
from app.bench.timing import Work, alternate
from app.bench.worker import Worker, WorkerFailed
from streams import EventPacket, open_source, synchronize
from streams.aedat4 import EVENTS, FRAMES, MAGIC
from streams.aedat4_reader import Aedat4Reader
from streams.items import Events, join_events

_EVENTS, _QUICK_EVENTS = 10_000_000, 2_000_000
_COUNTED = 4_000_000  # events that are accumulated
_PATIENCE_S = 60.0  # with libraries that may hang on a recording


def measure(asked: Asked, book: Book) -> None:
    """One row: million events a second of each."""
    path = asked.recording
    if path is None:
        book.doing("writing a recording")
        path = asked.folder / "road.aedat4"
        write_recording(path, _QUICK_EVENTS if asked.quick else _EVENTS)
    with one_thread(), contextlib.ExitStack() as held:
        book.doing("decoding, synchronising, rendering")
        events, samples, image = _look(path)
        if not events:
            book.leave_out("the road", f"{path.name} holds no events")
            return
        works: dict[str, Work] = {"road": lambda: drive(path)}
        works |= _decoders(path, book, held)
        works["add_at"] = lambda: np.add.at(image, (counted["y"], counted["x"]), 1)
        counted = _first_events(path)
        seconds = alternate(works, asked.turns(7, 3), book)
    row = book.row(recording=path.name, events=events, samples=samples, megabytes=round(path.stat().st_size / 1e6, 1))
    for name, own in seconds.items():
        row.rate(f"{name}_mevs", (len(counted) if name == "add_at" else events) / 1e6, own)
    for name in seconds:
        if name != "road":
            row.ratio(f"road_vs_{name}", "road_mevs", f"{name}_mevs")


def drive(path: Path) -> int:
    """All samples of a recording; how many there are."""
    with open_source(path) as source:
        return sum(1 for _ in synchronize(source))


def decode(path: Path) -> None:
    """All events and frames of an AEDAT 4 recording, by our own codec, and no more."""
    with Aedat4Reader(path) as reader:
        for stream in reader.header.streams:
            if stream.kind in (EVENTS, FRAMES):
                read = reader.events if stream.kind == EVENTS else reader.frame
                for entry in reader.of(stream):
                    read(entry)


def decode_by_aedat(path: Path) -> None:
    """The same by the package `aedat`."""
    import aedat

    for _ in aedat.Decoder(path):
        pass


def decode_by_dv(path: Path) -> None:
    """The same by dv-processing: in a process of its own, for it can hang with the interpreter's lock held."""
    import dv_processing as dv

    recording = dv.io.MonoCameraRecording(str(path))
    while recording.isRunning() and recording.getNextEventBatch() is not None:
        pass
    while recording.isFrameStreamAvailable() and recording.getNextFrame() is not None:
        pass


def _decoders(path: Path, book: Book, held: contextlib.ExitStack) -> dict[str, Work]:
    """What decodes the recording, by name; what is not installed, or fails, is left out."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            book.leave_out("bare decoding", f"{path.name} is not AEDAT 4")
            return {}
    works: dict[str, Work] = {"decode": lambda: decode(path)}
    for name, package, decodes in (("aedat", "aedat", decode_by_aedat), ("dv", "dv-processing", decode_by_dv)):
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            book.leave_out(package, f"it is not installed: pip install {package}")
            continue
        try:
            with contextlib.ExitStack() as own:  # one that hangs would take its share of the core from the others
                worker = own.enter_context(Worker(decodes, book, timeout_s=_PATIENCE_S))
                worker.ask(path)
                held.push(own.pop_all())
            works[name] = partial(worker.ask, path)
        except WorkerFailed as failure:
            book.leave_out(package, f"{path.name}: {failure}")
    return works


def _look(path: Path) -> tuple[int, int, np.ndarray]:
    """Events and samples of a recording, and an empty image of its sensor's size."""
    with open_source(path) as source:
        width, height = source.event_size or (1, 1)
        events = sum(len(item.events) for item in source if isinstance(item, EventPacket))
    return events, drive(path), np.zeros((height, width), np.int32)


def _first_events(path: Path) -> Events:
    parts: list[Events] = []
    with open_source(path) as source:
        for item in source:
            if isinstance(item, EventPacket):
                parts.append(item.events)
                if sum(map(len, parts)) >= _COUNTED:
                    break
    return join_events(parts)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """This thread, and processes that it starts, on one core; OpenCV without threads of its own."""
    threads = cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cv2.setNumThreads(1)
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
