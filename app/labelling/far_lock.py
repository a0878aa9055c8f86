"""One run at a time on a folder of far storage, as far as that can be promised there.

A file says whose the folder is, and is written anew every few seconds. Who finds one watches whether it still changes:
clocks need not agree. One that does not is of a run that has died, and is taken over. Where storage can make a file
only if there is none (S3 can), of two that begin at once one is refused; elsewhere, and where two take over the same
lock at once, the one that is overwritten finds that out at its next beat, and ends. It is a guard against mistakes, no
more: files are whole whatever happens.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.labelling.lock import in_use, owner
from app.labelling.storage import make_folder, storage_of

BEAT_S = 5.0
_BEATS = 3  # so many without a change, and its owner has died
_LOOK_S = 0.5


@contextmanager
def locked_far(file: Path) -> Iterator[None]:
    """Hold the lock. Raises ValueError where somebody else does, and at the end where it was lost meanwhile."""
    held = _Lock(file)
    held.take()
    beats = threading.Thread(target=held.beat, name="lock", daemon=True)
    beats.start()
    try:
        yield
    except KeyboardInterrupt:
        if not held.lost:
            raise
    finally:
        held.ended.set()
        beats.join(BEAT_S)
        held.free()
    if held.lost:
        raise in_use(file, held.lost)


class _Lock:
    def __init__(self, file: Path) -> None:
        self._file, (self._storage, self._name) = file, storage_of(file)
        self._owner, self._token, self._count = owner(), uuid.uuid4().hex, 0
        self.ended = threading.Event()
        self.lost = ""  # to whom

    def take(self) -> None:
        """Raises ValueError where its owner lives."""
        if self._create():
            return
        found = self._read()
        if found is not None:
            print(f"velora: seeing whether {found.get('owner')} still writes to {self._file}", file=sys.stderr)
        end = time.monotonic() + _BEATS * BEAT_S
        while found is not None and time.monotonic() < end:
            time.sleep(min(_LOOK_S, BEAT_S))
            now = self._read()
            if now is not None and now != found:
                raise in_use(self._file, str(now.get("owner") or "another process"))
            found = now
        with contextlib.suppress(FileNotFoundError):
            self._storage.rm_file(self._name)
        if not self._create():
            raise in_use(self._file, "another process")

    def beat(self) -> None:
        """Say now and then that it is held; end the run where it is not."""
        while not self.ended.wait(BEAT_S):
            try:
                found = self._read()
                if found is not None and found.get("token") != self._token:
                    self.lost = str(found.get("owner") or "another process")
                    _thread.interrupt_main()
                    return
                self._storage.pipe_file(self._name, self._told())
            except Exception:  # storage that is away for a moment is no reason to end
                continue

    def free(self) -> None:
        """Remove it, if it is still this one's."""
        with contextlib.suppress(Exception):
            if (self._read() or {}).get("token") == self._token:
                self._storage.rm_file(self._name)

    def _create(self) -> bool:
        """Whether it could be made: only where there is none."""
        if self._storage.exists(self._name):
            return False
        try:
            make_folder(self._file.parent)
            self._storage.pipe_file(self._name, self._told(), mode="create")
        except FileExistsError:
            return False
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            told = json.loads(self._storage.cat_file(self._name))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    def _told(self) -> bytes:
        self._count += 1
        return json.dumps({"owner": self._owner, "token": self._token, "beat": self._count}).encode()
