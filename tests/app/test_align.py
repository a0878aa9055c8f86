"""`velora align`: from two recordings of one hand to the option that puts them together."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.cli_live import add_align
from streams import RecordingError, write_aedat4
from streams.beside import Beside
from tests.streams.test_align import HEIGHT, WIDTH, events_of, frames_of, waved

SECONDS = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hand.aedat4 and hand.avi, whose first frame is 400 ms late, and other.avi, of another hand."""
    folder, rng, hand = tmp_path_factory.mktemp("align"), np.random.default_rng(0), waved(0)
    with write_aedat4(folder / "hand.aedat4", (WIDTH, HEIGHT)) as file:
        for packet in events_of(hand, SECONDS, rng):
            file.write(packet)
    for name, shown in (("hand.avi", hand[400:]), ("other.avi", waved(77))):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*"MJPG"), 30, (WIDTH, HEIGHT))
        for frame in frames_of(shown, SECONDS - 1, 0, rng):
            writer.write(frame.image)
        writer.release()
    return folder


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_align(parser.add_subparsers())
    arguments = parser.parse_args(["align", *map(str, words)])
    code: int = arguments.command(arguments)
    return code


def test_the_offset_is_told_as_the_option_to_use(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "new" / "align.png"
    assert run(recorded / "hand.aedat4", "--rgb", recorded / "hand.avi", "--out", picture) == 0
    option, offset = capsys.readouterr().out.split()[:2]
    assert option == "--rgb-offset-ms" and abs(float(offset) - 400) < 5
    height, width = cv2.imread(str(picture)).shape[:2]
    assert width > 600 and height > 500


def test_json_says_what_it_rests_on(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "a.png"
    assert run(recorded / "hand.aedat4", "--rgb", recorded / "hand.avi", "--seconds", 4, "--json", "--out", out) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sure"] and abs(told["offset_ms"] - 400) < 5 and told["option"].startswith("--rgb-offset-ms ")
    assert told["correlation"] > 0.8 and 100 < told["frames"] < 130 and told["events"] > 1_000
    assert told["picture"] == str(out) and told["reason"] == ""


def test_other_hands_are_unsure_and_no_number_is_told(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    words = (recorded / "hand.aedat4", "--rgb", recorded / "other.avi", "--out", tmp_path / "a.png")
    assert run(*words) == 1
    assert capsys.readouterr().out.startswith("unsure: ")
    assert run(*words, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["sure"] and told["offset_ms"] is None and told["option"] is None


def test_without_matplotlib_a_picture_that_was_asked_for_is_refused_at_once(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.report import NoMatplotlib

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.chdir(tmp_path)
    words = (recorded / "hand.aedat4", "--rgb", recorded / "hand.avi")
    with pytest.raises(NoMatplotlib, match=r"pip install 'velora-rgbe\[train\]'"):
        run(*words, "--out", "a.png")
    assert run(*words) == 0  # the number needs none
    told = capsys.readouterr()
    assert told.out.startswith("--rgb-offset-ms ") and "no picture: pictures need matplotlib" in told.err
    assert not list(tmp_path.iterdir())


def test_the_offset_is_told_where_no_picture_can_be_written(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    assert run(recorded / "hand.aedat4", "--rgb", recorded / "hand.avi", "--out", tmp_path / "file" / "a.png") == 0
    told = capsys.readouterr()
    assert told.out.startswith("--rgb-offset-ms ") and "no picture: " in told.err and "a.png cannot be" in told.err


def test_an_interrupted_run_tells_nothing(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    plain = Beside.__iter__

    def interrupted(self: Beside):  # type: ignore[no-untyped-def]
        for k, item in enumerate(plain(self)):
            if k == 20:
                signal.raise_signal(signal.SIGINT)
            yield item

    monkeypatch.setattr(Beside, "__iter__", interrupted)
    words = (recorded / "hand.aedat4", "--rgb", recorded / "hand.avi", "--out", tmp_path / "a.png")
    assert run(*words) == 130
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_what_cannot_be_opened_is_one_line(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="none.mp4: no such file"):
        run(recorded / "hand.aedat4", "--rgb", tmp_path / "none.mp4")
