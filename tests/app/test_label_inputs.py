"""Which recordings inputs mean, and what each is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.labelling.inputs import find, within
from tests.app.conftest import write_square


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recordings here and there; the current one is beside it."""
    for name in ("a.aedat4", "sub/b.aedat4", "sub/deep/c.aedat4", ".trash/x.aedat4", "sub/.y.aedat4"):
        write_square(tmp_path / "drive" / name, 1)
    for kind in ("aps", "dvs"):
        folder = tmp_path / "drive" / "clips" / "one" / f"one_{kind}"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "00000000.png"), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "drive" / "readme.txt").write_text("words")
    (tmp_path / "drive" / "sub" / "broken.aedat4").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "drive"


def names(*inputs: str, listed: Path | None = None, out: str = "out") -> list[str]:
    return [recording.name for recording in find(inputs, listed, Path(out)).recordings]


ALL = ["a.aedat4", "clips/one", "sub/b.aedat4", "sub/broken.aedat4", "sub/deep/c.aedat4"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["drive"], ALL),
        (["drive/"], ALL),
        (["./drive/sub/.."], ALL),
        (["drive/sub"], ["b.aedat4", "broken.aedat4", "deep/c.aedat4"]),
        (["drive/sub/b.aedat4"], ["b.aedat4"]),
        (["drive/sub/b.aedat4", "drive/a.aedat4"], ["a.aedat4", "b.aedat4"]),
        (["drive/clips/one"], ["one"]),
        (["hardvs:drive/clips/one"], ["one"]),
        (["drive/**/*.aedat4"], [name for name in ALL if name != "clips/one"]),
        (["drive/s*"], [name for name in ALL if name.startswith("sub")]),
        (["drive/*"], ALL),
        (["drive/sub/[bc]*.aedat4"], ["b.aedat4", "broken.aedat4"]),
        (["drive", "drive/sub/b.aedat4", "drive/sub"], ALL),
    ],
)
def test_inputs_mean_recordings(drive: Path, inputs: list[str], expected: list[str]) -> None:
    assert names(*inputs) == expected


def test_what_links_lead_to_outside_of_folders_can_be_left_out(drive: Path, tmp_path: Path) -> None:
    outside = write_square(tmp_path / "outside" / "secret.aedat4", 1)
    (drive / "link.aedat4").symlink_to(outside)
    (drive / "links").symlink_to(outside.parent)
    (drive / "own.aedat4").symlink_to(drive / "a.aedat4")
    found = find(["drive"], None, tmp_path / "out")
    inside = within(found, [drive, tmp_path / "elsewhere"])
    assert {"link.aedat4", "links/secret.aedat4", "own.aedat4"} <= {own.name for own in found.recordings}
    assert [own.name for own in inside.recordings] == sorted([*ALL, "own.aedat4"])
    assert inside.others == found.others + 2


def test_folders_that_may_not_be_read_stop_nothing_else(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As lost+found, which is on each disk."""
    (drive / "lost+found").mkdir()
    iterate = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return iterate(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert names("drive") == ALL
    assert "lost+found may not be read, and is left alone" in capsys.readouterr().err
    with pytest.raises(PermissionError):
        names("drive/lost+found")


def test_paths_are_absolute_and_names_are_what_they_end_with(drive: Path) -> None:
    for recording in find(["drive"], None, Path("out")).recordings:
        assert recording.path == drive / recording.name


def test_files_that_are_no_recordings_are_counted(drive: Path) -> None:
    assert find(["drive"], None, Path("out")).others == 1


def test_the_lines_of_a_list_are_inputs(drive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffdrive/sub\n\n  drive/a.aedat4 \ndrive/clips/*\nmissing.aedat4\n", encoding="utf-8")
    expected = ["a.aedat4", "b.aedat4", "broken.aedat4", "deep/c.aedat4", "missing.aedat4", "one"]
    assert names(listed=listed) == expected


def test_equal_names_are_told_apart_by_their_folders(drive: Path) -> None:
    write_square(drive / "other" / "b.aedat4", 1)
    assert names("drive/sub", "drive/other") == [
        *("other/b.aedat4", "sub/b.aedat4", "sub/broken.aedat4", "sub/deep/c.aedat4"),
    ]
    assert names("drive/sub/b.aedat4", "drive/other/b.aedat4") == ["other/b.aedat4", "sub/b.aedat4"]


def test_the_output_folder_is_no_input(drive: Path) -> None:
    write_square(drive / "labels" / "left.aedat4", 1)
    assert names("drive", out="drive/labels") == ALL


def test_links_are_followed_but_not_round_in_circles(drive: Path, tmp_path: Path) -> None:
    write_square(tmp_path / "elsewhere" / "d.aedat4", 1)
    os.symlink(tmp_path / "elsewhere", drive / "linked")
    os.symlink(drive, drive / "sub" / "circle")
    assert names("drive") == sorted([*ALL, "linked/d.aedat4"])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(drive: Path) -> None:
    write_square(drive / "odd" / "x[1]*.aedat4", 1)
    assert names("drive/odd/x[1]*.aedat4") == ["x[1]*.aedat4"]


@pytest.mark.parametrize("wrong", ["tcp://localhost:1", "dv:"])
def test_live_sources_are_refused(drive: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="is live and has no end"):
        names(wrong)


def test_videos_that_were_made_of_recordings_are_none(drive: Path) -> None:
    before = names("drive")
    for name in ("a.mp4", "a.video.json"):
        (drive / "sub" / name).write_bytes(b"{}")
    assert names("drive") == before
