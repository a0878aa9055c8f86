"""Recordings that viewers bring: received into folders of the program, as far as there is room for them.

    uploads = Uploads()
    recording = await uploads.receive("mine.aedat4", request.stream())     in a folder of its own
    uploads.close()                                                         nothing of them stays

What a killed program has left is removed by the next one.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from app.scratch import Scratch

MOST_BYTES = 1 << 30  # of one recording
_MOST_IN_ALL = 4 << 30  # that are kept at any time
_LEFT_FREE = 1 << 28  # of the disk
_PATIENCE_S = 60.0  # with a sender that is silent
_BLOCK = 1 << 20
_LONGEST_NAME = 60  # characters, of up to four bytes each


class Uploads:
    """Keeps what was received until its folder is removed; every call may come from any thread."""

    def __init__(self, most_bytes: int = MOST_BYTES, most_in_all: int = _MOST_IN_ALL) -> None:
        self._most, self._in_all = most_bytes, most_in_all
        self._scratch = Scratch("velora-uploads-")
        self.folder = self._scratch.new_folder()
        self._lock = threading.Lock()  # one block at a time is counted and written

    def close(self) -> None:
        """Remove all. Closing twice does nothing."""
        self._scratch.close()

    async def receive(self, name: str, parts: AsyncIterator[bytes], size: int = 0) -> Path:
        """Write what comes to a file of about this name; `size` is what its sender says of it, or 0.

        Raises ValueError, one line, for what is too large, and TimeoutError for a sender that is silent for a minute;
        OSError. Nothing stays of what was not received whole.
        """
        with self._lock:
            if not self.folder.is_dir():  # removed with the system's old temporary files
                self.folder = self._scratch.new_folder()
        self._check(size, size)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        recording = folder / _plain(name)
        try:
            with recording.open("wb") as file:
                async for block in _blocks(parts):
                    await asyncio.to_thread(self._write, file, block)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return recording

    def _write(self, file: BinaryIO, block: bytes) -> None:
        with self._lock:
            self._check(file.tell() + len(block), len(block))
            file.write(block)
            file.flush()  # to be counted

    def _check(self, size: int, more: int) -> None:
        """Raise ValueError where a file of this size, or so much more on the disk, is too much."""
        if size > self._most:
            raise ValueError(f"uploads are of {self._most / 1e6:,.0f} MB at most: cut it, or open it where it lies")
        kept = sum(map(_size, self.folder.glob("*/*")))
        if kept + more > self._in_all or shutil.disk_usage(self.folder).free < _LEFT_FREE + more:
            raise ValueError("there is no room for uploads now: close tabs that play other ones, then try again")


async def _blocks(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same in fewer pieces: each costs a hop to another thread. Raises TimeoutError where nothing comes."""
    held = bytearray()
    while (part := await asyncio.wait_for(anext(parts, None), _PATIENCE_S)) is not None:
        held += part
        if len(held) >= _BLOCK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _plain(name: str) -> str:
    """A name of a file, of letters, digits and signs that mean nothing."""
    path = Path(re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\]", name)[-1]).lstrip(".-") or "recording")
    return path.stem[:_LONGEST_NAME] + path.suffix[:10]


def _size(path: Path) -> int:
    with suppress(OSError):  # removed meanwhile
        return path.stat().st_size
    return 0
