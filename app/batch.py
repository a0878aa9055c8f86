"""Labelling a folder of recordings beside all else: `velora label` and `velora export` in a process of their own.

    batch = Batch()
    batch.label(Path("recordings"), Path("recordings/velora-labels"), "demo")
    batch.state()               how it goes; also from other threads
    batch.stop()                at any time: what is finished stays, and the same call goes on with the rest

One at a time for the program: it takes what processor time is left over.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.child import Child

_FAILURES = 50  # that are shown
_REMARK = 300  # characters


@dataclass(frozen=True, slots=True)
class BatchState:
    """How it goes."""

    phase: str = "starting"  # working; done, failed, stopped
    out: Path | None = None  # where the labels are
    recordings: int = 0  # that are to be labelled
    done: int = 0
    skipped: int = 0
    failures: tuple[tuple[str, str], ...] = ()  # recordings, and why; the first ones
    failed: int = 0
    share: float = 0.0  # of all the work, 0..1
    seconds_left: float | None = None
    events_per_s: float = 0.0
    real_time_factor: float = 0.0
    finished: bool = False  # as the command itself says: all that can be done is
    message: str = "Starting"  # one line, for people

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.phase in ("done", "failed", "stopped")


class Batch:
    """Runs one command at a time; every call may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: BatchState | None = None
        self._child: Child | None = None
        self._thread: threading.Thread | None = None
        self._asked_to_stop = False

    def label(self, folder: Path, out: Path, model: str, options: Sequence[str] = ()) -> None:
        """Begin to label the recordings of a folder. Raises ValueError while something goes on, and OSError."""
        line = ["label", "--json", "--out", str(out), "--model", model, *options, "--", str(folder)]
        self._begin(line, BatchState(out=out), f"The labels are in {out}")

    def export(self, out: Path, to: str, target: Path, options: Sequence[str]) -> None:
        """Begin to export the labels in `out` for a tool. Raises ValueError while something goes on, and OSError."""
        line = ["export", "--json", "--to", to, "--out", str(target), *options, "--", str(out)]
        self._begin(line, BatchState(out=out, message="Exporting"), f"The export is in {target}")

    def state(self) -> BatchState | None:
        """How it goes now, or how it ended; None where nothing was begun."""
        return self._state

    def stop(self) -> None:
        """Let it end soon, without waiting for it."""
        self._asked_to_stop = True
        if self._child is not None:
            self._child.stop()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over, at the latest after so long."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._state is None or self._state.over

    def _begin(self, line: Sequence[str], state: BatchState, praise: str) -> None:
        with self._lock:
            if self._state is not None and not self._state.over:
                raise ValueError("a folder is being labelled or exported already: wait for it, or stop it")
            self._asked_to_stop = False
            child = self._child = Child(line)
            self._state = state
            self._thread = threading.Thread(target=self._watch, args=[child, praise], name="batch", daemon=True)
            self._thread.start()

    def _watch(self, child: Child, praise: str) -> None:
        assert self._state is not None
        try:
            for said in child.said():
                self._state = _after(self._state, said)
            code, state = child.wait(), replace(self._state, seconds_left=None)
        except Exception as error:  # else it would seem to go on for ever
            child.stop()
            self._state = replace(self._state, phase="failed", message=f"it is not known how it went: {error}")
            return
        if self._asked_to_stop and code:
            self._state = replace(state, phase="stopped", message="Stopped: the same again goes on with the rest")
        elif state.finished:
            failed = f"; {state.failed:,} could not be read" if state.failed else ""
            self._state = replace(state, phase="done", share=1.0, message=f"{praise}{failed}")
        else:
            self._state = replace(state, phase="failed", message=child.reason())


def _after(state: BatchState, said: Mapping[str, Any]) -> BatchState:
    """The state after a line of `velora label --json` or `velora export --json`; what is not understood is let be."""
    try:
        match said["event"]:
            case "begin":
                skipped = said.get("skipped", 0)
                return replace(state, phase="working", recordings=said["recordings"], skipped=skipped)
            case "progress":
                return _progress(state, said)
            case "recording" if said["status"] == "failed":
                failure = str(said["recording"])[:_REMARK], str(said["reason"])[:_REMARK]
                return replace(state, failed=state.failed + 1, failures=(*state.failures, failure)[:_FAILURES])
            case "recording":
                return replace(state, done=state.done + 1)
            case "end":
                return replace(state, finished=said["state"] == "finished", failed=said["failed"])
    except (KeyError, TypeError):
        pass
    return state


def _progress(state: BatchState, said: Mapping[str, Any]) -> BatchState:
    done = state.done + state.failed
    message = f"{done:,} of {state.recordings:,} recordings"
    if state.skipped:
        message += f", {state.skipped:,} were finished before"
    return replace(
        state,
        share=said["share"],
        seconds_left=said["left_s"],
        events_per_s=said.get("events_per_s", 0.0),
        real_time_factor=said.get("real_time_factor", 0.0),
        message=message,
    )
