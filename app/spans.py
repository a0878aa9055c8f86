"""The labels that a person gives to a recording by hand, on disk with each change.

    books = SpanBooks(user_data_folder())       one for the program
    book = books.of(recording)                  one a recording, shared by all who edit it
    book.mark(1_000_000, 2_500_000, "wave")     what it overlaps is cut

They are in NAME.labels.csv beside the recording. Where its folder cannot be written, and for the recordings that ship
with the program, they are in `labels/` of the user's data folder, beside a link to the recording, so that the folder is
one to train on. What `velora label` has written elsewhere is corrected there: `books.of(recording, labels)`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import recordings
from app.label_file import LabelRow, check_span, read_label_rows, write_label_rows
from streams import RecordingError
from streams.files import reason
from streams.record import labels_of
from velora.config import check_label

LABELS = "labels"  # the folder in the user's data folder
_MOST_UNDONE = 200
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
_BUNDLED = Path(recordings.__file__).parent
_LONGEST_STEM = 40  # characters, of up to four bytes each


@dataclass(frozen=True, slots=True)
class LabelSpan:
    """What can be seen in [start_us, end_us)."""

    start_us: int
    end_us: int
    label: str
    confidence: float | None = None  # of the recogniser that said so; None: a person did


class SpanBook:
    """The labels of one recording; every call may come from any thread.

    All raise ValueError, one line that names file and line, for a label file that cannot be understood: it is left as
    it is. Changes raise RecordingError where the file can be written nowhere; then nothing has changed.
    """

    def __init__(self, recording: Path, fallback: Path, labels: Path | None = None) -> None:
        """`labels` is the file, where it is another one than that beside the recording."""
        self.recording, self._named = Path(os.path.abspath(recording)), labels
        digest = hashlib.sha256(os.fsencode(self.recording)).hexdigest()[:12]
        stem, suffix = self.recording.stem[:_LONGEST_STEM], self.recording.suffix
        self._link = fallback / LABELS / f"{stem}-{digest}{suffix}"
        self._lock = threading.RLock()
        self._seen: tuple[Path, tuple[int, ...] | None] | None = None  # the file that was read, and its state
        self._spans: tuple[LabelSpan, ...] = ()
        self._before: deque[tuple[LabelSpan, ...]] = deque(maxlen=_MOST_UNDONE)

    @property
    def path(self) -> Path:
        """The file in use, which may not be there yet."""
        if self._named is not None:
            return self._named
        kept = labels_of(self._link)
        return kept if kept.exists() else labels_of(self.recording)

    @property
    def spans(self) -> tuple[LabelSpan, ...]:
        """In order of time, none overlapping another."""
        with self._lock:
            self._look()
            return self._spans

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        with self._lock:
            self._look()
            return bool(self._before)

    def mark(self, start_us: int, end_us: int, label: str) -> None:
        """Say what a span shows. Raises ValueError for a span or a label that is none."""
        check_span(start_us, end_us)
        label = check_label(label.strip())
        with self._lock:
            self._look()
            self._change([*without(self._spans, start_us, end_us), LabelSpan(start_us, end_us, label)])

    def erase(self, start_us: int, end_us: int) -> None:
        """Say nothing of a span any more."""
        check_span(start_us, end_us)
        with self._lock:
            self._look()
            self._change(without(self._spans, start_us, end_us))

    def undo(self) -> bool:
        """Take back the last change; whether there was one, since somebody else last wrote the file."""
        with self._lock:
            self._look()
            if not self._before:
                return False
            self._write(self._before[-1])
            self._before.pop()
            return True

    def _change(self, spans: Iterable[LabelSpan]) -> None:
        after, before = tuple(sorted(spans, key=lambda span: span.start_us)), self._spans
        if after != before:
            self._write(after)
            self._before.append(before)

    def _look(self) -> None:
        """Read the file if it is not what it was."""
        path = self.path
        state = _state(path)
        if self._seen == (path, state):
            return
        self._spans = () if state is None else _read(path, self._name_in(path))
        self._before.clear()
        self._seen = (path, state)

    def _write(self, spans: tuple[LabelSpan, ...]) -> None:
        path = self.path
        try:
            if self.recording.parent == _BUNDLED and path == labels_of(self.recording):
                raise PermissionError(errno.EACCES, "it ships with the program")
            self._put(path, spans)
        except OSError as error:
            if error.errno not in _NOT_OURS or path in (labels_of(self._link), self._named):
                raise RecordingError(f"{path} cannot be written: {reason(error)}") from None
            path = self._elsewhere(spans)
        self._spans, self._seen = spans, (path, _state(path))

    def _elsewhere(self, spans: tuple[LabelSpan, ...]) -> Path:
        """Write to the user's data folder."""
        path = labels_of(self._link)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # there already, or a system without links: labels need none
                self._link.symlink_to(self.recording)
            self._put(path, spans)
        except OSError as error:
            raise RecordingError(f"{path} cannot be written ({error.strerror}); set VELORA_DATA to a folder") from None
        return path

    def _put(self, path: Path, spans: Sequence[LabelSpan]) -> None:
        name = self._name_in(path)
        write_label_rows(path, (LabelRow(name, s.start_us, s.end_us, s.label, s.confidence) for s in spans))

    def _name_in(self, path: Path) -> str:
        """What the recording is called in a file."""
        return self._link.name if path == labels_of(self._link) else self.recording.name


class SpanBooks:
    """The books of all recordings that somebody edits; every call may come from any thread."""

    def __init__(self, fallback: Path) -> None:
        self._fallback = fallback
        self._lock = threading.Lock()
        self._books: weakref.WeakValueDictionary[str, SpanBook] = weakref.WeakValueDictionary()

    def of(self, recording: Path, labels: Path | None = None) -> SpanBook:
        """The book of a recording, the same for all who hold it at the same time; of this file, if one is named."""
        with self._lock:
            place = os.path.abspath(labels or recording)
            book = self._books.get(place)
            if book is None:
                book = self._books[place] = SpanBook(recording, self._fallback, labels)
            return book


def without(spans: Iterable[LabelSpan], start_us: int, end_us: int) -> list[LabelSpan]:
    """What is left of spans outside [start_us, end_us)."""
    left: list[LabelSpan] = []
    for span in spans:
        if span.start_us < start_us:
            left.append(replace(span, end_us=min(span.end_us, start_us)))
        if span.end_us > end_us:
            left.append(replace(span, start_us=max(span.start_us, end_us)))
    return left


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None where there is none."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _read(path: Path, name: str) -> tuple[LabelSpan, ...]:
    """The spans in a file, all of the recording of this name."""
    try:
        rows = sorted(read_label_rows(path), key=lambda row: row.start_us)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    last: LabelRow | None = None
    for row in rows:
        try:
            _check(row, last, name)
        except ValueError as error:
            raise ValueError(f"{path}, line {row.line}: {error}") from None
        last = row
    return tuple(LabelSpan(row.start_us, row.end_us, row.label, row.confidence) for row in rows)


def _check(row: LabelRow, before: LabelRow | None, name: str) -> None:
    check_label(row.label)
    if row.recording != name:
        raise ValueError(f"it is of {row.recording!r}, not of {name}")
    if before is not None and row.start_us < before.end_us:
        raise ValueError(f"it overlaps line {before.line}: a moment has one label")
