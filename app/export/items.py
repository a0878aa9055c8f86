"""What is exported of one recording: its spans in the time of its video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from app.film.film import Clock
from app.label_file import LabelRow
from streams.text import printable

_NOTICED_S = 0.1  # a span that is cut by less has begun with the first picture, or ended with the last one


@dataclass(frozen=True, slots=True)
class Span:
    """What a video shows in [start_s, end_s), which is inside of it; and the same on the recording's clock."""

    start_s: float
    end_s: float
    start_us: int
    end_us: int
    label: str
    confidence: float | None  # None: a person said so


@dataclass(frozen=True)
class Item:
    """One recording."""

    recording: str
    key: str  # of its files, see `names`
    source: str
    clock: Clock
    spans: tuple[Span, ...]
    cut: int = 0  # spans that were partly outside of the recording
    outside: int = 0  # spans that were wholly, and are left out


@dataclass(frozen=True)
class Export:
    """All that is exported."""

    items: Sequence[Item]
    labels: tuple[str, ...]
    model: str  # what said it
    with_video: bool


class Tool(ABC):
    """A format. Derive, and add it to `command`."""

    title: ClassVar[str]  # of the tool, for people
    videos: ClassVar[str]  # the folder in the output that holds them

    @abstractmethod
    def write(self, out: Path, export: Export) -> None:
        """Write the labels. Raises OSError."""

    @abstractmethod
    def readme(self, out: Path, export: Export) -> str:
        """How to import it."""


def spans_in(rows: Iterable[LabelRow], clock: Clock) -> tuple[list[Span], int, int]:
    """Spans inside a video, how many were cut for that, and how many are wholly outside."""
    spans: list[Span] = []
    cut = outside = 0
    for row in rows:
        start_s, end_s = clock.since_origin(row.start_us), clock.since_origin(row.end_us)
        inside = max(0.0, start_s), min(clock.seconds, end_s)
        if inside[0] >= inside[1]:
            outside += 1
            continue
        cut += (inside[0] - start_s) > _NOTICED_S or (end_s - inside[1]) > _NOTICED_S
        start_us, end_us = (clock.origin_us + round(moment * 1e6) for moment in inside)
        spans.append(Span(*inside, start_us, end_us, one_line(row.label), row.confidence))
    return spans, cut, outside


def one_line(label: str) -> str:
    """A label without what would break a line or a markup."""
    return " ".join(printable(label, " ").split()) or "?"


def lanes(spans: Sequence[Span]) -> Iterator[tuple[int, Span]]:
    """Spans in order of time with a number from 0, equal for those that do not overlap."""
    ends: list[float] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        lane = next((k for k, end in enumerate(ends) if end <= span.start_s), len(ends))
        ends[lane : lane + 1] = [span.end_s]
        yield lane, span
