"""How a run goes: a bar on stderr for people, nothing in a pipe, or JSON objects on stdout for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.labelling.inputs import Recording
from app.labelling.ledger import Ledger
from app.labelling.notes import Note
from app.labelling.storage import is_far
from streams.text import storable

_EVERY_S = 1.0


class Display(AbstractContextManager["Display"]):
    """Shows nothing. Derive and override; all is called from one thread."""

    def begin(self, total: int, skipped: int) -> None:
        """So many recordings are to be labelled, so many have been."""

    def moved(self, done: float) -> None:
        """So much of all is done, 0 to 1."""

    def finished(self, note: Note) -> None:
        """A recording is finished."""

    def end(self, state: str) -> None:
        """The run has ended."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""


class Bar(Display):
    """A progress bar."""

    def __init__(self, ledger: Ledger, console: Console) -> None:
        self._ledger, self._total = ledger, 0
        columns = (
            TextColumn("labelling"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("", total=1.0, told="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, total: int, skipped: int) -> None:
        self._total = total
        self.moved(0.0)

    def moved(self, done: float) -> None:
        rates, ledger = self._ledger.throughput(), self._ledger
        failed = f", {ledger.failures} failed" if ledger.failures else ""
        told = (
            f"{len(ledger.done) + ledger.failures}/{self._total} recordings{failed} · "
            f"{rates['events_per_s'] / 1e6:.2f} M events/s · {rates['real_time_factor']:.1f} x real time"
        )
        self._progress.update(self._task, completed=done, told=told)


class JsonLines(Display):
    """A line for each recording, and one a second on how all of it goes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._due = ledger, 0.0
        self._total = self._skipped = 0

    def begin(self, total: int, skipped: int) -> None:
        self._total, self._skipped = total, skipped
        self._tell("begin", recordings=total, skipped=skipped)

    def moved(self, done: float) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_S
        seconds = self._ledger.seconds
        left_s = round(seconds / done - seconds, 1) if done > 0 else None
        self._tell("progress", **self._counts(), share=round(done, 4), left_s=left_s, **self._ledger.throughput())

    def finished(self, note: Note) -> None:
        names = ("status", "reason", "remarks", "windows", "spans", "seconds", "windows_file", "labels_file")
        told: dict[str, Any] = {name: getattr(note, name) for name in names}
        self._tell("recording", recording=storable(note.recording), **told)

    def end(self, state: str) -> None:
        self._tell("end", state=state, **self._counts(), **self._ledger.throughput())

    def _counts(self) -> dict[str, int]:
        done, failed = len(self._ledger.done), self._ledger.failures
        return {"recordings": self._total, "done": done, "failed": failed, "skipped": self._skipped}

    def _tell(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)


def display(as_json: bool, ledger: Ledger) -> Display:
    """What fits: JSON lines where they are asked for, a bar on a terminal, else nothing."""
    if as_json:
        return JsonLines(ledger)
    console = Console(stderr=True)
    return Bar(ledger, console) if console.is_terminal else Display()


class Weights:
    """How much of a set is done, by the bytes of its recordings."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._of = {recording.name: _size(recording) for recording in recordings}
        self._total = max(sum(self._of.values()), 1)
        self._done = 0

    def finish(self, name: str) -> None:
        """A recording is done."""
        self._done += self._of[name]

    def share(self, begun: dict[Recording, float]) -> float:
        """How much of all is done, with the shares of those that have begun; 0 to 1."""
        at_hand = sum(self._of[recording.name] * share for recording, share in begun.items())
        return min((self._done + at_hand) / self._total, 1.0)


def _size(recording: Recording) -> int:
    """Bytes; of a folder those of its pictures, 1 of what is not there, or far."""
    path = recording.path
    if is_far(path):
        return 1
    try:
        return sum(file.stat().st_size for file in path.rglob("*.*")) if path.is_dir() else path.stat().st_size
    except OSError:
        return 1
