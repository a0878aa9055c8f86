"""A source of events alone, read in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streams.apart import Apart
from streams.items import Item
from streams.source import Source

_FACTS = ("event_size", "frame_size", "sample_period_us", "span_us")


class ApartSource(Source):
    """A recording of another kind, opened apart. Raises as that kind does, and RecordingError as `Apart`."""

    def __init__(self, kind: type[Source], path: str | Path, **options: Any) -> None:
        super().__init__()
        self.path = Path(path)
        self.name, self.format, self.hardened = self.path.name, kind.format, kind.hardened
        self.simulated, self.reconstructed = kind.simulated, kind.reconstructed
        self._apart = Apart(f"{kind.__module__}:{kind.__qualname__}", self.path, options=options, facts=_FACTS)
        self.counts = self._apart.counts
        facts = self._apart.facts
        self.event_size, self.frame_size = facts["event_size"], facts["frame_size"]
        self.sample_period_us, self.span_us = facts["sample_period_us"], facts["span_us"]

    def __iter__(self) -> Iterator[Item]:
        return self._apart.read("__iter__")

    def read(self, from_us: int) -> Iterator[Item]:
        return self._apart.read("read", from_us)

    def close(self) -> None:
        self._apart.close()
