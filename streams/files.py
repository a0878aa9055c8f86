"""Files that are there as a whole or not at all."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED_S = 3600.0


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` only when everything went well.

    What a killed process left under such a name is removed where nobody has written to it for an hour.
    """
    _tidy(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # another process may write the same file
    try:
        part.touch()
        mode = part.stat().st_mode  # as the user's umask has it; some libraries set their own
        yield part
        part.chmod(mode)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _tidy(path: Path) -> None:
    with suppress(OSError):
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink(missing_ok=True)
