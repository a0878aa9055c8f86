"""Recordings that wait to be labelled; more may come, from any thread, until it is closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from app.labelling.inputs import Recording


class Inbox:
    """Put in by many, taken out by one, in order."""

    def __init__(
        self,
        recordings: Iterable[Recording] = (),
        *,
        closed: bool = False,
        taken: Callable[[Recording], object] = lambda _: None,
    ) -> None:
        """`taken` is told of a recording before it is begun."""
        self._waiting = deque(recordings)
        self._closed, self._taken = closed, taken

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def expects(self) -> bool:
        """Whether there is something in it, or may be."""
        return not self._closed or bool(self._waiting)

    def put(self, recording: Recording) -> None:
        """One more."""
        self._waiting.append(recording)

    def take(self) -> Recording:
        """The next one. Raises IndexError where none waits."""
        recording = self._waiting.popleft()
        self._taken(recording)
        return recording

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
