"""A cluster of labellers, by Ray: the `Engine` of `velora label --engine ray`.

    ray start --head                                    # on one machine, and on the others: ray start --address …
    velora label s3://bucket/in --out s3://bucket/labels --engine ray --address auto

Labellers are those of one machine (`app.labelling.labeller`), read and write as these do, and hand their notes to this
process, which alone keeps the books. What speaks with Ray is a process of its own: see `ray_driver`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from app.labelling.engine import Facts, Headway
from app.labelling.inputs import Recording
from app.labelling.ledger import LOCK
from app.labelling.lock import seal_of
from app.labelling.notes import Note
from app.labelling.ray_driver import Failed, Going, Message, Ready, Wanted, drive
from app.labelling.settings import FILES, Settings
from app.labelling.storage import is_far
from app.scratch import own_scratch
from streams.endings import FROM_TERMINALS, deaf_to

_LISTEN_S = 0.2
_SLOW_S, _END_S = 30.0, 15.0


class Cluster:
    """See `Engine`. Entering it starts Ray, or connects to a cluster; leaving it ends what was started."""

    def __init__(self, settings: Settings, wanted: Wanted) -> None:
        """Raises ValueError where Ray is not installed."""
        if any(importlib.util.find_spec(name) is None for name in ("ray", "pyarrow", "pandas")):
            raise ValueError("--engine ray needs Ray: pip install 'velora-rgbe[ray]'")
        self.settings, self.headway, self.model_s = settings, Headway(), 0.0
        self._wanted = wanted
        self._facts: Facts | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> Cluster:
        self._log = own_scratch().new_folder() / "ray.log"
        context = multiprocessing.get_context("spawn")
        self._link, theirs = context.Pipe()
        arguments = (theirs, _anywhere(self.settings), self._wanted, self._log)
        self._process = context.Process(target=drive, args=arguments, name="ray", daemon=True)
        with deaf_to(FROM_TERMINALS):
            self._process.start()
        theirs.close()
        try:
            self._facts = self._ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def facts(self) -> Facts:
        """What the books say of it. It must have been entered."""
        assert self._facts is not None
        return self._facts

    def stop(self) -> None:
        """See `Engine`."""
        self._stopped.set()

    def label_all(self, recordings: Sequence[Recording], told: Callable[[], object] = lambda: None) -> Iterator[Note]:
        """See `Engine`. Raises ValueError for what concerns all recordings."""
        if not recordings or self._stopped.is_set():
            return
        try:
            self._link.send(list(recordings))
        except OSError:
            raise self._has_ended() from None
        while not self._stopped.is_set():
            if self._link.poll(_LISTEN_S):
                message = self._next()
                if message is None:
                    return
                if isinstance(message, Going):
                    self._go(message, recordings)
                elif isinstance(message, Note):
                    self._count(message)
                    yield message
            told()

    def _go(self, going: Going, recordings: Sequence[Recording]) -> None:
        self.model_s = going.model_s
        self.headway.shares = {recordings[number]: share for number, share in going.shares.items()}

    def _count(self, note: Note) -> None:
        self.headway.events += note.events
        self.headway.recorded_us += round(note.seconds * 1e6)
        self.headway.shares = {r: share for r, share in self.headway.shares.items() if r.name != note.recording}

    def _ready(self) -> Facts:
        slow = time.monotonic() + _SLOW_S
        while True:
            if self._link.poll(_LISTEN_S):
                message = self._next()
                assert isinstance(message, Ready)
                return message.facts
            if time.monotonic() > slow:
                slow = float("inf")
                print("velora: waiting for the cluster: it has no room yet, or loads the model", file=sys.stderr)

    def _next(self) -> Message:
        try:
            message: Message = self._link.recv()
        except (EOFError, OSError):
            raise self._has_ended() from None
        if isinstance(message, Failed):
            raise ValueError(message.reason)
        return message

    def _has_ended(self) -> ValueError:
        return ValueError(f"Ray has ended unforeseen: {self._last_words()}")

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else f"exit code {self._process.exitcode}"

    def _end(self) -> None:
        """At once, whatever it is at; it is given the time to end what it has started."""
        self._process.terminate()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_S)
        self._link.close()


def _anywhere(settings: Settings) -> Settings:
    """The same settings for processes that have another current folder."""
    model = {name: _absolute(value) if name in FILES else value for name, value in settings.model.items()}
    out = settings.out if is_far(settings.out) else Path(os.path.abspath(settings.out))
    return dataclasses.replace(settings, out=out, model=model, seal=seal_of(out / LOCK))


def _absolute(value: Any) -> Any:
    """A path if it is one, else what it was: "demo" is the model of that name, also beside such a folder."""
    if isinstance(value, str | Path) and str(value) not in ("", "demo") and os.path.exists(value):
        return type(value)(os.path.abspath(value))
    return value
