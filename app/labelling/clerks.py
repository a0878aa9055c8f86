"""Who does what takes a while on far storage, so that the model need not wait for it; on this machine's, at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from app.labelling.notes import Note

_T = TypeVar("_T")
_CLERKS = 16  # a finished recording is a dozen requests, one after the other


class Clerks:
    """Work is done in threads; what follows from its result, by the owner when it calls `done`."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: deque[tuple[Future[Any], Callable[[Any], Iterator[Note]]]] = deque()

    def __len__(self) -> int:
        """How much is under way."""
        return len(self._under_way)

    def do(self, work: Callable[[], _T], then: Callable[[_T], Iterator[Note]], *, far: bool) -> None:
        """Do something; in a thread if it is `far`. Raises, if it is not, what it raises."""
        if far:
            self._pool = self._pool or ThreadPoolExecutor(_CLERKS, "clerk")
            self._under_way.append((self._pool.submit(work), then))
        else:
            now: Future[_T] = Future()
            now.set_result(work())
            self._under_way.append((now, then))

    def done(self) -> Iterator[Note]:
        """The notes that follow from what has been done. Raises what work has raised."""
        for _ in range(len(self._under_way)):
            future, then = self._under_way.popleft()
            if future.done():
                yield from then(future.result())
            else:
                self._under_way.append((future, then))

    def close(self) -> None:
        """Wait for what is under way; nothing follows from it."""
        if self._pool is not None:
            self._pool.shutdown()
        self._under_way.clear()
