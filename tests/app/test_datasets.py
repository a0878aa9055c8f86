"""Labelled data sets of every layout: what is read, into which split, and what is said of what cannot be."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.datasets import SPLITS, CardOptions, _mirrors, _recordings, open_dataset
from app.spans import SpanBook
from streams import EventPacket, RgbFrame, write_aedat4
from streams.files import file_fingerprint
from streams.items import EVENT_DTYPE
from streams.simulation.cards import T_START_US
from velora.training.clips import ClipSet

SIZE = 32
WIDTH, HEIGHT = 40, 30
FRAMES = 6
PERIOD_US = 33_333


@pytest.fixture(autouse=True)
def in_this_process(pool_in_this_process: None) -> None:
    """A process takes seconds to start; one test below has them."""


def write_recording(path: Path, seed: int = 0, frames: int = FRAMES) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aedat4(path, (WIDTH, HEIGHT), (WIDTH, HEIGHT)) as file:
        for k in range(frames):
            events = np.zeros(30, EVENT_DTYPE)
            events["t"] = np.sort(rng.integers(k * PERIOD_US, (k + 1) * PERIOD_US, 30))
            events["x"], events["y"] = rng.integers(0, WIDTH, 30), rng.integers(0, HEIGHT, 30)
            file.write(EventPacket(k * PERIOD_US, (k + 1) * PERIOD_US, events))
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            file.write(RgbFrame(k * PERIOD_US, k * PERIOD_US + 10_000, image))


def write_labels(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("recording", "start_us", "end_us", "label"), *rows])


def recordings(folder: Path, count: int, label: str = "wave") -> Path:
    for k in range(count):
        write_recording(folder / f"clip_{k}.aedat4", k)
    whole = FRAMES * PERIOD_US
    write_labels(
        folder / "labels.csv", [(f"clip_{k}.aedat4", 0, whole, label if k % 2 else "clap") for k in range(count)]
    )
    return folder


def images(folder: Path, *, lists: Iterable[str] = ("train", "val", "test"), step: int = 5) -> Path:
    """As HARDVS lays them out; their numbers are multiples of 5."""
    for number, name in enumerate(lists):
        lines = []
        for label, action in enumerate(("action_001", "action_002")):
            clip = f"dvSave-{number}_{label}"
            for kind in ("aps", "dvs"):
                place = folder / action / clip / f"{clip}_{kind}"
                place.mkdir(parents=True)
                for k in range(FRAMES):
                    value = 10 * k + label + (100 if kind == "dvs" else 0)
                    cv2.imwrite(str(place / f"{k * step:08d}.png"), np.full((HEIGHT, WIDTH, 3), value, np.uint8))
            lines.append(f"{action}/{clip} {FRAMES} {label}\n")
        (folder / f"{name}_label.txt").write_text("".join(lines))
    return folder


def opened(folder: Path, split: str = "train", **options: object) -> ClipSet:
    return open_dataset(str(folder), split, folder.parent / "cache", size=SIZE, **options)  # type: ignore[arg-type]


def test_recordings_with_labels(tmp_path: Path) -> None:
    found = opened(recordings(tmp_path / "set", 8))
    assert found.labels == ("clap", "wave") and found.mirrors and not found.skipped
    clip = found.clips[0]
    assert clip.times.shape == (FRAMES, 2) and clip.present.all()
    assert clip.breaks.tolist() == [True] + [False] * (FRAMES - 1)
    assert clip.images([0, 3]).shape == (2, 2, SIZE, SIZE, 3)
    assert [(span.start_us, span.label) for span in clip.spans] in ([(0, 0)], [(0, 1)])


@pytest.mark.parametrize("count", [3, 9, 25])
def test_no_recording_is_in_two_splits_and_none_in_no_split(tmp_path: Path, count: int) -> None:
    folder = recordings(tmp_path / "set", count)
    names = [[clip.name for clip in opened(folder, split).clips] for split in ("train", "val", "test")]
    assert all(names) and sorted(sum(names, [])) == sorted(f"clip_{k}.aedat4" for k in range(count))
    assert len(names[0]) >= max(len(names[1]), len(names[2]))


def test_recordings_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    folder, rows = tmp_path / "set", []
    for day in ("monday", "tuesday"):
        recordings(tmp_path / day, 3)
        (folder / "test").mkdir(parents=True, exist_ok=True)
        (tmp_path / day).rename(folder / "test" / day)
        lines = (folder / "test" / day / "labels.csv").read_text().splitlines()
        rows += lines[:1] if not rows else []
        rows += [f"{day}/{line}" for line in lines[1:]]
    (folder / "test" / "labels.csv").write_text("\n".join(rows) + "\n")
    names = [clip.name for clip in opened(folder, "test").clips]
    assert len(set(names)) == 6 and names[0] == "test/monday/clip_0.aedat4"


def test_folders_of_splits_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        recordings(tmp_path / "set" / split, count)
    assert [len(opened(tmp_path / "set", split).clips) for split in ("train", "val", "test")] == [3, 1, 2]
    assert opened(tmp_path / "set", "val").labels == ("clap", "wave")  # of all splits


def test_without_a_folder_for_validation_a_tenth_of_training_is_set_apart(tmp_path: Path) -> None:
    recordings(tmp_path / "set" / "train", 4)
    recordings(tmp_path / "set" / "test", 1)
    train, val = ({clip.name for clip in opened(tmp_path / "set", split).clips} for split in ("train", "val"))
    assert len(train) == 3 and len(val) == 1 and not train & val


def labelled_apart(folder: Path, count: int, label: str = "wave") -> Path:
    """Recordings with a label file each."""
    for k in range(count):
        path = folder / f"clip_{k}.aedat4"
        write_recording(path, k)
        own = [(path.name, 0, FRAMES * PERIOD_US, label if k % 2 else "clap")]
        write_labels(folder / f"clip_{k}.labels.csv", own)
    return folder


def test_label_files_beside_the_recordings_train_as_one_for_all_does(tmp_path: Path) -> None:
    folder, common = labelled_apart(tmp_path / "apart", 8), recordings(tmp_path / "set", 8)
    write_recording(folder / "nobody_said.aedat4")
    for split in ("train", "val", "test"):
        mine, theirs = opened(folder, split), opened(common, split)
        assert mine.labels == theirs.labels == ("clap", "wave")
        assert [clip.name for clip in mine.clips] == [clip.name for clip in theirs.clips]
        assert [clip.spans for clip in mine.clips] == [clip.spans for clip in theirs.clips]


def test_label_files_beside_the_recordings_in_folders_of_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        labelled_apart(tmp_path / "set" / split, count)
    assert [len(opened(tmp_path / "set", split).clips) for split in ("train", "val")] == [3, 2]


def test_one_file_for_all_is_the_only_one_that_counts(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "set", 4)
    write_labels(folder / "clip_0.labels.csv", [("clip_0.aedat4", 0, 9, "other")])
    assert opened(folder).labels == ("clap", "wave")


def test_corrections_of_a_person_are_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for k in range(3):
        write_recording(folder / f"clip_{k}.aedat4", k)
        book = SpanBook(folder / f"clip_{k}.aedat4", tmp_path / "user")
        book.mark(0, FRAMES * PERIOD_US, "walk")
        book.mark(PERIOD_US, 3 * PERIOD_US, "turn, then go")
    found = opened(folder)
    assert found.labels == ("turn, then go", "walk")
    assert [span.label for span in found.clips[0].spans] == [1, 0, 1]


def test_a_broken_label_file_is_named_among_many(tmp_path: Path) -> None:
    folder = labelled_apart(tmp_path / "set", 3)
    write_labels(folder / "clip_1.labels.csv", [("clip_1.aedat4", 0, 5, "a"), ("clip_1.aedat4", 9, 5, "a")])
    with pytest.raises(ValueError, match=r"clip_1\.labels\.csv, line 3: a span begins before it ends"):
        opened(folder)
    write_labels(folder / "clip_1.labels.csv", [("clip_0.aedat4", 5, 9, "a")])
    with pytest.raises(ValueError, match=r"clip_1\.labels\.csv: clip_0\.aedat4 has two labels at 5 us"):
        opened(folder)


def test_who_waits_hears_how_many_clips_have_been_read(tmp_path: Path) -> None:
    folder, heard = recordings(tmp_path / "set", 4), list[tuple[int, int]]()
    opened(folder, told=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 2), (2, 2)]
    opened(folder, told=lambda done, total: heard.append((done, total)))
    assert len(heard) == 2  # nothing had to be read


def test_links_to_recordings_elsewhere_are_followed(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "set", 3)
    (folder / "clip_0.aedat4").rename(tmp_path / "elsewhere.aedat4")
    (folder / "clip_0.aedat4").symlink_to(tmp_path / "elsewhere.aedat4")
    assert sum(len(opened(folder, split).clips) for split in ("train", "val", "test")) == 3


def test_images_as_hardvs_lays_them_out(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    found = opened(folder)
    assert found.labels == ("action_001", "action_002") and len(found.clips) == 2
    clip = found.clips[1]
    assert clip.times[:, 0].tolist() == [5 * k * PERIOD_US for k in range(FRAMES)]
    pixels = clip.images([2])[0, :, 0, 0, 0]
    assert pixels.tolist() == [21, 121]
    assert all(span.start_us <= clip.times[0, 0] and clip.times[-1, 1] <= span.end_us for span in clip.spans)
    (folder / "classes.txt").write_text("swing left\nclap\n")
    named = opened(folder, "test")
    assert named.labels == ("swing left", "clap") and not named.mirrors


def test_without_a_list_for_validation_a_tenth_of_training_is_set_apart(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    images(folder, lists=[f"part{k}" for k in range(20)])
    lines = "".join((folder / f"part{k}_label.txt").read_text() for k in range(20))
    (folder / "train_label.txt").write_text(lines)
    train, val = ({clip.name for clip in opened(folder, split).clips} for split in ("train", "val"))
    assert len(train) + len(val) == 40 and not train & val and 0 < len(val) < 15


def test_a_second_look_reads_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recordings(tmp_path / "set", 4)
    first = opened(folder)
    monkeypatch.setattr("app.clip_origins.open_source", None)
    second = opened(folder)
    assert np.array_equal(first.clips[0].images([0, 1]), second.clips[0].images([0, 1]))
    write_labels(folder / "labels.csv", [(f"clip_{k}.aedat4", 0, 999, "other") for k in range(4)])
    corrected = opened(folder)
    assert corrected.labels == ("other",) and corrected.clips[0].spans[0].end_us == 999


def test_a_corrupt_clip_is_named_left_out_and_counted(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "set", 30)
    broken = folder / f"{opened(folder).clips[0].name}"
    broken.write_bytes(b"no recording at all")
    found = opened(folder)
    assert len(found.skipped) == 1 and broken.name in found.skipped[0]
    assert broken.name not in {clip.name for clip in found.clips}


def test_many_corrupt_clips_end_it(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "set", 8)
    for path in folder.glob("*.aedat4"):
        path.write_bytes(b"no recording at all")
    with pytest.raises(ValueError, match=r"\d of \d clips of .*set cannot be read; the first: clip_"):
        opened(folder)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    place = next(folder.glob("action_001/*0_0/*_aps/00000005.png"))
    place.write_bytes(place.read_bytes()[:40])
    found = opened(folder)
    assert len(found.clips) == 1 and "00000005.png" in found.skipped[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("clip_0.aedat4", 0, "soon", "a")], "labels.csv, line 2: .*soon"),
        ([("clip_0.aedat4", 5, 5, "a")], "line 2: a span begins before it ends"),
        ([("clip_0.aedat4", 0, 5, " ")], "line 2: a span has a recording and a label"),
        ([("../clip_0.aedat4", 0, 5, "a")], "line 2: .*is not in this folder"),
        ([("clip_0.aedat4", 0, 9, "a"), ("clip_0.aedat4", 5, 12, "b")], "two labels at 5 us, 'a' and 'b'"),
    ],
)
def test_labels_that_make_no_sense(tmp_path: Path, rows: list[tuple[object, ...]], message: str) -> None:
    folder = recordings(tmp_path / "set", 3)
    write_labels(folder / "labels.csv", rows)
    with pytest.raises(ValueError, match=message):
        opened(folder)


def test_labels_that_the_model_lacks(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "set", 3)
    with pytest.raises(ValueError, match=r"line 3: the model has no label 'wave': train with --new-labels"):
        opened(folder, labels=("clap",))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("only_a_path\n", "train_label.txt, line 1: must be `class_dir/clip frames label`"),
        ("../../x/y 6 0\n", "line 1"),
        ("action_001/dvSave-0_0 6 1234567\n", "line 1"),
        ("action_001/dvSave-0_0 6 20000\n", "label 20000 is in a list; labels are below 20,000"),
        ("action_001/a 6 0\naction_002/b 6 0\n", "action_001 and action_002 both have label 0: name the classes"),
    ],
)
def test_lists_that_make_no_sense(tmp_path: Path, line: str, message: str) -> None:
    folder = images(tmp_path / "set")
    (folder / "train_label.txt").write_text(line)
    with pytest.raises(ValueError, match=message):
        opened(folder)


def test_a_listed_clip_whose_name_no_disk_takes_is_left_out(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    with (folder / "train_label.txt").open("a") as file:
        file.write(f"action_001/{'a' * 5000} 6 0\n")
    found = opened(folder)
    assert len(found.clips) == 2
    (left_out,) = found.skipped
    assert left_out.startswith("action_001/aaa") and "name too long" in left_out.lower()


def test_more_labels_than_names(tmp_path: Path) -> None:
    folder = images(tmp_path / "set")
    (folder / "classes.txt").write_text("clap\n")
    with pytest.raises(ValueError, match="label 1 is in a list, but classes.txt names 1 classes"):
        opened(folder)


def test_other_places(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder: give one with labels.csv or train_label.txt, or cards"):
        opened(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds neither labels.csv nor train_label.txt"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="there is no split 'all', only train, val, test"):
        open_dataset("cards", "all", tmp_path, size=SIZE)
    with pytest.raises(ValueError, match="cards:test is no folder"):  # only `evaluate` takes it so
        open_dataset("cards:test", "train", tmp_path, size=SIZE)
    with pytest.raises(ValueError, match="the model has other labels than the simulated cards: a, b"):
        open_dataset("cards", "test", tmp_path, size=SIZE, labels=("a", "b"))


def test_a_full_disk_is_not_the_clips_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = recordings(tmp_path / "set", 3)
    monkeypatch.setattr("app.frame_cache.FrameCache._encoded", full)
    with pytest.raises(OSError, match="No space left"):
        opened(folder)


def test_simulated_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.simulation.scenes.CardScene._end_us", T_START_US + 200_000)
    found = open_dataset("cards", "val", tmp_path, size=SIZE, options=CardOptions(2, "normal", "medium"))
    assert [clip.name for clip in found.clips] == ["val_00000_normal_medium", "val_00001_normal_medium"]
    assert len(found.labels) == 15 and not found.mirrors and len(found.clips[0].times) == 6
    events = found.clips[0].images([3])[0, 1]
    assert events.max() == 255 and events.min() < 225


def test_the_folder_of_a_recording_counts_for_its_split(tmp_path: Path) -> None:
    """Cameras write each recording under one name, into a folder of its own."""
    rows = []
    for k in range(100):
        (tmp_path / f"take_{k:03}").mkdir()
        rows.append(f"take_{k:03}/recording.aedat4,0,1000,card {k % 2}\n")
    (tmp_path / "labels.csv").write_text("recording,start_us,end_us,label\n" + "".join(rows))
    counts = [len(_recordings(tmp_path, split, None)[1]) for split in SPLITS]
    assert sum(counts) == 100 and counts[0] > 50 and min(counts) > 5


def test_more_recordings_move_few_to_another_split(tmp_path: Path) -> None:
    def splits(count: int) -> dict[str, str]:
        rows = "".join(f"{k}.aedat4,0,1000,card {k % 2}\n" for k in range(count))
        (tmp_path / "labels.csv").write_text("recording,start_us,end_us,label\n" + rows)
        return {entry.name: split for split in SPLITS for entry in _recordings(tmp_path, split, None)[1]}

    for count in (30, 59, 60, 120):
        before, after = splits(count), splits(count + 1)
        assert sum(after[name] != split for name, split in before.items()) <= count / 10


def test_a_clip_that_is_trained_on_is_not_asked_about(tmp_path: Path) -> None:
    (tmp_path / "train_label.txt").write_text("wave/a 8 0\nclap/b 8 1\n")
    (tmp_path / "val_label.txt").write_text("clap/c 8 1\n")
    (tmp_path / "test_label.txt").write_text("wave/./a 8 0\n")
    with pytest.raises(ValueError, match="test_label.txt: wave/a is trained on, too"):
        open_dataset(str(tmp_path), "train", tmp_path / "cache", size=32)


@pytest.mark.parametrize("label", ["L" * 201, "x\x1b[2Jy", "\u200d"])
def test_labels_that_no_model_can_have_are_named_before_anything_is_read(tmp_path: Path, label: str) -> None:
    (tmp_path / "labels.csv").write_text(f"recording,start_us,end_us,label\na.aedat4,0,1000,{label}\n")
    with pytest.raises(ValueError, match="labels.csv, line 2: a label must be printable text"):
        open_dataset(str(tmp_path), "train", tmp_path / "cache", size=32)


def test_images_without_names_of_classes_are_not_flipped(tmp_path: Path) -> None:
    assert not _mirrors(str(tmp_path), ("left", "up")) and _mirrors(str(tmp_path), ("down", "up"))
    (tmp_path / "train_label.txt").touch()
    assert not _mirrors(str(tmp_path), ("action_001", "action_002"))
    (tmp_path / "classes.txt").touch()
    assert _mirrors(str(tmp_path), ("down", "up"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_among_the_recordings_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.aedat4")
    with pytest.raises(OSError, match="is not a regular file"):
        file_fingerprint(tmp_path / "pipe.aedat4")
