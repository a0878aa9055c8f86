"""When a recording begins and ends, as its windows tell: without opening the recording, which may be elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from app.labelling.windows import COLUMNS

_TAIL = 1 << 16  # bytes; a window takes a few hundred
Extent = tuple[int, int]  # microseconds


def extent_of(windows: Path) -> Extent | None:
    """The begin of the first window and the end of the last one; None where there is none, or it cannot be read."""
    read = _READERS.get(windows.suffix)
    try:
        found = read(windows) if read is not None and windows.is_file() else None
    except (OSError, ValueError, KeyError, IndexError, TypeError, ImportError, RecursionError, OverflowError):
        return None
    return found if found and found[0] < found[1] else None


def _json(path: Path) -> Extent:
    first, last = (json.loads(line) for line in _ends(path, headings=0))
    return int(first["start_us"]), int(last["end_us"])


def _csv(path: Path) -> Extent:
    first, last = (dict(zip(COLUMNS, row, strict=True)) for row in csv.reader(_ends(path, headings=1)))
    return int(first["start_us"]), int(last["end_us"])


def _parquet(path: Path) -> Extent:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(k) for k in (0, file.num_row_groups - 1)]
    first, last = ({(column := g.column(k)).path_in_schema: column for k in range(g.num_columns)} for g in groups)
    return int(first["start_us"].statistics.min), int(last["end_us"].statistics.max)


def _ends(path: Path, headings: int) -> list[str]:
    """The first line below the headings, and the last one. Raises IndexError where there is none."""
    with path.open("rb") as file:
        first = [file.readline(_TAIL) for _ in range(headings + 1)][-1]
        file.seek(max(file.tell() - len(first), path.stat().st_size - _TAIL))
        last = file.read().splitlines()[-1]
    return [first.decode(), last.decode()]


_READERS: dict[str, Callable[[Path], Extent]] = {".jsonl": _json, ".csv": _csv, ".parquet": _parquet}
