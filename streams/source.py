"""The source: where items come from. Addressed by a string, opened as a context manager, iterated for items.

with open_source("recordings/cards.aedat4") as source:
    for item in source: ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from streams.errors import RecordingError
from streams.items import Item

#: Further apart than this, two moments do not belong to one stream.
JUMP_US = 10_000_000
#: Assumed where a recording has too few frames to tell.
DEFAULT_PERIOD_US = 33_333


class Source(ABC):
    """A synchronised feed of events and frames; items come in order of their end, on one clock.

    A recorded source is finite and starts anew with each iteration; a live one is endless, and `close` ends it from any
    thread.
    """

    live = False
    path: Path | None = None  # of a recording
    name: str
    event_size: tuple[int, int] | None  # (width, height); None: no events in this source
    frame_size: tuple[int, int] | None  # (width, height); None: no frames in this source
    sample_period_us: int  # time from one sample to the next, as far as it can be told beforehand
    span_us: tuple[int, int] | None = None  # the first moment of a recording and its last; None: live, or not known

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # what was lost on the way, by reason; later stages add to it

    @property
    def warning(self) -> str:
        """What is wrong with a live feed now, for people; empty where all is well."""
        return ""

    @abstractmethod
    def __iter__(self) -> Iterator[Item]: ...

    def read(self, from_us: int) -> Iterator[Item]:
        """All frames and events that end after `from_us` with the events of these frames, and perhaps earlier ones."""
        return iter(self)

    @abstractmethod
    def close(self) -> None:
        """Free files, sockets and devices. Closing twice does nothing."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Through(Source):
    """A source that passes on what another one yields. Derive and override `_through`."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source, self.counts, self.live = source, source.counts, source.live
        self.name, self.sample_period_us, self.span_us = source.name, source.sample_period_us, source.span_us
        self.event_size, self.frame_size, self.path = source.event_size, source.frame_size, source.path

    @property
    def warning(self) -> str:
        return self.source.warning

    def __iter__(self) -> Iterator[Item]:
        return self._through(iter(self.source))

    def read(self, from_us: int) -> Iterator[Item]:
        return self._through(self.source.read(from_us))

    def close(self) -> None:
        self.source.close()

    @abstractmethod
    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, changed or not."""


def open_source(uri: str | Path) -> Source:
    """Open a source by its address; a recording's format is told by its content, not by its name.

    Raises StreamError, for recordings RecordingError with one line that names the file and the fix.
    """
    from streams.aedat4_source import Aedat4Source

    if str(uri).startswith("tcp:"):
        from streams.network import TcpSource

        return TcpSource(str(uri))
    if "://" in str(uri):
        raise RecordingError(f"{uri}: no such kind of source; give the path of a .aedat4 recording, or tcp://HOST:PORT")
    return Aedat4Source(Path(uri))
