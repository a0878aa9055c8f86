"""A function in a process of its own: its memory is its own, and where it hangs or crashes, nothing else does.

with Worker(function, book) as worker:
    result = worker.ask(argument, …)
    worker.peak_gb                          the most that it had in memory, its own children included, if it is weighed
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import psutil

from streams.endings import FROM_TERMINALS, end_with_parent, ignore

if TYPE_CHECKING:
    from app.bench.book import Book

_LOOK_S = 0.05
_END_S = 10.0
LEFT_BYTES = 1 << 30  # of memory, that nobody takes


class WorkerFailed(RuntimeError):
    """What became of a worker."""


class Worker:
    """A context manager: leaving it ends the process, and what it has started."""

    def __init__(
        self, work: Callable[..., Any], book: Book, *, timeout_s: float = 600.0, weighed: bool = False
    ) -> None:
        """Weighing it looks at all processes of the machine, 20 times a second, which slows what shares its core."""
        self._work, self._book, self._timeout_s, self._weighed = work, book, timeout_s, weighed
        self.peak_gb = 0.0

    def __enter__(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._work), name="bench")
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.join(_END_S)

    def ask(self, *arguments: Any) -> Any:
        """What the function makes of arguments.

        Raises WorkerFailed, also before it takes the machine's last memory, and Stopped where somebody wants it to end.
        """
        last = time.monotonic() + self._timeout_s
        try:
            self._link.send(arguments)
            while not self._link.poll(_LOOK_S):
                self._book.heed()
                self._watch()
                if time.monotonic() > last:
                    raise WorkerFailed(f"no answer within {self._timeout_s:g} s")
            self._watch()  # at least once, however fast it is
            well, value = self._link.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(_END_S)
            raise WorkerFailed(f"its process ended by itself with code {self._process.exitcode}") from None
        if not well:
            raise WorkerFailed(value)
        return value

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid or 0

    def _watch(self) -> None:
        if self._weighed:
            self._weigh()
        if psutil.virtual_memory().available < LEFT_BYTES:
            self._weigh()
            raise WorkerFailed(f"the machine's memory does not suffice: it had {self.peak_gb:.1f} GB of it, then ended")

    def _weigh(self) -> None:
        resident = 0
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                resident += process.memory_info().rss
        self.peak_gb = max(self.peak_gb, resident / 1e9)

    def _family(self) -> list[psutil.Process]:
        """The process and those that it has started; none where it has ended."""
        try:
            process = psutil.Process(self._process.pid)
            return [*process.children(recursive=True), process]
        except psutil.Error:
            return []


def _serve(link: Connection, work: Callable[..., Any]) -> None:
    """The process's work, until nobody asks any more."""
    ignore(FROM_TERMINALS)
    end_with_parent()
    with contextlib.suppress(EOFError, OSError):
        while True:
            arguments = link.recv()
            try:
                answer = True, work(*arguments)
            except Exception as error:
                answer = False, f"{type(error).__name__}: {error}"
            link.send(answer)
