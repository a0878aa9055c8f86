"""One run at a time on an output folder.

On this machine's file system the system frees the lock of a process that ends, however it ends. Far storage has no such
locks: see `far_lock`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from streams.files import naming

#: What systems say of a file that somebody else has locked; Windows says the last one.
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_PLACE = 1 << 20  # of the byte that is locked: behind what the file holds, which others may read


def locked(file: Path) -> AbstractContextManager[None]:
    """Hold a lock on a file, which is made where there is none. Raises ValueError where somebody else holds it."""
    if isinstance(file, Path):
        return _locked_here(file)
    from app.labelling.far_lock import locked_far

    return locked_far(file)


def seal_of(file: Path) -> str:
    """What a lock that is a file says now; empty where nobody holds it, and for far storage."""
    try:
        return file.read_text(encoding="utf-8") if isinstance(file, Path) else ""
    except OSError:
        return ""


def owner() -> str:
    """This process, in words."""
    return f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}"


def in_use(file: Path, by: str) -> ValueError:
    """The error of a folder that somebody else is at."""
    return ValueError(f"{file.parent.parent} is in use by {by}: wait for it, or choose another --out")


@contextmanager
def _locked_here(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with naming(file, file), open(file, "a+", encoding="utf-8") as held:
        try:
            lock(held)
        except OSError as error:
            if error.errno not in _HELD:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(file)) from None
            held.seek(0)
            raise in_use(file, held.read(200).strip() or "another process") from None
        try:
            held.truncate(0)
            held.write(f"{owner()}\n")
            held.flush()
            os.fsync(held.fileno())  # that other machines see it
            yield
        finally:
            with contextlib.suppress(OSError):
                held.truncate(0)  # the file stays: who removed it might remove another one's


def lock(file: IO[str]) -> None:
    """Lock a file that is open, until it is closed. Raises OSError where it is locked already."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
