"""labels.csv as the fuzzer has it: cells, quotes, numbers, and lines, read by all that read labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from numpy.random import Generator

from app.datasets import open_dataset
from app.label_file import read_label_rows
from app.spans import SpanBook
from tests.app.conftest import write_square
from tests.app.fakes import PoolHere
from tests.app.label_outputs import at, write_note_of, write_run
from tests.trust.fuzz.child import DATA
from tests.trust.fuzz.harness import Case, Format
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, of_files
from tests.trust.fuzz.routes import command, line

_NAME = "labels.csv"
_RECORDINGS = ("a.aedat4", "b.aedat4", "c.aedat4")
_FRAMES = 8
_LONGEST = 800  # characters, at which the program cuts what it says


def seeds(folder: Path) -> Sequence[Case]:
    """Of several recordings, with quotes, with confidences, and one span each."""
    rows = [(name, at(k), at(k + 4), label) for name in _RECORDINGS for k, label in ((0, "walk"), (4, "sit, down"))]
    with_confidence = [(*row, 0.5) for row in rows]
    one = rows[::2]
    heads = ("recording", "start_us", "end_us", "label"), ("recording", "start_us", "end_us", "label", "confidence")
    texts = [_text(heads[0], rows), _text(heads[1], with_confidence), _text(heads[0], one)]
    return [Case({_NAME: text}, _NAME) for text in [*texts, b"\xef\xbb\xbf" + texts[0].replace(b"\r\n", b"\n")]]


def _text(head: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([head, *rows])
    return file.getvalue().encode()


# --- routes -----------------------------------------------------------------------------------------------------------


def rows(path: Path) -> str:
    """read the rows, and the labels by hand of one recording."""
    try:
        found = read_label_rows(path)
    except ValueError as error:
        return line(str(error)[:_LONGEST])
    book = SpanBook(path.with_name(_RECORDINGS[0]), path.parent, labels=path)
    try:
        assert len(book.spans) <= len(found)
    except ValueError as error:
        line(str(error)[:_LONGEST])
    return DATA


def data_set(path: Path) -> str:
    """a data set to train on."""
    for number, name in enumerate(_RECORDINGS):
        write_square(path.with_name(name), _FRAMES + number)
    try:
        with patch("app.datasets.pool_of", PoolHere):
            found = open_dataset(str(path.parent), "train", path.parent / "cache", size=32)
    except ValueError as error:
        return line(str(error)[:_LONGEST])
    assert found.labels and found.clips
    return DATA


def export(path: Path) -> str:
    """velora export."""
    out = path.parent / "out"
    source = write_square(path.parent / "in" / _RECORDINGS[0], _FRAMES)
    place = write_note_of(out, source, _RECORDINGS[0], [(at(0), at(4), "walk", None)], _FRAMES)
    write_run(out)
    place.labels.write_bytes(path.read_bytes())
    return command("export", out, "--to", "csv", "--no-video", "--out", path.parent / "exported")


# --- harm -------------------------------------------------------------------------------------------------------------

_CELLS = (
    *("", " ", "0", "-1", "1e9", "1.5", "nan", "inf", "-inf", "0x10", "1_000", "٣"),
    *("9" * 30, "9" * 5000, "1" * 200_000, "a" * 300, "b" * 140_000),
    *(str(1 << 31), str((1 << 62) - 1), str(1 << 62), str(1 << 63), str(-(1 << 63))),
    *("a,b", 'a"b', '"', '""' * 3, "a\nb", "a\r\nb", "\x00", "a\x00b", "\x1b[31m"),
    *("\u2028", "\u202e", "\ufeff", "e\u0301", "=1+1", "@SUM(A1)", "+1", "-1+1", "'=1", "<script>alert(1)</script>"),
    *("../../etc/passwd", "/etc/passwd", ".", "..", "a.aedat4/", "./a.aedat4", "file:///a.aedat4"),
)


def _table(data: bytes) -> list[list[str]]:
    try:
        table = list(csv.reader(io.StringIO(data.decode("utf-8-sig", errors="replace"), newline="")))
    except csv.Error:
        return [["recording", "start_us", "end_us", "label"]]
    return table or [[""]]


def cells(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Odd names, numbers and labels, quoted as they should be."""
    table = _table(data)
    for _ in range(int(rng.choice([1, 1, 3, 10]))):
        row = table[int(rng.integers(len(table)))]
        if row:
            row[int(rng.integers(len(row)))] = _CELLS[int(rng.integers(len(_CELLS)))]
    return _text(table[0], table[1:])


def unquoted(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The same as they stand, without quotes."""
    lines = data.split(b"\n")
    k = int(rng.integers(len(lines)))
    parts = lines[k].split(b",")
    parts[int(rng.integers(len(parts)))] = _CELLS[int(rng.integers(len(_CELLS)))].encode()
    lines[k] = b",".join(parts)
    return b"\n".join(lines)


def columns(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Missing, twice, in another order, too many."""
    table = _table(data)
    width = max(map(len, table))
    shuffled = rng.random() < 0.3
    order = rng.permutation(width) if shuffled else rng.integers(0, width, int(rng.integers(1, width + 3)))
    changed = [[row[k] if k < len(row) else "" for k in order] for row in table]
    return _text(changed[0], changed[1:] if rng.random() < 0.7 else table[1:])


def lines(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Repeated, in another order, many, or without an end."""
    own = data.splitlines(keepends=True) or [b""]
    match int(rng.integers(5)):
        case 0:
            return own[0] + b"".join(own[k] for k in rng.integers(0, len(own), 2 * len(own)).tolist())
        case 1:
            return own[0] + b"".join(own[1:] * 2_000)
        case 2:
            return own[0] + b"\n" * 1_000_000 + own[-1]
        case 3:
            return own[0] + b"," * 1_000_000 + own[-1]
    return own[0] + b'a.aedat4,0,1,"' + b"".join(own[1:] * 500)


def encodings(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Other encodings, and bytes that are no text."""
    text = data.decode(errors="replace").replace("walk", "géhen")
    name = str(rng.choice(["utf-16", "utf-16-le", "latin-1", "utf-32", "utf-7", "cp1252"]))
    return text.encode(name, errors="replace") if rng.random() < 0.7 else data.replace(b"walk", b"\xed\xa0\x80\xff")


_KNOWING: Mapping[str, Harm] = {
    "odd cells": cells,
    "odd cells, again": cells,
    "odd cells without quotes": unquoted,
    "columns": columns,
    "lines": lines,
    "encodings": encodings,
}

LABELS = Format("labels.csv", seeds, of_files(ANY_BYTES) | of_files(_KNOWING), (rows, data_set, export))
