"""The label format: a CSV of `recording,start_us,end_us,label` and perhaps `confidence`, a line a span.

It is `labels.csv` of a folder of recordings, or NAME.labels.csv beside one of them.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.cells import plain
from streams.files import replaced_when_whole, small_file
from streams.record import HEADINGS, label_row

_LARGEST_TEXT, _MOST_LINES = 1 << 24, 500_000  # bytes and lines, which take seconds and a few hundred MB of memory
_LATEST_US = 1 << 62
_SHOWN_CHARS = 40  # of a cell that is wrong


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A line of the file: what a recording shows in [start_us, end_us)."""

    recording: str  # name of the file
    start_us: int
    end_us: int
    label: str
    confidence: float | None = None  # None: a person said so
    line: int = 0  # where it stands


def read_label_rows(path: Path) -> list[LabelRow]:
    """The rows of a label file as they stand. Raises ValueError, one line that names file and line."""
    table = csv.DictReader(io.StringIO(_text_of(path), newline=""))
    try:
        if missing := set(HEADINGS[:4]) - set(table.fieldnames or ()):
            raise ValueError(f"it lacks the column {sorted(missing)[0]}")
        return [_row(cells, table.line_num) for cells in table]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {table.reader.line_num}: {error}") from None


def write_label_rows(path: Path, rows: Iterable[LabelRow]) -> None:
    """Write a label file, which appears when it is whole. Raises OSError."""
    with replaced_when_whole(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(HEADINGS)
        for row in rows:
            table.writerow(label_row(row.recording, row.start_us, row.end_us, row.label, row.confidence))


def lines_of(path: Path) -> list[str]:
    """Lines of a text that came from somebody. Raises ValueError that names it, and OSError."""
    return [line.rstrip("\n") for line in io.StringIO(_text_of(path), newline=None)]


def _text_of(path: Path) -> str:
    data = small_file(path, _LARGEST_TEXT)
    if data is None:
        raise ValueError(f"{path} is larger than any list of labels")
    if data.count(b"\n") > _MOST_LINES:
        raise ValueError(f"{path} has more lines than any list of labels; {_MOST_LINES:,} are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as such") from None


def check_span(start_us: int, end_us: int) -> None:
    """Raise ValueError for what is no span of time."""
    if not -_LATEST_US < start_us < end_us < _LATEST_US:
        raise ValueError(f"a span begins before it ends, not from {start_us} to {end_us} us")


def _row(cells: Mapping[Any, Any], line: int) -> LabelRow:
    if None in cells:
        raise ValueError("it has too many cells: a label with a comma stands in quotes")
    if None in map(cells.get, HEADINGS[:4]):
        raise ValueError("it has too few cells")
    recording, label = plain(cells["recording"]), plain(cells["label"].strip())
    start_us, end_us = _time("start_us", cells), _time("end_us", cells)
    check_span(start_us, end_us)
    if not label or not recording:
        raise ValueError("a span has a recording and a label")
    alike = unicodedata.normalize("NFC", label)  # what looks alike is one label
    return LabelRow(recording, start_us, end_us, alike, _confidence(cells.get("confidence")), line)


def _time(name: str, cells: Mapping[Any, Any]) -> int:
    try:
        value = int(cells[name])
    except ValueError:
        value = _LATEST_US
    if not -_LATEST_US < value < _LATEST_US:
        raise ValueError(f"{name} is a whole number of microseconds, not {_shown(cells[name])}")
    return value


def _confidence(cell: str | None) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"a confidence is a number, not {_shown(cell)}")
    return value


def _shown(cell: str) -> str:
    """A cell as an error says it, which may hold anything."""
    return repr(cell) if len(cell) <= _SHOWN_CHARS else f"{cell[:_SHOWN_CHARS]!r}…"
