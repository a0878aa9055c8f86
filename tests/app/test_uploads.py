"""Recordings that viewers bring: taken whole or not at all, within bounds, and gone with whom they are for."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from app.uploads import Uploads


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    monkeypatch.setattr("app.uploads.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("app.uploads.tempfile.tempdir", str(tmp_path))
    uploads = Uploads(most_bytes=3_000_000, most_in_all=5_000_000)
    yield uploads
    uploads.close()
    assert not list(tmp_path.iterdir())


async def sent(parts: Iterable[bytes], error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


def receive(uploads: Uploads, name: str, parts: Iterable[bytes], error: Exception | None = None, size: int = 0) -> Path:
    return asyncio.run(uploads.receive(name, sent(parts, error), size))


def test_what_is_sent_lies_in_a_folder_of_its_own(uploads: Uploads) -> None:
    parts = [bytes([k]) * 70_000 for k in range(40)]
    first, second = receive(uploads, "a.aedat4", parts), receive(uploads, "a.aedat4", [])
    assert first.read_bytes() == b"".join(parts) and not second.read_bytes()
    assert first.name == second.name == "a.aedat4" and first.parent != second.parent
    assert first.parent.parent == second.parent.parent == uploads.folder


def test_a_folder_that_the_system_has_cleaned_away_is_made_again(uploads: Uploads) -> None:
    shutil.rmtree(uploads.folder.parent)
    assert receive(uploads, "a.aedat4", [b"x"]).read_bytes() == b"x"


@pytest.mark.parametrize(
    "name, kept",
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\anna\\a.aedat4", "a.aedat4"),
        (".hidden.aedat4", "hidden.aedat4"),
        ("..", "recording"),
        ("", "recording"),
        ("a\0b\nc.aedat4", "a-b-c.aedat4"),
        ("<img src=x onerror=alert(1)>.aedat4", "img-src-x-onerror-alert-1-.aedat4"),
        ("Äpfel 7.aedat4", "Äpfel-7.aedat4"),
        ("🙂" * 400 + ".aedat4", "aedat4"),
        ("ä" * 400 + ".aedat4", "ä" * 60 + ".aedat4"),
    ],
)
def test_names_are_plain(uploads: Uploads, name: str, kept: str) -> None:
    assert receive(uploads, name, [b"x"]).name == kept


@pytest.mark.parametrize(
    "parts, size, message",
    [([b"x" * 1_000_000] * 4, 0, "uploads are of 3 MB at most"), ([b""], 3_000_001, "uploads are of 3 MB at most")],
)
def test_what_is_too_large_is_refused(uploads: Uploads, parts: list[bytes], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        receive(uploads, "a.aedat4", parts, size=size)
    assert not list(uploads.folder.iterdir())


def test_there_is_room_for_so_much_in_all(uploads: Uploads) -> None:
    first = receive(uploads, "a.aedat4", [b"x" * 2_900_000])
    with pytest.raises(ValueError, match="no room for uploads"):
        receive(uploads, "b.aedat4", [b"x" * 2_900_000])
    with pytest.raises(ValueError, match="no room for uploads"):
        receive(uploads, "b.aedat4", [], size=2_900_000)
    first.unlink()
    receive(uploads, "b.aedat4", [b"x" * 2_900_000])


def test_the_disk_keeps_some_space(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.uploads._LEFT_FREE", 1 << 60)
    with pytest.raises(ValueError, match="no room for uploads"):
        receive(uploads, "a.aedat4", [b"x"])


def test_nothing_stays_of_what_was_cut_off(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError):
        receive(uploads, "a.aedat4", [b"x" * 2_000_000], ConnectionError())

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(600)

    monkeypatch.setattr("app.uploads._PATIENCE_S", 0.05)
    with pytest.raises(TimeoutError):
        asyncio.run(uploads.receive("a.aedat4", silent()))
    assert not list(uploads.folder.iterdir())


def test_what_a_killed_program_has_left_is_removed_and_what_a_running_one_keeps_is_not(
    uploads: Uploads, tmp_path: Path
) -> None:
    kept = receive(uploads, "a.aedat4", [b"mine"])
    code = "import os, app.uploads as u; print(u.Uploads().folder, flush=True); os._exit(1)"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, timeout=60)
    left = Path(ended.stdout.strip())
    (left / "a.aedat4").touch()
    Uploads().close()
    assert left.exists()  # so young that it might be about to be locked
    os.utime(left.parent / "lock", (0, 0))
    os.utime(kept.parents[2] / "lock", (0, 0))
    Uploads().close()
    assert not left.parent.exists() and kept.read_bytes() == b"mine"
