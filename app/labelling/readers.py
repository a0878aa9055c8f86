"""The worker processes that read recordings ahead, as their owner sees them.

    with Readers(jobs=2, look=look) as readers:
        readers.give(recording)                       while readers.has_room(waiting)
        for recording, message in readers.messages(): Opened, Seen and Ended of each recording, in order
            readers.free(recording, slots)            when the images in them are not needed any more

A worker that crashes, or makes no headway, costs the recording that it was at: an Ended tells so, and another worker
takes its place. Pipes and memory belong to one worker alone, so that a killed one leaves no lock behind.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.labelling.inputs import Recording
from app.labelling.reader import Ended, Look, Message, Seen, Task, serve
from app.labelling.storage import is_far
from app.scratch import own_scratch
from streams.endings import FROM_TERMINALS, deaf_to

_AHEAD = 2  # recordings that a worker knows of: it goes on while its owner is busy
_START_S, _END_S = 60.0, 5.0
_LOST = (EOFError, OSError)  # of a pipe whose other end has gone


@dataclass(eq=False)
class _Reader:
    """One worker: its process, the pipe to it, and the memory that it fills."""

    process: SpawnProcess
    link: Connection
    images: NDArray[np.uint8]  # [slots, 2, 3, S, S]
    tasks: deque[Recording] = field(default_factory=deque)  # the first is what it reads now
    scratch: Path | None = None  # where it fetches what is far to
    held: int = 0  # slots that its owner has not freed
    ready: bool = False  # it has started
    heard: float = field(default_factory=time.monotonic)

    def is_stuck(self, timeout_s: float) -> bool:
        """Whether it should have told something, and has not for too long."""
        try:
            waits = not self.tasks or self.held == len(self.images) or self.link.poll()
        except OSError:  # it has ended, which is found when it is listened to
            return False
        return not waits and time.monotonic() - self.heard > max(timeout_s, 0 if self.ready else _START_S)

    def end(self) -> None:
        """At once: it writes nothing but its memory."""
        self.process.kill()
        self.process.join(_END_S)
        self.link.close()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def task(self, recording: Recording) -> Task:
        """What it is told of a recording."""
        if self.scratch is None and is_far(recording.path):
            self.scratch = own_scratch().new_folder()
        return Task(recording.path, self.scratch)


class Readers:
    """Up to `jobs` workers. A context manager; leaving it ends them."""

    def __init__(self, jobs: int, look: Look) -> None:
        self._jobs, self._look = jobs, look
        self._context = multiprocessing.get_context("spawn")
        self._readers: list[_Reader] = []
        self._listened = time.monotonic()
        self._reads: dict[Recording, _Reader] = {}  # who read what is not finished yet, also after its end

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, whatever they are at; new ones start where more is given."""
        for reader in self._readers:
            reader.end()
        self._readers.clear()
        self._reads.clear()

    @property
    def jobs(self) -> int:
        """How many workers there may be."""
        return self._jobs

    @property
    def reading(self) -> bool:
        """Whether anything that was given has not come to its end."""
        return any(reader.tasks for reader in self._readers)

    def has_room(self, waiting: int) -> bool:
        """Whether a worker should get one more recording, of `waiting` ones: the last few are shared out evenly."""
        if len(self._readers) < self._jobs:
            return True
        least = min(len(reader.tasks) for reader in self._readers)
        return least == 0 or (least < _AHEAD and waiting > self._jobs)

    def give(self, recording: Recording) -> None:
        """Let a worker read it."""
        idle = min(self._readers, key=lambda reader: len(reader.tasks), default=None)
        if idle is None or (idle.tasks and len(self._readers) < self._jobs):
            idle = self._start()
        self._give(recording, idle)

    def _give(self, recording: Recording, reader: _Reader) -> None:
        if not reader.tasks:
            reader.heard = time.monotonic()
        reader.tasks.append(recording)
        self._reads[recording] = reader
        with contextlib.suppress(*_LOST):  # that it has ended is found when it is listened to
            reader.link.send(reader.task(recording))

    def messages(self, timeout_s: float) -> Iterator[tuple[Recording, Message]]:
        """What the workers have told, after waiting for something for a while."""
        now = time.monotonic()
        if now - self._listened > self._look.timeout_s / 2:  # all of it was stopped for a while, as by Ctrl-Z
            for reader in self._readers:
                reader.heard = now
        self._listened = now
        links = {reader.link: reader for reader in self._readers}
        for link in connection.wait(list(links), timeout_s):
            assert isinstance(link, Connection)
            yield from self._heard(links[link])
        for reader in list(self._readers):
            if reader.is_stuck(self._look.timeout_s):
                yield from self._lost(reader, f"reading it made no headway for {self._look.timeout_s:g} s")

    def _heard(self, reader: _Reader) -> Iterator[tuple[Recording, Message]]:
        """What there is of one worker now; not more than fits its memory, so that others have their turn."""
        try:
            for _ in range(len(reader.images)):
                if reader not in self._readers or not reader.link.poll():
                    return
                message = reader.link.recv()
                reader.heard = time.monotonic()
                reader.ready = True
                if message is None:
                    continue
                recording = reader.tasks[0]
                if isinstance(message, Seen):
                    reader.held += 1
                if isinstance(message, Ended):
                    reader.tasks.popleft()
                yield recording, message
        except _LOST:
            yield from self._lost(reader, "")

    def _lost(self, reader: _Reader, why: str) -> Iterator[tuple[Recording, Message]]:
        """A worker is no more, or must not be: what it was at has failed, what it was yet to do gets another one."""
        reader.end()
        self._readers.remove(reader)
        tasks = list(reader.tasks)
        reader.tasks.clear()
        if tasks:
            yield tasks[0], Ended(Counter(), 0.0, why or _how_it_ended(reader.process.exitcode))
        if tasks[1:]:
            replacement = self._start()
            for recording in tasks[1:]:
                self._give(recording, replacement)

    def images(self, recording: Recording, slot: int) -> NDArray[np.uint8]:
        """RGB and event image in a slot, uint8 [2, 3, S, S]; a view."""
        images: NDArray[np.uint8] = self._reads[recording].images[slot]
        return images

    def free(self, recording: Recording, slots: Sequence[int]) -> None:
        """Let slots be filled anew."""
        reader = self._reads[recording]
        if reader not in self._readers:
            return
        if reader.held == len(reader.images):
            reader.heard = time.monotonic()  # it could not go on before
        reader.held -= len(slots)
        with contextlib.suppress(*_LOST):
            reader.link.send(list(slots))

    def forget(self, recording: Recording) -> None:
        """Nothing of this recording is needed any more."""
        self._reads.pop(recording, None)

    def _start(self) -> _Reader:
        ours, theirs = self._context.Pipe()
        memory: Any = self._context.RawArray("B", self._look.nbytes)  # has no name, so that no kill leaves it behind
        process = self._context.Process(target=serve, args=(theirs, memory, self._look), name="reader", daemon=True)
        with deaf_to(FROM_TERMINALS):
            process.start()
        theirs.close()
        reader = _Reader(process, ours, self._look.images(memory))
        self._readers.append(reader)
        return reader


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"reading it crashed ({signal.Signals(-code).name}); leave it out, or convert it"
    return f"reading it ended the process (exit code {code}); leave it out, or convert it"
