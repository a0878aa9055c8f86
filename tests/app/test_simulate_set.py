"""Sets of simulated scenes: both layouts, splits that share no scene, runs that go on."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.cli import main
from app.simulate_set import make_images, make_recording
from streams import open_source, synchronize
from streams.simulation.cards import LABELS
from streams.simulation.scenes import scene


def make(out: Path, *options: str) -> int:
    return main(["simulate", "cards", "--scenes", "4", "--seconds", "0.5", "--seed", "5", "--out", str(out), *options])


def test_recordings_with_their_labels(tmp_path: Path) -> None:
    assert make(tmp_path, "--light", "dim", "--speed", "slow") == 0
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "set.json",
        *("test/labels.csv", "test/test_500000_dim_slow.aedat4"),
        *(f"train/{name}" for name in ("labels.csv", *(f"train_50000{k}_dim_slow.aedat4" for k in range(3)))),
    ]
    with open(tmp_path / "train" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["recording"] for row in rows} == {f"train_50000{k}_dim_slow.aedat4" for k in range(3)}
    assert {row["label"] for row in rows} <= set(LABELS)
    with open_source(tmp_path / "train" / "train_500001_dim_slow.aedat4") as source:
        samples = list(synchronize(source))
    own = [row for row in rows if row["recording"] == "train_500001_dim_slow.aedat4"]
    assert int(own[0]["start_us"]) <= samples[0].t_start_us and samples[-1].t_end_us <= int(own[-1]["end_us"])


def test_images_as_hardvs_lays_them_out(tmp_path: Path) -> None:
    assert make(tmp_path, "--layout", "images", "--scenes", "6") == 0
    assert (tmp_path / "classes.txt").read_text().splitlines() == list(LABELS)
    clips = []
    for split in ("train", "val", "test"):
        for line in (tmp_path / f"{split}_label.txt").read_text().splitlines():
            clip, frames, label = line.split()
            name = clip.partition("/")[2]
            for kind in ("aps", "dvs"):
                images = sorted((tmp_path / clip / f"{name}_{kind}").iterdir())
                assert [image.name for image in images] == [f"{k:08d}.png" for k in range(int(frames))]
            assert clip.startswith(f"action_{int(label) + 1:03d}_{LABELS[int(label)].replace(' ', '_')}/")
            clips.append((split, name[:-3]))
    assert len(clips) >= 6
    scenes = {split: {scene for own, scene in clips if own == split} for split in ("train", "test")}
    assert scenes["train"] and scenes["test"] and not scenes["train"] & scenes["test"]
    event = cv2.cvtColor(cv2.imread(str(next(tmp_path.glob("action_0*/*/*_dvs/00000005.png")))), cv2.COLOR_BGR2RGB)
    colours = {tuple(colour) for colour in np.unique(event.reshape(-1, 3), axis=0).tolist()}
    assert event.shape == (260, 346, 3) and colours <= {(255, 255, 255), (220, 30, 30), (30, 30, 200)}


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    make(tmp_path, "--light", "dim", "--speed", "slow")
    kept, other = (tmp_path / "train" / f"train_50000{k}_dim_slow.aedat4" for k in range(2))
    before = kept.stat().st_mtime_ns
    other.unlink()
    assert make(tmp_path, "--light", "dim", "--speed", "slow") == 0
    assert kept.stat().st_mtime_ns == before and other.exists()


@pytest.mark.parametrize("layout", ["recordings", "images"])
def test_a_set_that_is_removed_meanwhile_is_not_begun_anew(tmp_path: Path, layout: str) -> None:
    make = make_images if layout == "images" else make_recording
    with pytest.raises(FileNotFoundError, match="gone"):
        make(scene("train", 1, light=None, speed=None, seconds=0.1), tmp_path / "gone")
    assert not list(tmp_path.iterdir())


def test_a_set_that_was_removed_and_begun_anew_is_not_whole(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("app.simulate_set._begin", lambda out, arguments: out.mkdir())
    assert make(tmp_path / "set") == 1
    assert "set was removed meanwhile, with the scenes in it: run the same command again" in capsys.readouterr().err


def test_a_set_is_not_mixed_with_another(tmp_path: Path, capsys) -> None:
    make(tmp_path / "set")
    assert make(tmp_path / "set", "--light", "dark") == 1
    assert "holds a set that was made with --light None: choose another --out" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert make(tmp_path / "mine") == 1
    assert "mine holds other things" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--ranks", "A"], "--ranks is for a single recording"), (["--lamp", "1"], "--lamp is for a single recording")],
)
def test_bad_options_write_nothing(tmp_path: Path, capsys, options: list[str], message: str) -> None:
    assert make(tmp_path / "set", *options) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_a_file_is_no_folder(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert make(tmp_path / "file") == 1
    assert "is a file; with --scenes, --out names a folder" in capsys.readouterr().err


def test_cards_without_their_labels_are_no_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.simulate.write_labels", full)
    assert main(["simulate", "cards", "--seconds", "0.2", "--out", str(tmp_path / "a.aedat4")]) == 1
    assert not list(tmp_path.iterdir())
