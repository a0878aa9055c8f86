"""A file of windows, one a row, in one of several formats; the same columns in all of them."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from streams.cells import safe

COLUMNS = ("recording", "start_us", "end_us", "label", "confidence", "unsure", "topk", "model", "settings")
_ROWS = 4096  # of a group in a Parquet file


class WindowWriter(ABC):
    """Takes rows, which have COLUMNS; `topk` is a list of pairs of label and probability."""

    @abstractmethod
    def add(self, row: dict[str, Any]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Write what is left. Closing twice does nothing."""


class JsonWindows(WindowWriter):
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class CsvWindows(WindowWriter):
    """Comma-separated; `topk` is JSON in a cell."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def add(self, row: dict[str, Any]) -> None:
        told = {**row, "unsure": int(row["unsure"]), "topk": json.dumps(row["topk"], ensure_ascii=False)}
        self._rows.writerow([safe(cell) if isinstance(cell := told[name], str) else cell for name in COLUMNS])

    def close(self) -> None:
        self._file.close()


class ParquetWindows(WindowWriter):
    """Apache Parquet, by pyarrow. Raises ValueError where that is not installed."""

    def __init__(self, path: Path) -> None:
        check_format("parquet")
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = pa.dictionary(pa.int32(), pa.string())
        likely = pa.list_(pa.struct([("label", pa.string()), ("confidence", pa.float64())]))
        kinds = (names, pa.int64(), pa.int64(), names, pa.float64(), pa.bool_(), likely, names, names)
        self._schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
        self._table = pa.Table.from_pylist
        self._file = path.open("wb")  # a path that is no UTF-8 it would not take
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        likely = [{"label": label, "confidence": confidence} for label, confidence in row["topk"]]
        self._rows.append({**row, "topk": likely})
        if len(self._rows) == _ROWS:
            self._flush()

    def close(self) -> None:
        if self._writer.is_open:
            if self._rows:
                self._flush()
            self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table(self._rows, schema=self._schema))
        self._rows = []


_WRITERS: dict[str, type[JsonWindows] | type[CsvWindows] | type[ParquetWindows]] = {
    "jsonl": JsonWindows,
    "csv": CsvWindows,
    "parquet": ParquetWindows,
}


def window_writer(kind: str, path: Path) -> WindowWriter:
    """A writer of one of the formats."""
    return _WRITERS[kind](path)


def check_format(kind: str) -> None:
    """Raise ValueError, with what to do, where a format needs a library that is not there."""
    if kind == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ValueError("--format parquet needs pyarrow: pip install 'velora-rgbe[parquet]'") from None
