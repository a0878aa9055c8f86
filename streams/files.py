"""Recordings are opened here, and files written so that they are there as a whole or not at all."""

from __future__ import annotations

import errno
import functools
import glob
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from streams.errors import RecordingError

_ABANDONED_S = 3600.0
_HEAD_BYTES = 1 << 16
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # there is no room for more
#: no place of the disk can be written: no single file's own fault
GENERAL = (*FULL, errno.EROFS)
_ROOM = "make room, or choose another place"
_FIXES: Mapping[int | None, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "larger files are not allowed here: choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "check its permissions, or choose another place",
    errno.EPERM: "check its permissions, or choose another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file in it",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk",
    errno.EMFILE: "too many files are open: see `ulimit -n`",
}


class PartFile:
    """A temporary name beside `path` to write to, until `keep` lets it take the place of `path`, or `drop` removes it.

    What a process that was killed before left under such a name is removed where nobody has written to it for an hour.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, which names `path`."""
        if any(name.startswith(f".{path.name}.") for name in _parts_in(path.parent)):
            remove_abandoned(path.parent, f".{path.name}.", ".part")
        self._whole = path
        self.path = path.with_name(f".{path.name}.{os.getpid()}.part")  # another process may write the same file
        with naming(path, self.path):
            self.path.touch()
            self._mode = self.path.stat().st_mode  # as the user's umask has it; some libraries set their own

    def keep(self) -> None:
        """It is whole. Raises OSError, which names it."""
        with naming(self._whole, self.path):
            self.path.chmod(self._mode)
            os.replace(self.path, self._whole)

    def drop(self) -> None:
        """It is not wanted. Does nothing once it was kept."""
        self.path.unlink(missing_ok=True)


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """A `PartFile` that is kept only when everything went well."""
    part = PartFile(path)
    try:
        with naming(path, part.path):
            yield part.path
        part.keep()
    finally:
        part.drop()


@contextmanager
def naming(whole: Path, part: Path) -> Iterator[None]:
    """Inside, an OSError of the temporary file or folder `part` names `whole`, as one of a full disk without a name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            name = str(whole)
        elif str(error.filename).startswith(str(part)):
            name = str(whole) + str(error.filename).removeprefix(str(part))
        else:
            raise
        raise OSError(error.errno, os.strerror(error.errno or 0), name) from error


def append_whole(file: FileIO, data: bytes) -> None:
    """Write all of it at the end of an unbuffered file; where that cannot be, nothing. Raises OSError."""
    end = file.tell()
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:  # a full disk, or Ctrl-C
        file.truncate(end)
        file.seek(end)
        raise


def is_within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether what a path leads to, through whatever links, lies in one of the folders, or is one."""
    real = path.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def reason(error: OSError) -> str:
    """What is wrong, and what to do about it."""
    what = error.strerror or " ".join(str(error).split()) or type(error).__name__
    fix = _FIXES.get(error.errno)
    return f"{what}; {fix}" if fix else what


def in_words(error: OSError) -> str:
    """The file that it is about, if it tells, what is wrong, and what to do about it."""
    return reason(error) if error.filename is None else f"{error.filename}: {reason(error)}"


@functools.lru_cache(maxsize=256)
def _parts_in(folder: Path) -> tuple[str, ...]:
    """Temporary names in a folder when it was first written to: to list one of 100,000 files takes half a second."""
    try:
        return tuple(name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".part"))
    except OSError:
        return ()


def remove_abandoned(folder: Path, begins: str, ends: str = "") -> None:
    """Remove what killed processes have left: files and folders of such names in which nobody has written for an hour.

    Nothing is raised.
    """
    with suppress(OSError):
        for path in folder.glob(f"{glob.escape(begins)}*{glob.escape(ends)}"):
            newest = max(found.lstat().st_mtime for found in (path, *path.rglob("*")))
            if time.time() - newest < _ABANDONED_S:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def open_recording(path: Path, buffering: int = 0) -> BinaryIO:
    """A file to read bytes from. Raises RecordingError, one line, for what is no file or cannot be read."""
    if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for its other end
        raise RecordingError(f"{path}: is not a regular file; give a recording")
    try:
        return path.open("rb", buffering=buffering)
    except FileNotFoundError:
        raise RecordingError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise RecordingError(f"{path}: is a folder; name one recording in it") from None
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordingError(f"{path}: cannot be read ({reason}); check its permissions") from None


def small_file(path: Path, most: int) -> bytes | None:
    """What a regular file holds; None where that is more than `most` bytes. Raises OSError, also for what is none."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for, a device never end
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    if state.st_size > most:
        return None
    with path.open("rb") as file:
        content = file.read(most + 1)  # it may grow
    return content if len(content) <= most else None


def unread(path: Path | str, error: OSError) -> RecordingError:
    """That a recording which is open can be read no further."""
    return RecordingError(f"{path}: cannot be read ({reason(error)})")


def file_fingerprint(path: Path) -> dict[str, Any]:
    """What changes when a file does: its place, size, time of change, and beginning."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # to open a pipe would wait for its other end
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    with path.open("rb") as file:
        head = hashlib.sha1(file.read(_HEAD_BYTES), usedforsecurity=False).hexdigest()
    return {"path": str(path.resolve()), "size": state.st_size, "mtime_ns": state.st_mtime_ns, "head": head}
