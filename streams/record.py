"""Recording a feed while it flows: all that a source yields goes to an AEDAT 4 file, whatever becomes of it later.

    with open_source("tcp://127.0.0.1:7777") as source:
        tee = Tee(source)
        tee.start(Path("out.aedat4"))
        run(Live(tee), recognizer, sinks=[...], policy=LATEST)
        tee.stop()

Every packet is written at once and whole, so that a kill loses at most what the disk has not taken yet; `LabelLog`
keeps what was recognised meanwhile, in the label format, a second at a time. Both write in threads of their own: a disk
that is slow holds up no live feed. What comes while too much waits for it is left out, counted and told.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.aedat4_writer import Aedat4Writer, write_aedat4
from streams.cells import safe
from streams.errors import RecordingError
from streams.files import FULL, append_whole, reason, replaced_when_whole
from streams.items import EventImage, EventPacket, Gap, Item, RgbFrame
from streams.source import Source, Through
from streams.text import plain_name, storable
from streams.write_behind import WriteBehind

_SPAN_US = 1_000_000  # of labels that are not on disk yet
_HOLD_US = 2_000_000  # a label, until the next one
_LATE_S = 1.0  # of a disk: beyond, it is told
_LOOK_S = 1.0  # between two looks whether the file is still there
_ROW_BYTES = 1_000
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
    left_out: int = 0  # packets and frames, since the disk was too slow

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def __str__(self) -> str:
        told = f"{self.path}: {self.events:,} events, {self.frames:,} frames, {self.size / 1e6:.1f} MB"
        slow = f"{self.left_out:,} packets and frames are missing, since the disk was too slow" if self.left_out else ""
        return "; ".join(filter(None, (told, slow, self.failure)))


class _Recording:
    """A file that items are written to behind the back of who brings them."""

    def __init__(self, path: Path, writer: Aedat4Writer) -> None:
        self.told = Recorded(path, time.monotonic())
        self._writer, self._made, self._looked_at = writer, path.stat(), time.monotonic()
        self._behind = WriteBehind(path.name, self._write, self._finish)

    @property
    def trouble(self) -> str:
        """What is wrong with it now, for people."""
        if self.told.failure:
            return f"the recording {self.told.path.name}: {self.told.failure}"
        late_s = self._behind.late_s
        return f"the recording is {late_s:.0f} s behind, since the disk is slow" if late_s > _LATE_S else ""

    def put(self, item: EventPacket | RgbFrame, *, wait: bool) -> None:
        """Let it be written, or leave it out where too much waits."""
        nbytes = item.events.nbytes if isinstance(item, EventPacket) else item.image.nbytes
        if not self._behind.put(item, nbytes, wait=wait) and not self._behind.over:
            self.told.left_out += 1

    def close(self) -> None:
        """Finish the file, also while others do."""
        if not self._behind.close() and not self.told.failure:
            self.told.failure = "its end is missing, since the disk takes too long to write it"

    def _write(self, item: EventPacket | RgbFrame) -> None:
        try:
            self._writer.write(item)
            if time.monotonic() - self._looked_at > _LOOK_S:
                self._look()
        except OSError as error:  # a full disk: what is there stays readable, the feed goes on
            self.told.failure = f"it ends here, since it cannot be written on ({reason(error)})"
            raise
        self.told.size = self._writer.size
        self.told.events += len(item.events) if isinstance(item, EventPacket) else 0
        self.told.frames += isinstance(item, RgbFrame)

    def _finish(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: readers manage without the table
            self._writer.close()
        try:
            self.told.size = self._look()
        except OSError as error:
            self.told.failure = self.told.failure or reason(error)

    def _look(self) -> int:
        """Its size. Raises OSError where nobody would find what is written."""
        self._looked_at = time.monotonic()
        try:
            state = self.told.path.stat()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile") from None
        if not os.path.samestat(state, self._made):
            raise OSError(errno.ENOENT, "it was replaced meanwhile")
        return state.st_size


class Tee(Through):
    """A source whose items are recorded on their way; recording starts and stops from any thread."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._switch = threading.Lock()  # held by who starts or stops; the feed does not wait for it
        self._recording: _Recording | None = None
        self.recorded: Recorded | None = None  # the recording that goes on, or the last one

    @property
    def recording(self) -> bool:
        """Whether a recording was started and not stopped, also where it has failed since."""
        return self._recording is not None

    @property
    def warning(self) -> str:
        """Of the feed, or of the recording."""
        recording = self._recording
        return super().warning or (recording.trouble if recording is not None else "")

    def start(self, path: Path, *, replace: bool = False) -> None:
        """Write what comes from now on. Raises RecordingError where there is such a file, or it cannot be written."""
        with self._switch:
            check_free(path, replace)
            if path.exists() and self.path is not None and path.samefile(self.path):
                raise RecordingError(f"{path} is what is to be recorded: choose another name")
            self._stop()
            try:
                writer = write_aedat4(path, self.event_size, self.frame_size, camera=plain_name(self.name))
            except OSError as error:
                raise _unwritable(path, error) from None
            self._recording = _Recording(path, writer)
            self.recorded = self._recording.told

    def stop(self) -> Recorded | None:
        """Finish the file. Does nothing where nothing is recorded."""
        with self._switch:
            self._stop()
            return self.recorded

    def close(self) -> None:
        self.stop()
        super().close()

    def _stop(self) -> None:
        if self._recording is not None:
            self._recording.close()
            self._recording = None

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            self._put(item)
            yield item

    def _put(self, item: Item) -> None:
        recording = self._recording
        if recording is None or isinstance(item, Gap):
            return
        if isinstance(item, EventImage):
            self.counts["images of events, which a recording cannot hold"] += 1
        else:
            recording.put(item, wait=not self.live)


