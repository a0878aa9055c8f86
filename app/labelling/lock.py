"""One run at a time on an output folder. The system frees the lock of a process that ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

_PLACE = 1 << 20  # of the byte that is locked: behind what the file holds, which others may read


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock on a file, which is made where there is none. Raises ValueError where somebody else holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+", encoding="utf-8") as held:
        try:
            _lock(held)
        except OSError:
            held.seek(0)
            owner = held.read(200).strip() or "another process"
            raise ValueError(
                f"{file.parent.parent} is in use by {owner}: wait for it, or choose another --out"
            ) from None
        try:
            held.truncate(0)
            held.write(f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
            held.flush()
            yield
        finally:
            with contextlib.suppress(OSError):
                held.truncate(0)  # the file stays: who removed it might remove another one's


def _lock(file: IO[str]) -> None:
    """Raises OSError where it is locked already."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
