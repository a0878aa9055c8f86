"""Folders that were labelled, as the page shows them: recordings with their spans, and what is least certain first.

folders = Folders()
folders.told(Path("recordings/velora-labels"), order="doubt", text="walk")
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from app.export.results import Labelled, Results, read_results
from app.label_file import LabelRow
from app.label_report.tracks import Track, amounts_of, doubts_of, tracks_of
from app.labelling.ledger import INDEX
from streams.text import storable

ORDERS = ("name", "doubt")
_ROWS, _MOST_SPANS, _DOUBTS, _FAILURES = 50, 500, 200, 50
_KEPT = 4  # folders
_CLOCK_NS = 2_000_000_000  # as coarse as the times of files may be


@dataclass(frozen=True)
class Folder:
    """What is in a folder, and the state of its files when that was read."""

    seen: tuple[object, ...]  # empty where they changed while it was read
    results: Results
    tracks: Sequence[Track]


class Folders:
    """Reads a folder again when it has changed; every call may come from any thread."""

    def __init__(self, within: Sequence[Path] = ()) -> None:
        """Links that lead out of all folders `within` are not followed, where there are any."""
        self._lock, self._within = threading.Lock(), within
        self._read: dict[Path, Folder] = {}

    def told(self, out: Path, *, order: str = "name", text: str = "", first: int = 0) -> dict[str, Any]:
        """Sums, doubtful spans, and fifty recordings from `first` on, of those whose name has `text` in it.

        Raises ValueError, one line, for a folder that `velora label` has not written.
        """
        folder = self._folder(out)
        rows = [_row(track) for track in folder.tracks if text.lower() in track.name.lower()]
        if order == "doubt":
            rows.sort(key=lambda row: 2.0 if row["least"] is None else row["least"])
        return {
            "out": str(out),
            **_sums(folder),
            "doubts": [
                (d.track.name, d.row.start_us, d.row.end_us, d.row.label, d.row.confidence, d.track.start_us)
                for d in doubts_of(folder.tracks, _DOUBTS)
            ],
            "matching": len(rows),
            "first": first,
            "rows": rows[first : first + _ROWS],
        }

    def find(self, out: Path, name: str) -> Labelled:
        """A recording of the folder. Raises ValueError where there is none of that name."""
        own = next((own for own in self._folder(out).results.labelled if own.name == name), None)
        if own is None:
            raise ValueError(f"{out} has no labels of {name[:80]!r} (any more)")
        return own

    def _folder(self, out: Path) -> Folder:
        with self._lock:
            known = self._read.pop(out, None)
            if known is None or known.seen != _state(out, known.results.labelled):
                since_ns = time.time_ns() - _CLOCK_NS
                results = read_results(out, strict=False, within=self._within)
                state = _state(out, results.labelled)
                changing = any(changed is not None and changed[0] > since_ns for changed in state)
                known = Folder(() if changing else state, results, tracks_of(results))
            self._read[out] = known
            while len(self._read) > _KEPT:
                del self._read[next(iter(self._read))]
            return known


def _state(out: Path, labelled: Iterable[Labelled]) -> tuple[tuple[int, int] | None, ...]:
    """What changes when the folder, or a label file in it, does."""
    return tuple(_changed(path) for path in (out / INDEX, *(out / own.note.labels_file for own in labelled)))


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _sums(folder: Folder) -> dict[str, Any]:
    failed = [(storable(n.recording), n.reason.removeprefix(f"{n.source}: ")) for n in folder.results.failed]
    failed += [(own.name, own.trouble) for own in folder.results.labelled if own.trouble]
    return {
        "recordings": len(folder.tracks),
        "seconds": sum(track.seconds for track in folder.tracks),
        "labels": [(a.label, a.seconds, a.spans, a.confidence) for a in amounts_of(folder.tracks)],
        "failed": len(failed),
        "failures": failed[:_FAILURES],
    }


def _drawn(track: Track) -> list[tuple[int, int, str, float | None]]:
    """Its spans in order of time; of more than can be told apart there, those that begin at one place are one."""
    rows, length_us = sorted(track.rows, key=lambda row: row.start_us), track.end_us - track.start_us
    if len(rows) <= _MOST_SPANS:
        return [(row.start_us, row.end_us, row.label, row.confidence) for row in rows]
    places = groupby(rows, lambda row: (row.start_us - track.start_us) * _MOST_SPANS // length_us)
    return [_joined(list(own)) for _, own in places]


def _joined(rows: Sequence[LabelRow]) -> tuple[int, int, str, float | None]:
    """One span for all, under the label that takes most of their time, as sure as the least sure."""
    lasted: Counter[str] = Counter()
    for row in rows:
        lasted[row.label] += row.end_us - row.start_us
    said = (row.confidence for row in rows if row.confidence is not None)
    return rows[0].start_us, max(row.end_us for row in rows), lasted.most_common(1)[0][0], min(said, default=None)


def _row(track: Track) -> dict[str, Any]:
    said = [row.confidence for row in track.rows if row.confidence is not None]
    return {
        "name": track.name,
        "start_us": track.start_us,
        "end_us": track.end_us,
        "spans": _drawn(track),
        "count": len(track.rows),
        "least": min(said, default=None),
        "corrected": track.labelled.corrected,
        "remarks": "; ".join(track.labelled.note.remarks),
    }
