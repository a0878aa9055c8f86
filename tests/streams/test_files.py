"""Files appear when they are whole."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from streams.files import append_whole, reason, remove_abandoned, replaced_when_whole


def test_a_file_takes_the_place_of_the_old_one_only_when_everything_went_well(tmp_path: Path) -> None:
    path = tmp_path / "a [1].txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replaced_when_whole(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with replaced_when_whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_but_not_what_another_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "a [1].txt"
    left, written = tmp_path / ".a [1].txt.77.part", tmp_path / ".a [1].txt.88.part"
    left.write_text("half")
    written.write_text("half")
    os.utime(left, (time.time() - 7_200,) * 2)
    with replaced_when_whole(path) as part:
        part.write_text("new")
    assert not left.exists() and written.exists()


def test_it_has_the_mode_that_the_user_gives_new_files(tmp_path: Path) -> None:
    with replaced_when_whole(tmp_path / "it") as part:
        part.write_text("new")
        part.chmod(0o600)  # as some libraries do
    (tmp_path / "other").touch()
    assert (tmp_path / "it").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device; make room, or choose another place",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; choose another place"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "File name too long; choose a shorter name"),
        (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (OSError("a library's\nword"), "a library's word"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(raised: OSError, told: str) -> None:
    assert reason(raised) == told


def test_what_cannot_be_written_names_the_file_that_was_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OSError) as full, replaced_when_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(path)) and not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError) as gone, replaced_when_whole(path) as part:
        part.unlink()
    assert gone.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as nowhere, replaced_when_whole(tmp_path / "no" / "a.txt"):
        pass
    assert nowhere.value.filename == str(tmp_path / "no" / "a.txt")
    with pytest.raises(OSError) as other, replaced_when_whole(path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "what is read")
    assert other.value.filename == "what is read"


def test_all_of_it_is_appended_or_nothing(tmp_path: Path) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"whole")
    with Full(tmp_path / "a", "r+") as file:
        file.seek(0, os.SEEK_END)
        with pytest.raises(OSError, match="No space left"):
            append_whole(file, b"half of this")
        assert file.tell() == 5
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_what_is_abandoned_is_removed_folders_too_and_nothing_else(tmp_path: Path) -> None:
    for name, old in ((".a.1.part", True), (".a.2.part", False), (".a.keep", True), ("a.part", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        for path in (tmp_path / name / "file", tmp_path / name):
            os.utime(path, (time.time() - 7_200 * old,) * 2)
    remove_abandoned(tmp_path, ".a.", ".part")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.2.part", ".a.keep", "a.part"]
    remove_abandoned(tmp_path / "nowhere", ".a.", ".part")


def test_a_folder_is_listed_once_however_many_files_are_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".a.1.part", ".b.1.part", ".ab.1.part"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 7_200,) * 2)
    listed = Mock(wraps=os.listdir)
    monkeypatch.setattr(os, "listdir", listed)
    for name in ("a", "b", "c"):
        with replaced_when_whole(tmp_path / name) as path:
            path.write_bytes(b"whole")
    assert listed.call_count == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".ab.1.part"]
