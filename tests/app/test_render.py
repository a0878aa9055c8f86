"""`velora render`: recordings as videos that browsers play, with labels burnt in."""

from __future__ import annotations

import json
import signal
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.film.film import beside, read_film
from app.film.make import Look, clock_of
from app.label_file import LabelRow, write_label_rows
from app.labelling.inputs import Recording
from app.render_video import _rows
from streams import write_aedat4
from streams.aedat4_reader import Aedat4Reader
from streams.items import EventPacket
from streams.render import OFF, ON
from tests.app.conftest import write_square
from tests.app.label_outputs import START_US, at, run
from tests.app.test_page import ARGUMENTS, CHROMIUM
from tests.app.test_sources import KINDS
from tests.conftest import moving_square, random_events

av = pytest.importorskip("av")


def pictures(video: Path) -> np.ndarray:
    """All of them, uint8 [n, H, W, 3]."""
    with av.open(f"file:{video}") as file:
        return np.array([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def rendered(folder: Path, *options: object, frames: int = 20) -> tuple[Path, str]:
    """A recording and its video; what was said."""
    recording = write_square(folder / "a.aedat4", frames)
    code, stdout, stderr = run("render", recording, "--out", folder / "a.mp4", *options)
    assert (code, stdout) == (0, ""), stderr
    return folder / "a.mp4", stderr


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def test_browsers_play_it_from_the_first_byte(tmp_path: Path) -> None:
    video, _ = rendered(tmp_path)
    data = video.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(video)) as file:
        (stream,) = file.streams
        assert (stream.codec_context.name, stream.pix_fmt, stream.profile) == ("h264", "yuv420p", "High")
        assert (stream.average_rate, stream.frames, stream.start_time) == (30, 20, 0)
        assert stream.width % 2 == stream.height % 2 == 0
        assert [frame.time for frame in file.decode(stream)] == pytest.approx([k / 30 for k in range(20)])


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_a_browser_plays_it(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    rendered(tmp_path, "--fps", "10")
    (tmp_path / "page.html").write_text('<video muted src="a.mp4"></video>')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_page()
        tab.goto(f"file://{tmp_path}/page.html")
        if not tab.evaluate("document.querySelector('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')"):
            pytest.skip("this Chromium has no H.264")
        tab.wait_for_function("document.querySelector('video').readyState >= 2")
        tab.evaluate("document.querySelector('video').play()")
        tab.wait_for_function("document.querySelector('video').ended", timeout=10_000)
        shown = "[v.duration, v.videoWidth, v.error]"
        assert tab.evaluate(f"(v => {shown})(document.querySelector('video'))") == [0.7, 1088, None]
        browser.close()


def test_each_sample_has_its_picture_rgb_beside_events(tmp_path: Path) -> None:
    video, _ = rendered(tmp_path)
    found = pictures(video)
    factor = found.shape[2] // (2 * 64 + 8)
    assert factor > 1, "a small sensor is enlarged"
    for k, picture in enumerate(found):
        small = picture[factor // 2 :: factor, factor // 2 :: factor][:48, : 2 * 64 + 8]
        bright = np.flatnonzero(small[20, :64, 0] > 150)
        assert (bright.min(), bright.max()) == ((3 * k) % 52, (3 * k) % 52 + 11)
        assert (small[:, 72:] > 200).all(axis=2).mean() > 0.8, "events are on white"


def test_single_events_keep_their_colours(tmp_path: Path) -> None:
    packet = EventPacket(0, 33_333, random_events(60, 0, 33_333, seed=3))
    with write_aedat4(tmp_path / "e.aedat4", (64, 48), None) as writer:
        writer.write(packet)
    assert run("render", tmp_path / "e.aedat4", "--out", tmp_path / "e.mp4")[0] == 0
    picture = pictures(tmp_path / "e.mp4")[0]
    factor = picture.shape[1] // 64
    last = {(int(e["x"]), int(e["y"])): bool(e["p"]) for e in sorted(packet.events, key=lambda e: -int(e["p"]))}
    for (x, y), on in last.items():
        middle = picture[y * factor + factor // 2, x * factor + factor // 2].astype(int)
        assert np.abs(middle - (ON if on else OFF)).max() < 40


def test_where_its_pictures_are_in_time_is_told_in_the_file_and_beside_it(tmp_path: Path) -> None:
    video, stderr = rendered(tmp_path)
    told = json.loads((tmp_path / "a.video.json").read_text())
    assert (told["origin_us"], told["fps"], told["pictures"], told["seconds"]) == (START_US, 30, 20, 0.666667)
    assert (told["recording"], told["source"]) == ("a.aedat4", str(tmp_path / "a.aedat4"))
    assert told["panes"] == ["rgb", "events"]
    with av.open(str(video)) as file:
        inside = json.loads(file.metadata["comment"])
        assert (told["width"], told["height"]) == (file.streams[0].width, file.streams[0].height)
    assert inside.items() <= told.items() and {"origin_us", "fps", "width", "height"} <= inside.keys()
    assert stderr == f"{video}: 0.7 s, 20 pictures, 30 a second\n"
    film = read_film(video)
    assert film is not None and film.clock == clock_of(tmp_path / "a.aedat4", Look())


def test_another_rate_and_other_panes(tmp_path: Path) -> None:
    video, _ = rendered(tmp_path, "--fps", "12.5", "--panes", "motion,events,rgb", "--flip", "horizontal")
    film = read_film(video)
    assert film is not None and film.panes == ("motion", "events", "rgb")
    assert (film.clock.fps, film.clock.pictures) == (Fraction(25, 2), 9)
    found = pictures(video)
    factor = found.shape[2] // (3 * 64 + 16)
    motion, rgb = found[5, :, : 64 * factor], found[5, :, 144 * factor :]
    assert motion.max() > 150 and (motion.max(axis=2) < 40).mean() > 0.3
    small = rgb[20 * factor + factor // 2, factor // 2 :: factor]
    bright = 63 - np.flatnonzero(small[:64, 0] > 150)
    assert bright.min() % 3 == 0 and len(bright) == 12, "it is mirrored as asked"


@pytest.mark.parametrize(("kind", "panes"), [("aedat 2", ["events"]), ("images", ["rgb", "events"])])
def test_what_a_recording_lacks_is_not_shown(tmp_path: Path, kind: str, panes: list[str]) -> None:
    recording = KINDS[kind][0](tmp_path)
    assert run("render", recording, "--out", tmp_path / "x.mp4")[0] == 0
    told = json.loads((tmp_path / "x.video.json").read_text())
    assert told["panes"] == panes and told["pictures"] == 60


class TestLabels:
    """What is burnt in."""

    @staticmethod
    def bands(video: Path) -> tuple[np.ndarray, np.ndarray]:
        """The band below the panes, where the label and where the time stands, of each picture."""
        found = pictures(video).astype(int)
        height, width = found.shape[1:3]
        band = found[:, 48 * (width // (2 * 64 + 8)) :]
        assert 20 < band.shape[1] < height / 4
        return band[:, :, : width // 2], band[:, :, width // 2 :]

    @pytest.mark.parametrize("name", ["a.labels.csv", "a.aedat4.labels.csv"])
    def test_the_label_of_the_moment_stands_below(self, tmp_path: Path, name: str) -> None:
        rows = [LabelRow("a.aedat4", at(0), at(5), "walk", 0.9), LabelRow("a.aedat4", at(5), at(12), "sit")]
        write_label_rows(tmp_path / name, rows)
        labels, times = self.bands(rendered(tmp_path)[0])
        changes = [k for k in range(1, 20) if np.abs(labels[k] - labels[k - 1]).max() > 60]
        assert changes == [5, 12]
        assert labels[0].max() > 200 and labels[8].max() > 200 and labels[15].max() < 200, "no label is faint"
        assert len([k for k in range(1, 20) if np.abs(times[k] - times[k - 1]).max() > 60]) >= 6, "time goes on"

    def test_one_file_may_hold_those_of_several(self, tmp_path: Path) -> None:
        rows = [LabelRow("b.aedat4", at(0), at(9), "sit"), LabelRow("a.aedat4", at(3), at(9), "walk")]
        write_label_rows(tmp_path / "all.csv", rows)
        labels, _ = self.bands(rendered(tmp_path, "--labels", tmp_path / "all.csv")[0])
        assert [k for k in range(1, 20) if np.abs(labels[k] - labels[k - 1]).max() > 60] == [3, 9]

    def test_recordings_of_one_name_in_several_folders_have_their_own(self, tmp_path: Path) -> None:
        rows = [LabelRow(f"{folder}/a.aedat4", at(0), at(9), folder) for folder in ("one", "two")]
        write_label_rows(tmp_path / "all.csv", [*rows, LabelRow("a.aedat4", at(9), at(12), "any")])
        found = Recording(tmp_path / "two" / "a.aedat4", "a.aedat4")
        assert [row.label for row in _rows(found, tmp_path / "all.csv") or ()] == ["two", "any"]

    def test_none_where_there_are_none_or_none_are_wanted(self, tmp_path: Path) -> None:
        bare = pictures(rendered(tmp_path)[0])
        write_label_rows(tmp_path / "a.labels.csv", [LabelRow("a.aedat4", at(0), at(5), "walk")])
        assert pictures(rendered(tmp_path)[0]).shape[1] > bare.shape[1]
        assert pictures(rendered(tmp_path, "--no-labels")[0]).shape == bare.shape

    def test_a_broken_file_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.labels.csv").write_text("recording,start_us,end_us,label\na.aedat4,5,x,walk\n")
        recording = write_square(tmp_path / "a.aedat4", 3)
        code, _, stderr = run("render", recording, "--out", tmp_path / "a.mp4")
        assert code == 1 and stderr.startswith(f"velora: {tmp_path / 'a.labels.csv'}, line 2: ")
        assert stderr.count("\n") == 1 and not (tmp_path / "a.mp4").exists()


def test_what_is_there_is_left_until_something_changes(tmp_path: Path) -> None:
    video, _ = rendered(tmp_path)
    recording, before = tmp_path / "a.aedat4", video.stat().st_mtime_ns

    def again(*options: object) -> bool:
        nonlocal before
        code, _, stderr = run("render", recording, "--out", video, *options)
        assert code == 0, stderr
        made, before = video.stat().st_mtime_ns != before, video.stat().st_mtime_ns
        assert made != ("is there already" in stderr)
        return made

    assert not again()
    assert again("--force")
    assert again("--panes", "rgb") and not again("--panes", "rgb") and again()
    write_label_rows(tmp_path / "a.labels.csv", [LabelRow("a.aedat4", at(0), at(5), "walk")])
    assert again() and not again()
    write_square(recording, 21)
    assert again() and not again()
    with video.open("ab") as file:
        file.write(b"cut")
    assert again(), "a video that is not the one that was made"


def test_a_folder_becomes_a_folder_and_what_is_broken_fails_alone(tmp_path: Path) -> None:
    names = ["day 1/walk, \"slow\"; ü: %d.aedat4", "day 2/walk, \"slow\"; ü: %d.aedat4", "=x.aedat4"]  # fmt: skip
    for name in names:
        write_square(tmp_path / "in" / name, 4)
    (tmp_path / "in" / "corrupt.aedat4").write_bytes(b"#!AER-DAT4.0\r\n" + bytes(range(256)))
    code, stdout, stderr = run("render", tmp_path / "in", "--out", tmp_path / "out")
    assert (code, stdout) == (1, "")
    assert {str(p.relative_to(tmp_path / "out")) for p in tmp_path.glob("out/**/*.mp4")} == {f"{n}.mp4" for n in names}
    assert all(len(pictures(tmp_path / "out" / f"{name}.mp4")) == 4 for name in names)
    assert stderr.splitlines()[-1] == f"{tmp_path / 'out'}: 3 rendered, 0 were there, 1 failed"
    assert f"{tmp_path / 'in' / 'corrupt.aedat4'}: " in stderr and not left_over(tmp_path)


def test_damage_is_shown_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    recording = write_square(tmp_path / "a.aedat4", 24)
    with Aedat4Reader(recording) as reader:
        cut = int(reader.index["offset"][36]) + 5
    recording.write_bytes(recording.read_bytes()[:cut])
    code, _, stderr = run("render", recording, "--out", tmp_path / "a.mp4")
    assert code == 0 and "bytes missing at the end" in stderr
    assert 10 < len(pictures(tmp_path / "a.mp4")) < 24


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    recording = write_square(tmp_path / "a.aedat4", 3)
    (tmp_path / "a.mp4").write_bytes(b"somebody's own")
    code, _, stderr = run("render", recording, "--out", tmp_path / "a.mp4")
    assert code == 1 and "a.mp4 is there already: choose another name, or --force to replace it" in stderr
    assert (tmp_path / "a.mp4").read_bytes() == b"somebody's own" and not beside(tmp_path / "a.mp4").exists()
    film = KINDS["video"][0](tmp_path).rename(tmp_path / "film.mp4")
    before = film.read_bytes()
    code, _, stderr = run("render", film, "--out", film, "--force")
    assert code == 1 and "is what is to be rendered: choose another name" in stderr and film.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.aedat4", "b.aedat4", "--out", "c.mp4"], "c.mp4 is for one recording, not for 2: let --out name a folder"),
        (["gone.aedat4", "--out", "c.mp4"], "gone.aedat4: no such file; check the path"),
        (["a.aedat4", "--out", "b.aedat4"], "b.aedat4 is a file; --out names a folder, or an .mp4"),
        (["a.aedat4", "--out", "c.mp4", "--panes", "x"], "there is no pane 'x', only rgb, events, motion"),
        (["a.aedat4", "--out", "c.mp4", "--labels", "no.csv"], "no.csv cannot be read (No such file or directory)"),
        (["a.aedat4", "--out", "c.avi"], "c.avi: videos are .mp4 files; let --out name one, or a folder"),
        (["webcam:0", "--out", "c.mp4"], "webcam:0 is live and has no end"),
        (["empty", "--out", "c.mp4"], "there is no recording among the inputs"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    for name in ("a", "b"):
        write_square(tmp_path / f"{name}.aedat4", 2)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run("render", *arguments)
    assert (code, stdout) == (1, "") and told in stderr and len(stderr.splitlines()) == 1
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize("rate", ["0", "-3", "nan", "1/0", "1000", "x"])
def test_a_rate_is_one_that_can_be_shown(tmp_path: Path, rate: str) -> None:
    with pytest.raises(SystemExit) as usage:
        run("render", tmp_path, "--out", "x.mp4", "--fps", rate)
    assert usage.value.code == 2


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = write_square(tmp_path / "a.aedat4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, stderr = run("render", recording, "--out", tmp_path / "a.mp4")
    assert (code, stderr) == (1, "velora: videos need PyAV: pip install 'velora-rgbe[export]'\n")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ctrl-C while picture number `count` is encoded."""
    from app.film.encoder import Encoder

    add, seen = Encoder.add, [0]

    def interrupted(self: Encoder, picture: Any) -> None:
        seen[0] += 1
        if seen[0] == count:
            signal.raise_signal(signal.SIGINT)
        add(self, picture)

    monkeypatch.setattr(Encoder, "add", interrupted)


def test_ctrl_c_leaves_whole_videos_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_square(tmp_path / "in" / f"{name}.aedat4", 60)
    interrupt_after(monkeypatch, 65)
    code, _, _ = run("render", tmp_path / "in", "--out", tmp_path / "out")
    assert code == 130
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.aedat4.mp4", "a.aedat4.video.json"]
    assert len(pictures(tmp_path / "out" / "a.aedat4.mp4")) == 60
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_is_one_line_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_square(tmp_path / "in" / f"{name}.aedat4", 3)
    full = OSError(28, "No space left on device", "x.mp4")
    monkeypatch.setattr("app.film.encoder.Encoder.add", lambda *_: (_ for _ in ()).throw(full))
    code, _, stderr = run("render", tmp_path / "in", "--out", tmp_path / "out")
    assert (code, stderr) == (
        1,
        "velora: x.mp4: No space left on device; make room, or choose another place\n",
    ) and not left_over(tmp_path)


def test_a_still_gap_is_shown_as_long_as_it_was(tmp_path: Path) -> None:
    items = [item for k, item in enumerate(moving_square(40)) if not 20 <= k < 60]
    with write_aedat4(tmp_path / "a.aedat4", (64, 48), (64, 48)) as writer:
        for item in items:
            writer.write(item)
    assert run("render", tmp_path / "a.aedat4", "--out", tmp_path / "a.mp4")[0] == 0
    found = pictures(tmp_path / "a.mp4").astype(int)
    assert len(found) == 40 and np.abs(found[15] - found[25]).max() < 40 < np.abs(found[8] - found[15]).max()
