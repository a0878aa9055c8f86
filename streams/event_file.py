"""What recordings of events alone have in common, whatever their format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

from streams.aedat4_source import Spans
from streams.items import Events, Item
from streams.source import DEFAULT_PERIOD_US, Source


class EventFile(Source):
    """A file of events and no frames. Derive, set `event_size` and `span_us`, and give `stored`."""

    path: Path
    frame_size = None
    sample_period_us = DEFAULT_PERIOD_US

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.name = self.path.name

    def __iter__(self) -> Iterator[Item]:
        return self._items(None)

    def read(self, from_us: int) -> Iterator[Item]:
        return self._items(from_us)

    def _items(self, from_us: int | None) -> Iterator[Item]:
        spans = Spans(self.counts)
        for events in self.stored(from_us):
            if len(events):
                yield from spans.push(events)
        yield from spans.flush()

    @abstractmethod
    def stored(self, from_us: int | None) -> Iterator[Events]:
        """The events, some thousands at a time, in order of time; all, or at least those from a moment on.

        With `from_us` the first events, where there are such, are from before it: they tell that the feed had begun.
        """