class LabelLog:
    """What was recognised while something was recorded, as spans: `recording,start_us,end_us,label,confidence`.

    A label holds from the label before it to its own time, or from the beginning of its window where that one is more
    than two seconds ago. A row is written when the label changes, or after a second;
    `close` joins rows of one label. Labels of which the recogniser is not sure leave no row. A full disk ends it, and
    one that takes too long, which `failure` tells. Raises RecordingError where there is such a file, or it cannot be
    written.
    """

    def __init__(self, recording: Path, *, replace: bool = False) -> None:
        self.path = labels_of(recording)
        self._name = recording.name
        check_free(self.path, replace)
        try:
            self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115 (closed by `_finish`)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self._rows: list[tuple[int, int, str, float]] = []
        self._open: list[tuple[int, int, str, float]] = []  # of one label, not on disk yet
        self._reached: int | None = None
        self._closed = self._given_up = False
        self._behind = WriteBehind(self.path.name, self._write, self._finish)
        self._put(HEADINGS)

    def add(self, prediction: Any) -> None:
        """Take a prediction; they come in order of time."""
        end, before = prediction.t_end_us, self._reached
        self._reached = end
        if before is None or end <= before or prediction.unsure:
            self._flush()
            return
        start = before if end - before <= _HOLD_US else max(before, prediction.t_start_us)
        follows = self._open and self._open[-1][1] == start and self._open[-1][2] == prediction.label
        if not follows or end - self._open[0][0] > _SPAN_US:
            self._flush()
        self._open.append((start, end, prediction.label, prediction.confidence))

    @property
    def failure(self) -> str:
        """Why it ends early; empty where it does not."""
        error = self._behind.failure
        if error is not None:
            return f"{self.path} ends early, since it cannot be written on ({reason(error)})"
        return f"{self.path} ends early, since the disk takes too long to write it" if self._given_up else ""

    def close(self) -> None:
        """Write what is left, and join what belongs together. Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._flush()
            self._given_up = not self._behind.close()

    def _flush(self) -> None:
        spans, self._open = self._open, []
        if spans:
            confidence = sum(row[3] for row in spans) / len(spans)
            self._rows.append((spans[0][0], spans[-1][1], spans[0][2], confidence))
            self._put(self._row(self._rows[-1]))

    def _put(self, row: Sequence[object]) -> None:
        self._behind.put(row, _ROW_BYTES)

    def _write(self, row: Sequence[object]) -> None:
        append_whole(self._file, _csv([row]))

    def _finish(self) -> None:
        """Write it anew with joined rows."""
        self._file.close()
        if not self.path.stat().st_size:
            self.path.unlink(missing_ok=True)  # not even its headings
        elif not self.failure:
            try:
                with replaced_when_whole(self.path) as part:
                    part.write_bytes(_csv([HEADINGS, *map(self._row, _joined(self._rows))]))
            except OSError as error:
                if error.errno not in FULL:  # else the rows are there already, if not joined
                    raise

    def _row(self, row: tuple[int, int, str, float]) -> tuple[str, int, int, str, str]:
        return label_row(self._name, *row)


def label_row(
    recording: str, start_us: int, end_us: int, label: str, confidence: float | None
) -> tuple[str, int, int, str, str]:
    """A row below HEADINGS; names and labels that a spreadsheet would run are made safe. None: a person said so."""
    recording = storable(recording)
    return safe(recording), start_us, end_us, safe(label), "" if confidence is None else f"{confidence:.4f}"


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _unwritable(path: Path, error: OSError) -> RecordingError:
    return RecordingError(f"{path} cannot be written ({reason(error)})")


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
