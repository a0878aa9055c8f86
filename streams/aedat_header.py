"""The text that AEDAT files of before 4.0 begin with, and how such files are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

from streams.errors import RecordingError
from streams.files import unread


class Header(NamedTuple):
    """The text that AEDAT files of before 4.0 begin with."""

    version: str
    lines: list[str]  # without their `#`
    size: int  # in bytes
    ended: bool  # its last line says that it is the last


_MAX_HEADER_BYTES, _MAX_LINES = 1 << 22, 1 << 14
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]"
#: Events may begin with a `#` too: a line ends like the first one does, or is too long to be text by chance.
_LINES = {
    True: re.compile(rb"#%b*\r\n|#%b{16,}\n" % (_TEXT, _TEXT)),
    False: re.compile(rb"#(%b+\r?\n|\n(?=#|\Z))" % _TEXT),  # an event at 160, 140 would be an empty line
}
_UNFINISHED = re.compile(rb"(#%b*\r?)?" % _TEXT)
_LAST_LINE = re.compile(r"!END-HEADER|\s*end of ascii header", re.IGNORECASE)


def read_header(file: BinaryIO, path: Path, versions: tuple[str, ...]) -> Header:
    """The header of a file; RecordingError where it does not end, or is of another version."""
    size = 1 << 14
    while True:
        head = read_at(file, 0, size)
        found = re.match(rb"#!AER-DAT(\d\.\d)\s", head)
        if found is None or found[1].decode() not in versions:
            raise RecordingError(f"{path}: not an AEDAT {' or '.join(versions)} recording; choose another file")
        lines, position, ended = _lines(head)
        whole = ended or position == len(head) < size or not _UNFINISHED.fullmatch(head, position)
        if whole and len(lines) < _MAX_LINES:
            return Header(found[1].decode(), lines, position, ended)
        if whole or len(head) < size or size >= _MAX_HEADER_BYTES:
            raise RecordingError(f"{path}: the header is cut off or does not end; record or copy the file again")
        size = min(8 * size, _MAX_HEADER_BYTES)


def _lines(head: bytes) -> tuple[list[str], int, bool]:
    """The lines that a file begins with, where they end, and whether the last one says that it is the last."""
    pattern, lines, position = _LINES[head[: head.find(b"\n")].endswith(b"\r")], list[str](), 0
    while len(lines) < _MAX_LINES and (match := pattern.match(head, position)):
        lines.append(match[0][1:].rstrip(b"\r\n").decode(errors="replace"))
        position = match.end()
        if _LAST_LINE.match(lines[-1]):
            return lines, position, True
    return lines, position, False


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    """The bytes from a position on, fewer at the end of the file. Raises RecordingError where the disk fails."""
    try:
        file.seek(position)
        return file.read(size)
    except OSError as error:
        raise unread(file.name, error) from None
