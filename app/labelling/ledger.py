"""index.csv and run.json: what is in an output folder, and how the last run went. One process writes them.

Both are made of the notes of all recordings, and written whole, so that they can be read while a run goes on.
"""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.labelling.engine import Engine
from app.labelling.notes import BOOKS, Note, read_notes
from app.labelling.storage import is_far, replaced_when_whole
from streams.cells import safe
from streams.text import storable

INDEX, RUN = "index.csv", "run.json"
LOCK = f"{BOOKS}/lock"  # held during a run
COLUMNS = (
    *("recording", "status", "windows", "spans", "samples", "events", "seconds", "remarks", "reason"),
    *("windows_file", "labels_file", "source", "stride", "model", "settings", "finished"),
)
_LIBRARIES = ("velora-rgbe", "torch", "numpy", "opencv-python")
_EVERY_S = 5.0
_SHARE = 0.02  # of the time may go into writing, however many recordings there are


class Ledger:
    """The books of one output folder."""

    def __init__(self, out: Path, engine: Engine, *, total: int, skipped: int) -> None:
        self._out, self._engine = out, engine
        self._notes = {note.recording: note for note in read_notes(out)}
        self._total, self._skipped = total, skipped
        self._began, self._started = time.monotonic(), _now()
        self._due = self._read_s = 0.0
        self.done: list[Note] = []  # in this run
        self._failed: list[Note] = []

    @property
    def failed(self) -> list[Note]:
        """In this run, in order of their names: which one ends first is chance."""
        return sorted(self._failed, key=lambda note: note.recording)

    @property
    def failures(self) -> int:
        """How many."""
        return len(self._failed)

    def add(self, note: Note) -> None:
        """Enter how a recording went, and write the books where that was long ago.

        Where a storage does not take them now, perhaps it does the next time.
        """
        (self._failed if note.failed else self.done).append(note)
        self._notes[note.recording] = note
        self._read_s += note.read_s
        if time.monotonic() >= self._due:
            try:
                self.write("running")
            except Exception:
                if not is_far(self._out):
                    raise
                self._due = time.monotonic() + _EVERY_S

    def write(self, state: str) -> None:
        """Write the books. `state` is running, finished, stopped or interrupted.

        Raises ValueError where somebody has removed the folder since the run began, and with it what was labelled.
        """
        if not is_far(self._out) and not (self._out / LOCK).exists():
            raise ValueError(f"{self._out} was removed meanwhile, with the labels in it: run the same command again")
        began = time.monotonic()
        with replaced_when_whole(self._out / INDEX) as part, part.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            rows.writerows(_row(self._notes[name]) for name in sorted(self._notes))
        with replaced_when_whole(self._out / RUN) as part:
            part.write_text(json.dumps(self._run(state), indent=2) + "\n", encoding="utf-8")
        took = time.monotonic() - began
        self._due = time.monotonic() + max(_EVERY_S, took / _SHARE)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def throughput(self) -> dict[str, float]:
        """How fast this run was, or is."""
        headway, seconds = self._engine.headway, max(self.seconds, 1e-9)
        return {
            "seconds": round(self.seconds, 3),
            "recorded_seconds": round(headway.recorded_us / 1e6, 3),
            "real_time_factor": round(headway.recorded_us / 1e6 / seconds, 3),
            "events": headway.events,
            "events_per_s": round(headway.events / seconds, 1),
            "model_seconds": round(self._engine.model_s, 3),
            "reader_seconds": round(self._read_s, 3),
        }

    def _run(self, state: str) -> dict[str, Any]:
        facts, settings = self._engine.facts, self._engine.settings
        return {
            "state": state,
            "started": self._started,
            "written": _now(),
            "command": ["velora", *sys.argv[1:]],
            "versions": _versions(),
            "engine": dict(facts.engine),
            "model": dict(facts.model),
            "settings": {
                "digest": facts.digests.settings,
                "feed": dict(settings.feed),
                "stride": settings.stride,
                "hop": settings.hop,
                "topk": settings.topk,
                "min_confidence": settings.min_confidence,
                "steady": settings.rules.after,
                "min_span_ms": settings.rules.min_us / 1e3,
                "format": settings.format,
                "batch": facts.batch,
            },
            "counts": {
                "recordings": self._total,
                "skipped": self._skipped,
                "done": len(self.done),
                "failed": len(self.failed),
                "windows": sum(note.windows for note in self.done),
                "spans": sum(note.spans for note in self.done),
                "with_remarks": sum(bool(note.remarks) for note in self.done),
            },
            "failures": [{"recording": storable(note.recording), "reason": note.reason} for note in self.failed],
            "throughput": self.throughput(),
        }


def _row(note: Note) -> Sequence[str | int | float]:
    told = {name: getattr(note, name) for name in COLUMNS} | {"remarks": "; ".join(note.remarks)}
    return [safe(storable(told[name])) if isinstance(told[name], str) else told[name] for name in COLUMNS]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
