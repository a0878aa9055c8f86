"""Every kind of recording goes the same way: info, replay, record, and the page."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from app.channel import Settings
from app.channels import Channels
from app.cli import main
from app.feed import open_feed
from app.viewer import Viewer
from streams import EventPacket, RgbFrame, open_source
from streams.items import Events, join_events
from tests.app.fakes import FakeRecognizer, until
from tests.conftest import random_events
from tests.streams import test_aedat2, test_aedat3, test_hdf5, test_prophesee

EVENTS = random_events(4_000, 1_000_000, 3_000_000, (128, 96))


def _aedat2(folder: Path) -> Path:
    pairs = test_aedat2.pairs_of("DVS128", EVENTS)
    return test_aedat2.write(folder / "a.aedat", pairs, test_aedat2.header("DVS128"))


def _aedat3(folder: Path) -> Path:
    return test_aedat3.write(folder / "a.aedat", test_aedat3.packets(EVENTS))


def _raw(folder: Path) -> Path:
    return test_prophesee.write(folder, "a.raw", b"% geometry 128x96\n% evt 2.0\n% end\n" + test_prophesee.evt2(EVENTS))


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        test_hdf5.columns(file, events=EVENTS)
    return folder / "a.h5"


def _images(folder: Path) -> Path:
    clip = folder / "dvSave-1"
    for kind in ("aps", "dvs"):
        (clip / f"dvSave-1_{kind}").mkdir(parents=True)
        for number in range(60):
            cv2.imwrite(str(clip / f"dvSave-1_{kind}" / f"{number:08d}.png"), np.full((26, 34, 3), number, np.uint8))
    return clip


def _video(folder: Path) -> Path:
    path = folder / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (128, 96))
    for k in range(60):
        image = np.full((96, 128, 3), 60, np.uint8)
        image[30:60, k : k + 30] = 220
        writer.write(image)
    writer.release()
    return path


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "aedat 2": (_aedat2, "AEDAT 2"),
    "aedat 3": (_aedat3, "AEDAT 3"),
    "raw": (_raw, "Prophesee or Event Stream"),
    "hdf5": (_hdf5, "HDF5"),
    "images": (_images, "folder of images"),
    "video": (_video, "video, its events are simulated"),
}


@pytest.fixture(params=KINDS)
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return KINDS[request.param][0](tmp_path)


def stored(uri: Path) -> tuple[Events, list[np.ndarray]]:
    with open_source(uri) as source:
        items = list(source)
    events = [item.events for item in items if isinstance(item, EventPacket)]
    return join_events(events), [item.image for item in items if isinstance(item, RgbFrame)]


@pytest.mark.parametrize("kind", KINDS)
def test_info_says_what_it_is_and_holds(tmp_path: Path, kind: str, capsys) -> None:
    make, called = KINDS[kind]
    assert main(["info", str(make(tmp_path)), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == called and facts["bytes"] > 1_000 and facts["damage"] == {}
    amounts = {stream["kind"]: stream["count"] for stream in facts["streams"]}
    expected = {"images": {"images of events": 60, "FRME": 60}, "video": {"FRME": 60}}
    assert amounts == expected.get(kind, {"EVTS": len(EVENTS)})
    assert main(["info", str(make(tmp_path / "again" if kind == "images" else tmp_path))]) == 0
    assert called in capsys.readouterr().out


def test_record_makes_aedat4_of_it(recording: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.aedat4"
    assert main(["record", str(recording), str(out)]) == 0
    (events, images), (copied, copied_images) = stored(recording), stored(out)
    assert np.array_equal(events, copied) and len(images) == len(copied_images)
    assert all(np.array_equal(a, b) for a, b in zip(images, copied_images, strict=True))
    assert ("images of events, which a recording cannot hold" in capsys.readouterr().err) == recording.is_dir()


def test_replay_labels_it(recording: Path, capsys) -> None:
    assert main(["replay", str(recording), "--json", "--speed", "max", "--stride", "4"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) > 20 and all(line["label"] for line in lines)


def test_events_alone_may_have_grey_frames(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.aedat4"
    assert main(["record", str(_aedat3(tmp_path)), str(out), "--rgb-from", "events"]) == 0
    events, images = stored(out)
    assert np.array_equal(events, EVENTS) and len(images) > 55 and images[30].std() > 1
    assert main(["record", str(out), str(tmp_path / "again.aedat4"), "--rgb-from", "events"]) == 1
    assert "grey frames are made for events without frames" in capsys.readouterr().err


def test_the_page_plays_it(recording: Path) -> None:
    arguments = Namespace(denoise=False, roi=None, flip=None, rotate=0)
    settings = Settings(opened=lambda uri: open_feed(arguments, uri))
    viewer = Viewer(Channels(settings), recording, FakeRecognizer())  # type: ignore[arg-type]
    until(lambda: viewer.channel.meters.source.per_second() and viewer.state()["labels"])
    state = viewer.state()
    assert not state["message"] and state["simulated"] == (recording.suffix == ".avi")
    viewer.close()


def test_the_page_is_given_recordings_by_the_command_line(tmp_path: Path, monkeypatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("app.demo.serve", lambda load, recordings, **more: given.update(recordings))
    path = _aedat2(tmp_path)
    assert main(["demo", str(path)]) == 0
    assert list(given.items())[0] == ("a.aedat", path) and "cards" in given
    assert main(["demo", str(tmp_path / "missing.aedat")]) == 1


def test_events_of_one_file_beside_the_frames_of_another(tmp_path: Path, capsys) -> None:
    events, video, matrix = _aedat3(tmp_path), _video(tmp_path), tmp_path / "h.txt"
    matrix.write_text("1 0 0\n0 0.75 0\n0 0 1\n")
    both = [str(events), "--rgb", str(video), "--rgb-homography", str(matrix)]
    out = tmp_path / "out.aedat4"
    assert main(["record", both[0], str(out), *both[1:]]) == 0
    copied, images = stored(out)
    assert np.array_equal(copied, EVENTS) and len(images) == 60 and images[0].shape == (128, 128, 3)
    assert main(["replay", *both, "--json", "--speed", "max", "--stride", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 20
    assert main(["replay", str(events), "--rgb-offset-ms", "5"]) == 1
    assert "rgb_offset_ms needs rgb: where the frames come from" in capsys.readouterr().err
    assert main(["replay", str(events), "--rgb", "webcam:0"]) == 1
    assert "beside a recording only the frames of a video" in capsys.readouterr().err


def test_options_for_what_is_named_do_not_bar_what_the_page_offers_beside_it(tmp_path: Path, monkeypatch) -> None:
    sizes: list[tuple[int, int] | None] = []

    def offer(load: object, recordings: dict[str, Path], *, settings: Settings, **more: object) -> None:
        for uri in recordings.values():
            with settings.opened(uri) as source:
                sizes.append(source.event_size)

    monkeypatch.setattr("app.demo.serve", offer)
    assert main(["demo", str(_video(tmp_path)), "--size", "64x48"]) == 0
    assert sizes == [(64, 48), (346, 260)]


def test_an_aedat_of_a_version_to_come_says_which(tmp_path: Path, capsys) -> None:
    path = tmp_path / "new.aedat"
    path.write_bytes(b"#!AER-DAT5.1\r\n" + bytes(100))
    assert main(["replay", str(path)]) == 1
    assert "new.aedat: AEDAT 5.1 is not known" in capsys.readouterr().err


def test_sources_of_one_name_are_all_offered(small_recording: Path, tmp_path: Path, monkeypatch) -> None:
    """And what the program brings takes no name from them."""
    offered: dict[str, object] = {}
    monkeypatch.setattr("app.demo.serve", lambda _, sources, **__: offered.update(sources))
    names = ["a/walk.aedat4", "b/walk.aedat4", "cards"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(small_recording, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *names]) == 0
    assert {name: str(place) for name, place in offered.items()} == {
        "walk.aedat4": "a/walk.aedat4",
        "b/walk.aedat4": "b/walk.aedat4",
        "cards": "cards",
    }
