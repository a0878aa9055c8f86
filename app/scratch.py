"""A folder for files that are needed for a while; it goes with the process that has it, by a kill at the next start."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import IO

from app.labelling.lock import lock

_YOUNG_S = 60.0


class Scratch:
    """Made when it is first needed. What other processes left, that were killed, is removed then."""

    def __init__(self, name: str) -> None:
        """`name` begins the folder's, among the system's temporary files."""
        self._name = name
        self._own: Path | None = None
        self._held: IO[str] | None = None
        self._making = threading.Lock()

    def new_folder(self) -> Path:
        """An empty folder of this machine. Raises OSError where there is no room."""
        with self._making:
            if self._own is None or not self._own.is_dir():  # systems remove what was not used for days
                self._own = self._make()
        folder = self._own / uuid.uuid4().hex
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Remove all of it. Closing twice does nothing."""
        atexit.unregister(self.close)
        if self._held is not None and self._own is not None:
            self._held.close()
            shutil.rmtree(self._own, ignore_errors=True)
            self._held = self._own = None

    def _make(self) -> Path:
        for left in Path(tempfile.gettempdir()).glob(f"{self._name}*"):
            with contextlib.suppress(OSError):
                _remove_if_left(left)
        made = Path(tempfile.mkdtemp(prefix=self._name))
        self._held = open(made / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (it is held until the end)
        lock(self._held)
        atexit.register(self.close)
        return made


def _remove_if_left(folder: Path) -> None:
    """Raises OSError where its owner lives."""
    with open(folder / "lock", encoding="utf-8") as file:
        lock(file)
        if time.time() - (folder / "lock").stat().st_mtime > _YOUNG_S:  # a younger one may be about to be locked
            shutil.rmtree(folder, ignore_errors=True)


def own_scratch() -> Scratch:
    """That in which this process labels."""
    return _scratch_of(os.getpid())


@functools.cache
def _scratch_of(process: int) -> Scratch:
    return Scratch("velora-label-")
