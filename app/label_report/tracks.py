"""Each recording's spans on its own time, and what the labels of all add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from app.export.results import Labelled, Results
from app.label_file import LabelRow
from app.label_report.extent import extent_of


@dataclass(frozen=True)
class Track:
    """A recording, from its first moment to its last one, microseconds on its clock."""

    labelled: Labelled
    start_us: int
    end_us: int

    @property
    def name(self) -> str:
        return self.labelled.name

    @property
    def folder(self) -> str:
        """Empty for what is in none."""
        parent = str(PurePosixPath(self.name).parent)
        return "" if parent == "." else parent

    @property
    def seconds(self) -> float:
        return (self.end_us - self.start_us) / 1e6

    @property
    def rows(self) -> list[LabelRow]:
        """Spans that are in it, at least in part."""
        return [row for row in self.labelled.rows if row.start_us < self.end_us and row.end_us > self.start_us]

    def clip(self, row: LabelRow) -> tuple[int, int]:
        """The part of a span that is in it."""
        return max(row.start_us, self.start_us), min(row.end_us, self.end_us)


@dataclass(frozen=True)
class Amount:
    """What there is of one label."""

    label: str
    seconds: float
    spans: int
    recordings: int
    confidence: float | None  # mean over time; None: people have said all of it


@dataclass(frozen=True)
class Doubt:
    """A span of which the recogniser was not sure."""

    track: Track
    row: LabelRow

    @property
    def middle_us(self) -> int:
        start_us, end_us = self.track.clip(self.row)
        return (start_us + end_us) // 2


def tracks_of(results: Results) -> list[Track]:
    """The tracks of all recordings that have labels, or could have some."""
    return [_track(results, own) for own in results.labelled if not own.trouble or own.rows]


def _track(results: Results, own: Labelled) -> Track:
    windows = own.note.windows_file
    extent = extent_of(results.folder / windows) if windows else None
    if extent is None:
        start_us = min((row.start_us for row in own.rows), default=0)
        last_us = max((row.end_us for row in own.rows), default=start_us)
        extent = start_us, max(last_us, start_us + round(1e6 * own.note.seconds), start_us + 1)
    return Track(own, *extent)


def amounts_of(tracks: Iterable[Track]) -> list[Amount]:
    """Labels by falling time."""
    found: dict[str, list[tuple[Track, LabelRow]]] = {}
    for track in tracks:
        for row in track.rows:
            found.setdefault(row.label, []).append((track, row))
    return sorted((_amount(label, rows) for label, rows in found.items()), key=lambda a: (-a.seconds, a.label))


def _amount(label: str, rows: Sequence[tuple[Track, LabelRow]]) -> Amount:
    lasted = [_seconds(track.clip(row)) for track, row in rows]
    said = [(row.confidence, s) for (_, row), s in zip(rows, lasted, strict=True) if row.confidence is not None]
    weight = sum(s for _, s in said)
    sure = sum(confidence * s for confidence, s in said) / weight if weight else None
    return Amount(label, sum(lasted), len(rows), len({track.name for track, _ in rows}), sure)


def labelled_seconds(tracks: Iterable[Track]) -> float:
    """How long anything at all is said of, in sum."""
    total_us = 0
    for track in tracks:
        reached = track.start_us
        for start_us, end_us in sorted(map(track.clip, track.rows)):
            total_us += max(0, end_us - max(start_us, reached))
            reached = max(reached, end_us)
    return total_us / 1e6


def doubts_of(tracks: Iterable[Track], count: int) -> list[Doubt]:
    """The spans of least confidence, the least first; what people have said is beyond doubt."""
    rows = [(row.confidence, track.name, row.start_us, Doubt(track, row)) for track in tracks for row in track.rows]
    sure = sorted((r for r in rows if r[0] is not None), key=lambda r: (r[0] or 0.0, *r[1:3]))
    return [doubt for *_, doubt in sure[:count]]


def _seconds(span: tuple[int, int]) -> float:
    return (span[1] - span[0]) / 1e6
