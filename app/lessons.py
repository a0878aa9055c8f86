"""The clips that a person collects for new labels: a folder that `velora train --data` takes as it stands.

    lessons = Lessons(user_data_folder() / "lessons")
    lessons.add(lambda: open_source("long.aedat4"), 12_000_000, 14_000_000, "wave")
    lessons.counts()                                        {"wave": 1}

    train/wave-0001.aedat4    train/wave-0001.labels.csv    val/wave-0002.aedat4    …    .frames/ (a cache)

About a quarter of each label's clips are for validation, at least one where there are two.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.label_file import LabelRow, check_span, read_label_rows, write_label_rows
from streams import Source, open_source
from streams.cut import write_cut
from streams.record import labels_of
from velora.config import check_label

CACHE = ".frames"
TRAIN, VAL = "train", "val"
LONGEST_S = 60
_LEAD_US = 1_200_000  # seven steps of a window, however a source's frames fall
_ALL = (-(1 << 60), 1 << 60)


class Lessons:
    """Clips by label, on disk; every call may come from any thread.

    Raise ValueError or StreamError, one line, for what is no label, no span, or cannot be read, and OSError from disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._in_use = 0
        self._coming: list[tuple[Path, str]] = []  # clips that are being written, and their labels

    @property
    def cache(self) -> Path:
        """Where the decoded frames of the clips are kept."""
        return self.folder / CACHE

    def add(self, opened: Callable[[], Source], start_us: int, end_us: int, label: str) -> Path:
        """Cut [start_us, end_us) out of a recording that `opened` opens, and what fills the first window; the clip."""
        _check((start_us, end_us))
        with opened() as source:
            return self._cut(source, (start_us, end_us), label)

    def take(self, path: Path, label: str) -> Path:
        """Take in a recording that shows a label throughout; it is copied. Returns the clip."""
        with open_source(path) as source:
            if source.span_us is not None:
                _check(source.span_us)
            return self._cut(source, None, label)

    def counts(self) -> dict[str, int]:
        """How many clips there are, by label."""
        with self._lock:
            return dict(sorted(Counter(label for _, label in self._clips()).items()))

    def remove(self, label: str) -> int:
        """Forget the clips of a label; how many there were. Raises ValueError while somebody trains on them."""
        with self._lock:
            self._check_free()
            gone = [path for path, own in self._clips() if own == label]
            for path in gone:
                labels_of(path).unlink(missing_ok=True)  # a clip without a label is none
                path.unlink(missing_ok=True)
            if gone:
                shutil.rmtree(self.cache, ignore_errors=True)  # it does not tell whose frames are whose
            return len(gone)

    def clear(self) -> None:
        """Forget all clips. Raises ValueError while somebody trains on them."""
        with self._lock:
            self._check_free()
            for name in (TRAIN, VAL, CACHE):
                if (self.folder / name).exists():
                    shutil.rmtree(self.folder / name)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, no clip goes; new ones may come."""
        with self._lock:
            self._in_use += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use -= 1

    def untaught(self) -> str:
        """Why a model cannot be taught yet, for people; empty where it can."""
        counts = self.counts()
        if len(counts) < 2:
            return "mark or record clips of two labels at least"
        few = [label for label, count in counts.items() if count < 2]
        return f"mark or record another clip of {few[0]}: each label needs two at least" if few else ""

    def _cut(self, source: Source, span: tuple[int, int] | None, label: str) -> Path:
        label = check_label(label.strip())
        with self._placed(label) as path:
            held = write_cut(path, source, *(span or _ALL), lead_us=_LEAD_US)
            if self._has(path, label):
                path.unlink()
                raise ValueError(f"this is a clip of {label} already: mark another one")
            write_label_rows(labels_of(path), [LabelRow(path.name, *(span or held), label)])
        return path

    def _has(self, new: Path, label: str) -> bool:
        """Whether a label has a clip of the same bytes: one would be learned, and the other held out."""
        with self._lock:
            clips = [path for path, own in self._clips() if own == label and path.exists()]
            return any(filecmp.cmp(new, path, shallow=False) for path in clips)

    @contextmanager
    def _placed(self, label: str) -> Iterator[Path]:
        """A place for one more clip, which nobody else gets meanwhile."""
        with self._lock:
            clips = set(self._clips()) | set(self._coming)  # one may be written, and not yet be off the list
            own = [path.parent.name for path, other in clips if other == label]
            folder = self.folder / (VAL if own.count(VAL) < _held_out(len(own) + 1) else TRAIN)
            folder.mkdir(parents=True, exist_ok=True)
            number = 1 + max((_number(path) for path, _ in clips), default=0)
            coming = folder / f"{_slug(label)}-{number:04d}.aedat4", label
            self._coming.append(coming)
        try:
            yield coming[0]
        finally:
            with self._lock:
                self._coming.remove(coming)

    def _clips(self) -> list[tuple[Path, str]]:
        files = [path for name in (TRAIN, VAL) for path in sorted((self.folder / name).glob("*.labels.csv"))]
        return [(path.parent / row.recording, row.label) for path in files for row in read_label_rows(path)]

    def _check_free(self) -> None:
        if self._in_use:
            raise ValueError("a model is learning from these clips: stop it, or wait until it is done")


def _check(span: tuple[int, int]) -> None:
    check_span(*span)
    seconds = (span[1] - span[0]) / 1e6
    if seconds > LONGEST_S:
        raise ValueError(f"a clip lasts {LONGEST_S} s at most, not {seconds:.0f}: choose a shorter span")


def _held_out(count: int) -> int:
    """How many of a label's clips are for validation."""
    return 0 if count < 2 else max(1, round(count / 4))


def _slug(label: str) -> str:
    """A label in a file's name."""
    return re.sub(r"\W+", "-", label).strip("-")[:40] or "clip"


def _number(path: Path) -> int:
    found = re.search(r"-([0-9]+)\.aedat4$", path.name)
    return int(found[1]) if found else 0
