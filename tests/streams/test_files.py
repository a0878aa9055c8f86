"""Files appear when they are whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from streams.files import replaced_when_whole


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
