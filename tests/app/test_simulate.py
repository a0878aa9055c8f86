"""`velora simulate`: recordings of cards and of videos."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from app.cli import main
from streams import open_source, synchronize
from tests.app.test_cli import lines


def test_simulate_writes_a_recording_and_its_labels(tmp_path: Path, capsys) -> None:
    out = tmp_path / "s p a c e.aedat4"
    assert main(["simulate", "cards", "--out", str(out), "--seconds", "0.5", "--seed", "3", "--ranks", "7,joker"]) == 0
    with open_source(out) as source:
        samples = list(synchronize(source))
        assert source.event_size == source.frame_size == (346, 260)
    assert len(samples) == pytest.approx(15, abs=1)
    assert all(s.has_rgb for s in samples)
    with open(tmp_path / "s p a c e.labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["recording"] for row in rows} == {"s p a c e.aedat4"}
    assert {row["label"] for row in rows} <= {"7", "JOKER", "no card"}
    assert int(rows[0]["start_us"]) <= samples[0].t_start_us and int(rows[-1]["end_us"]) >= samples[-1].t_end_us
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s p a c e.aedat4", "s p a c e.labels.csv"]


def test_an_interrupted_simulation_leaves_no_half_a_recording(tmp_path: Path, monkeypatch) -> None:
    def stop(*_: object, **__: object):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr("app.simulate.simulate_cards", stop)
    assert main(["simulate", "cards", "--out", str(tmp_path / "a.aedat4")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_unknown_ranks_are_named(tmp_path: Path, capsys) -> None:
    assert main(["simulate", "cards", "--out", str(tmp_path / "a.aedat4"), "--ranks", "A,1"]) == 1
    assert "1" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["--out {0}", "--out {0}/a.aedat4 --seed -1", "--out {0}/a.aedat4 --seconds 0"])
def test_simulate_refuses_the_impossible_before_it_begins(tmp_path: Path, capsys, arguments: str) -> None:
    try:
        code = main(["simulate", "cards", *arguments.format(tmp_path).split()])
    except SystemExit as wrong_usage:
        code = wrong_usage.code
    assert code in (1, 2) and capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_simulate_turns_a_video_into_a_recording_that_replays(tmp_path: Path, capsys) -> None:
    from tests.streams.test_video import bar, write_video

    video = write_video(tmp_path / "bar.avi", bar(30, step=2))
    out = tmp_path / "made" / "bar.aedat4"
    assert main(["simulate", str(video), "--out", str(out), "--sensor", "ideal"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["bar.aedat4"]
    assert main(["replay", str(out), "--json", "--speed", "max", "--stride", "2"]) == 0
    captured = capsys.readouterr()
    assert len(lines(captured.out)) == 29 - 14 and "29 samples" in captured.err


def test_simulate_and_record_replace_nothing_unasked(tmp_path: Path, capsys, small_recording: Path) -> None:
    from tests.streams.test_video import bar, write_video

    out, video = tmp_path / "a.aedat4", write_video(tmp_path / "bar.avi", bar(8, step=2))
    mine = out.with_name("a.labels.csv")
    mine.write_text("by hand")
    line = ["simulate", "cards", "--seconds", "0.2", "--out", str(out)]
    assert main(line) == 1 and f"{mine} is there already" in capsys.readouterr().err
    assert main([*line, "--force"]) == 0 and "recording,start_us" in mine.read_text()
    assert main(["simulate", str(video), "--out", str(out.with_name("b.aedat4"))]) == 0
    out.with_name("b.labels.csv").write_text("of what was there")
    assert main(["simulate", str(video), "--out", str(out.with_name("b.aedat4")), "--force"]) == 0
    assert not out.with_name("b.labels.csv").exists()
    assert main(line) == 1 and f"{out} is there already" in capsys.readouterr().err
    before = video.read_bytes()
    for command in (
        ["simulate", str(video), "--out", str(video), "--force"],
        ["record", str(small_recording), str(video), "--rgb", str(video), "--force"],
    ):
        assert main(command) == 1 and "choose another name" in capsys.readouterr().err
        assert video.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cards --layout images", "--layout is for a set of scenes: add --scenes N"),
        ("nowhere.mp4 --layout images", "--layout is for a set of scenes"),
        ("cards --scenes 3 --sensor ideal", "--sensor is for a single recording"),
        ("nowhere.mp4", "nowhere.mp4: no such file; simulate takes `cards` or a video"),
        ("cards --sensor ideal", "--sensor is for videos"),
        ("nowhere.mp4 --ranks A", "--ranks is for `simulate cards`"),
        ("nowhere.mp4 --lamp 0.5", "--lamp is for `simulate cards`"),
    ],
)
def test_simulate_says_what_does_not_fit(tmp_path: Path, capsys, arguments: str, message: str) -> None:
    assert main(["simulate", *arguments.split(), "--out", str(tmp_path / "a.aedat4")]) == 1
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
