"""Of a large set in Parquet, few files beside the many: windows-00000.parquet and so on, in order of the recordings.

import pyarrow.dataset
pyarrow.dataset.dataset(sorted(glob.glob("labels/windows-*.parquet"))).to_table()
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.labelling.notes import read_notes
from app.labelling.storage import fetched, replaced_when_whole

MANY = 1000  # recordings: fewer need no shards
_SHARDS = "windows-[0-9]*.parquet"
ROWS = 1_000_000  # of a shard, a little more where a recording ends later


def remove_shards(out: Path) -> None:
    """Remove those of before, which labels that change make wrong."""
    for path in out.glob(_SHARDS):
        path.unlink(missing_ok=True)


def has_shards(out: Path) -> bool:
    """Whether there are any."""
    return next(iter(out.glob(_SHARDS)), None) is not None


def write_shards(out: Path, *, many: int = MANY, rows: int = ROWS) -> int:
    """Write the windows of all finished recordings, if these are `many`; how many files that took."""
    found = sorted(note.windows_file for note in read_notes(out) if note.windows_file.endswith(".parquet"))
    names = [name for name in found if (out / name).exists()]
    if missing := len(found) - len(names):
        print(f"velora: windows of {missing:,} recordings are gone, and in none of the shards", file=sys.stderr)
    if len(names) < many:
        return 0
    shards = list(_portions(out, names, rows))
    for number, files in enumerate(shards):
        _write(out / f"windows-{number:05d}.parquet", files)
    return len(shards)


def _portions(out: Path, names: Sequence[str], rows: int) -> Iterator[list[Path]]:
    import pyarrow.parquet as pq

    portion, held = list[Path](), 0
    for name in names:
        portion.append(out / name)
        with fetched(out / name) as file, file.open("rb") as opened:  # pyarrow takes no name that is no UTF-8
            held += pq.read_metadata(opened).num_rows
        if held >= rows:
            yield portion
            portion, held = [], 0
    if portion:
        yield portion


def _write(path: Path, files: Sequence[Path]) -> None:
    import pyarrow.parquet as pq

    with replaced_when_whole(path) as part, contextlib.ExitStack() as stack:
        writer = None
        for place in files:
            with fetched(place) as file, file.open("rb") as read, pq.ParquetFile(read) as opened:
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(part, opened.schema_arrow, compression="zstd"))
                writer.write_table(opened.read())
