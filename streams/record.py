"""Recording a feed while it flows: all that a source yields goes to an AEDAT 4 file, whatever becomes of it later.

    with open_source("tcp://127.0.0.1:7777") as source:
        tee = Tee(source)
        tee.start(Path("out.aedat4"))
        run(Live(tee), recognizer, sinks=[...], policy=LATEST)
        tee.stop()

Every packet is written at once and whole, so that a kill loses at most the one that is being written; `LabelLog` keeps
what was recognised meanwhile, in the label format, a second at a time.
"""

from __future__ import annotations

import contextlib
import csv
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from streams.aedat4_writer import Aedat4Writer, write_aedat4
from streams.cells import safe
from streams.errors import RecordingError
from streams.files import replaced_when_whole
from streams.items import EventImage, EventPacket, Gap, Item, RgbFrame
from streams.source import Source, Through

_SPAN_US = 1_000_000  # of labels that are not on disk yet
HEADINGS = ("recording", "start_us", "end_us", "label", "confidence")


@dataclass
class Recorded:
    """How a recording goes."""

    path: Path
    began: float  # on the monotonic clock
    events: int = 0
    frames: int = 0
    size: int = 0  # bytes
    failure: str = ""  # why it ended before it was to

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def __str__(self) -> str:
        told = f"{self.path}: {self.events:,} events, {self.frames:,} frames, {self.size / 1e6:.1f} MB"
        return f"{told}; {self.failure}" if self.failure else told


class Tee(Through):
    """A source whose items are recorded on their way; recording starts and stops from any thread."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._lock = threading.Lock()
        self._writer: Aedat4Writer | None = None
        self.recorded: Recorded | None = None  # the recording that goes on, or the last one

    @property
    def recording(self) -> bool:
        """Whether items are written now."""
        return self._writer is not None

    def start(self, path: Path, *, replace: bool = False) -> None:
        """Write what comes from now on. Raises RecordingError where there is such a file, or it cannot be written."""
        check_free(path, replace)
        if path.exists() and self.path is not None and path.samefile(self.path):
            raise RecordingError(f"{path} is what is to be recorded: choose another name")
        self.stop()
        try:
            writer = write_aedat4(path, self.event_size, self.frame_size, camera=self.name)
        except OSError as error:
            raise RecordingError(f"{path} cannot be written ({error.strerror}); choose another place") from None
        with self._lock:
            self._writer, self.recorded = writer, Recorded(path, time.monotonic())

    def stop(self) -> Recorded | None:
        """Finish the file. Does nothing where nothing is recorded."""
        with self._lock:
            self._finish()
            return self.recorded

    def close(self) -> None:
        self.stop()
        super().close()

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            self._write(item)
            yield item

    def _write(self, item: Item) -> None:
        with self._lock:
            if self._writer is None or self.recorded is None or isinstance(item, Gap):
                return
            if isinstance(item, EventImage):
                self.counts["images of events, which a recording cannot hold"] += 1
                return
            try:
                self._writer.write(item)
            except OSError as error:  # a full disk: what is there stays readable, the feed goes on
                self.recorded.failure = f"it ends here, since it cannot be written on ({error.strerror})"
                self._finish()
                return
            self.recorded.size = self._writer.size
            self.recorded.events += len(item.events) if isinstance(item, EventPacket) else 0
            self.recorded.frames += isinstance(item, RgbFrame)

    def _finish(self) -> None:
        if self._writer is None:
            return
        with contextlib.suppress(OSError):  # a full disk: readers manage without the table
            self._writer.close()
        if self.recorded is not None:
            with contextlib.suppress(OSError):
                self.recorded.size = self.recorded.path.stat().st_size
        self._writer = None


class LabelLog:
    """What was recognised while something was recorded, as spans: `recording,start_us,end_us,label,confidence`.

    A label holds from the label before it to its own time. A row is written when the label changes, or after a second;
    `close` joins rows of one label. Labels of which the recogniser is not sure leave no row. A full disk ends it, which
    `failure` tells. Raises RecordingError where there is such a file, or it cannot be written.
    """

    def __init__(self, recording: Path, *, replace: bool = False) -> None:
        self.path = labels_of(recording)
        self.failure = ""
        self._name = recording.name
        check_free(self.path, replace)
        try:
            self._file: TextIO = open(self.path, "w", newline="", encoding="utf-8")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be written ({error.strerror}); choose another place") from None
        self._rows: list[tuple[int, int, str, float]] = []
        self._open: list[tuple[int, int, str, float]] = []  # of one label, not on disk yet
        self._reached: int | None = None
        self._put(HEADINGS)

    def add(self, prediction: Any) -> None:
        """Take a prediction; they come in order of time."""
        end, before = prediction.t_end_us, self._reached
        self._reached = end
        if before is None or not 0 < end - before <= _SPAN_US or prediction.unsure:
            self._flush()
            return
        if self._open and (self._open[0][2] != prediction.label or end - self._open[0][0] > _SPAN_US):
            self._flush()
        self._open.append((before, end, prediction.label, prediction.confidence))

    def close(self) -> None:
        """Write what is left, and join what belongs together. Closing twice does nothing."""
        if self._file.closed:
            return
        self._flush()
        with contextlib.suppress(OSError):
            self._file.close()
        if self.failure:
            return
        rows = [HEADINGS, *map(self._row, _joined(self._rows))]
        with (
            contextlib.suppress(OSError),  # a full disk: the rows are there already, if not joined
            replaced_when_whole(self.path) as part,
            open(part, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows(rows)

    def _flush(self) -> None:
        spans, self._open = self._open, []
        if spans and not self.failure:
            confidence = sum(row[3] for row in spans) / len(spans)
            self._rows.append((spans[0][0], spans[-1][1], spans[0][2], confidence))
            self._put(self._row(self._rows[-1]))

    def _put(self, row: Sequence[object]) -> None:
        try:
            csv.writer(self._file).writerow(row)
            self._file.flush()
        except OSError as error:
            self.failure = f"{self.path} ends early, since it cannot be written on ({error.strerror})"

    def _row(self, row: tuple[int, int, str, float]) -> tuple[str, int, int, str, str]:
        return label_row(self._name, *row)


def label_row(
    recording: str, start_us: int, end_us: int, label: str, confidence: float | None
) -> tuple[str, int, int, str, str]:
    """A row below HEADINGS; names and labels that a spreadsheet would run are made safe. None: a person said so."""
    return safe(recording), start_us, end_us, safe(label), "" if confidence is None else f"{confidence:.4f}"


def check_free(path: Path, replace: bool) -> None:
    """Raise RecordingError where there is such a file that is not to be replaced."""
    if path.exists() and not replace:
        raise RecordingError(f"{path} is there already: choose another name, or allow it to be replaced")


def labels_of(recording: Path) -> Path:
    """Where the labels of a recording are."""
    stem = recording.name.removesuffix(".aedat4")
    return recording.with_name(f"{stem}.labels.csv")


def _joined(rows: list[tuple[int, int, str, float]]) -> list[tuple[int, int, str, float]]:
    """Rows of one label that follow on one another, as one; confidences weighted with their time."""
    joined: list[tuple[int, int, str, float]] = []
    for start, end, label, confidence in rows:
        if joined and joined[-1][1] == start and joined[-1][2] == label:
            first, _, _, mean = joined.pop()
            confidence = (mean * (start - first) + confidence * (end - start)) / (end - first)
            start = first
        joined.append((start, end, label, confidence))
    return joined
