"""Recordings are opened here, and files written so that they are there as a whole or not at all."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from streams.errors import RecordingError

_ABANDONED_S = 3600.0


class PartFile:
    """A temporary name beside `path` to write to, until `keep` lets it take the place of `path`, or `drop` removes it.

    What a killed process left under such a name is removed where nobody has written to it for an hour.
    """

    def __init__(self, path: Path) -> None:
        _tidy(path)
        self._whole = path
        self.path = path.with_name(f".{path.name}.{os.getpid()}.part")  # another process may write the same file
        self.path.touch()
        self._mode = self.path.stat().st_mode  # as the user's umask has it; some libraries set their own

    def keep(self) -> None:
        """It is whole."""
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
        yield part.path
        part.keep()
    finally:
        part.drop()


def _tidy(path: Path) -> None:
    with suppress(OSError):
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink(missing_ok=True)


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
