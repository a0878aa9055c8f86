"""`velora label` end to end: what it writes, says and returns; the same labels as replay."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.cli import main
from app.datasets import open_dataset
from app.labelling.notes import BOOKS
from streams.aedat4_reader import Aedat4Reader
from tests.app.conftest import write_square
from tests.app.test_sources import KINDS
from tests.conftest import SMALL_CLIP, SmallClip

OPTIONS = ["--stride", "1", "--hop", "16"]  # a window in two samples' time


@dataclass(frozen=True)
class Labelled:
    """A folder of recordings, and what labelling it gave."""

    inputs: Path
    out: Path
    code: int
    stdout: str
    stderr: str


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def index(out: Path) -> dict[str, dict[str, str]]:
    found = rows(out / "index.csv")
    assert len({row["source"] for row in found}) == len(found)
    return {row["recording"]: row for row in found}


def run(arguments: Sequence[str]) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(arguments)
    return code, stdout.getvalue(), stderr.getvalue()


def label(inputs: Path, out: Path, *more: str) -> tuple[int, str, str]:
    return run(["label", str(inputs), "--out", str(out), *OPTIONS, *more])


def replayed(path: Path, *options: str) -> list[dict[str, Any]]:
    code, stdout, _ = run(["replay", str(path), "--json", "--speed", "max", *options])
    assert code == 0
    return [json.loads(line) for line in stdout.splitlines()]


def assert_same(windows: Sequence[dict[str, Any]], predictions: Sequence[dict[str, Any]]) -> None:
    """Labels and times to the last bit; confidences but for what rounding in another batch makes of them."""
    told = [(w["start_us"], w["end_us"], w["label"], w["unsure"]) for w in windows]
    assert told == [(p["t_start_us"], p["t_end_us"], p["label"], p["unsure"]) for p in predictions]
    for window, prediction in zip(windows, predictions, strict=True):
        assert window["confidence"] == pytest.approx(prediction["confidence"], abs=1e-5)
        likely = {label: pytest.approx(p, abs=1e-5) for label, p in prediction["topk"]}
        assert dict(window["topk"]) == likely


ODD = ('day 1/walk, "slow"; ü.aedat4', 'day 2/walk, "slow"; ü.aedat4', "=SUM(A1).aedat4", "-x.aedat4", "@home.aedat4")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """Recordings of all kinds with names of all kinds, some of them broken, labelled in one go by two workers."""
    folder = tmp_path_factory.mktemp("label")
    inputs, out = folder / "in", folder / "out"
    for number, name in enumerate(ODD):
        write_square(inputs / name, 10 + number)
    for kind in ("aedat 2", "raw", "hdf5", "images", "video"):
        (inputs / "kinds").mkdir(exist_ok=True)
        KINDS[kind][0](inputs / "kinds")
    (inputs / "more").mkdir()
    KINDS["aedat 3"][0](inputs / "more")
    write_square(inputs / "kinds" / "a.aedat4", 12)
    write_square(inputs / "kinds" / "dvSave-1.aedat4", 12)
    whole = write_square(inputs / "damaged" / "cut.aedat4", 24)
    with Aedat4Reader(whole) as reader:
        cut = int(reader.index["offset"][36]) + 5
    whole.write_bytes(whole.read_bytes()[:cut])
    (inputs / "damaged" / "corrupt.aedat4").write_bytes(b"#!AER-DAT4.0\r\n" + bytes(range(256)) * 20)
    (inputs / "damaged" / "empty.aedat4").touch()
    write_square(inputs / "short.aedat4", 3)
    write_square(inputs / ".hidden" / "x.aedat4", 3)
    (inputs / "notes.txt").write_text("nothing to see")
    return Labelled(inputs, out, *label(inputs, out, "--jobs", "2", "--json"))


GOOD = (
    *ODD,
    *(f"kinds/{name}" for name in ("a.aedat4", "a.aedat", "a.raw", "a.h5", "a.avi", "dvSave-1", "dvSave-1.aedat4")),
    *("more/a.aedat", "damaged/cut.aedat4"),
)
BAD = ("damaged/corrupt.aedat4", "damaged/empty.aedat4")


def test_the_output_mirrors_the_input(labelled: Labelled) -> None:
    found = {p.relative_to(labelled.out).as_posix() for p in labelled.out.rglob("*") if p.is_file()}
    expected = {f"{name}{end}" for name in (*GOOD, "short.aedat4") for end in (".windows.jsonl", ".labels.csv")}
    assert {name for name in found if not name.startswith(BOOKS)} == expected | {"index.csv", "run.json"}
    assert not [name for name in found if name.endswith(".part")]


@pytest.mark.parametrize("name", GOOD)
def test_the_labels_are_those_of_replay(labelled: Labelled, name: str) -> None:
    windows = lines(labelled.out / f"{name}.windows.jsonl")
    assert windows and {window["recording"] for window in windows} == {name}
    assert_same(windows, replayed(labelled.inputs / name, *OPTIONS))


def test_what_failed_is_told_and_stops_nothing_else(labelled: Labelled) -> None:
    assert labelled.code == 1
    told = labelled.stderr.splitlines()
    assert told[-3] == "2 failed:"
    assert told[-2].startswith("  damaged/corrupt.aedat4: ") and told[-1].startswith("  damaged/empty.aedat4: ")
    assert "the file is empty; record or copy it again" in told[-1]
    entries = index(labelled.out)
    assert {name for name, row in entries.items() if row["status"] == "failed"} == set(BAD)
    run = json.loads((labelled.out / "run.json").read_text())
    assert [failure["recording"] for failure in run["failures"]] == list(BAD) and all(
        f["reason"] for f in run["failures"]
    )


def test_damage_that_leaves_labels_is_a_remark(labelled: Labelled) -> None:
    row = index(labelled.out)["damaged/cut.aedat4"]
    assert row["status"] == "done" and "bytes missing at the end" in row["remarks"] and int(row["windows"]) > 0
    assert "simulated" in index(labelled.out)["kinds/a.avi"]["remarks"]


def test_a_recording_without_a_whole_window_is_done_and_says_so(labelled: Labelled) -> None:
    row = index(labelled.out)["short.aedat4"]
    assert (row["status"], row["windows"], row["spans"], row["samples"]) == ("done", "0", "0", "3")
    assert row["remarks"] == "no window: 8 frames at stride 1 need 8 samples without a gap, it has 3"
    assert lines(labelled.out / "short.aedat4.windows.jsonl") == []


def test_the_index_has_a_row_for_each_and_no_cell_that_would_run(labelled: Labelled) -> None:
    found = rows(labelled.out / "index.csv")
    names = [row["recording"] for row in found]
    assert sorted(name.removeprefix("'") for name in names) == sorted((*GOOD, *BAD, "short.aedat4"))
    assert {"'=SUM(A1).aedat4", "'-x.aedat4", "'@home.aedat4"} <= set(names)
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in found for cell in row.values())


def test_run_json_tells_versions_settings_counts_and_speed(labelled: Labelled) -> None:
    told = json.loads((labelled.out / "run.json").read_text())
    assert told["state"] == "finished" and told["versions"]["torch"] and told["model"]["name"] == "demo"
    windows = sum(len(lines(path)) for path in labelled.out.rglob("*.windows.jsonl"))
    assert told["counts"] == {
        "recordings": len(GOOD) + 3,
        "skipped": 0,
        "done": len(GOOD) + 1,
        "failed": 2,
        "windows": windows,
        "spans": sum(len(rows(path)) for path in labelled.out.rglob("*.labels.csv")),
        "with_remarks": sum(bool(row["remarks"]) for row in rows(labelled.out / "index.csv")),
    }
    assert told["settings"]["stride"] == 1 and told["settings"]["hop"] == 16
    speed = told["throughput"]
    assert speed["events"] == sum(int(row["events"]) for row in rows(labelled.out / "index.csv")) > 10_000
    assert 0 < speed["model_seconds"] < speed["seconds"] and speed["reader_seconds"] > 0
    some = lines(labelled.out / "kinds" / "a.raw.windows.jsonl")[0]
    assert (some["model"], some["settings"]) == (told["model"]["digest"], told["settings"]["digest"])


def test_json_lines_tell_how_it_goes(labelled: Labelled) -> None:
    told = [json.loads(line) for line in labelled.stdout.splitlines()]
    assert told[0] == {"event": "begin", "recordings": len(GOOD) + 3, "skipped": 0}
    ended = [line for line in told if line["event"] == "recording"]
    assert {line["recording"] for line in ended} == {*GOOD, *BAD, "short.aedat4"}
    progress = [line for line in told if line["event"] == "progress"]
    assert progress and [line["share"] for line in progress] == sorted(line["share"] for line in progress)
    assert {"events_per_s", "real_time_factor", "left_s", "done", "failed"} <= set(progress[-1])
    assert told[-1]["event"] == "end" and (told[-1]["state"], told[-1]["failed"]) == ("finished", 2)


def test_a_second_run_skips_what_is_finished_and_tries_again_what_failed(
    labelled: Labelled, readers_in_threads: None
) -> None:
    before = {path: path.stat().st_mtime_ns for path in labelled.out.rglob("*.windows.jsonl")}
    code, stdout, stderr = label(labelled.inputs, labelled.out)
    assert code == 1 and stdout == ""
    assert f"{len(GOOD) + 1} of {len(GOOD) + 3} recordings are finished, and skipped" in stderr
    assert {path: path.stat().st_mtime_ns for path in labelled.out.rglob("*.windows.jsonl")} == before
    assert set(index(labelled.out)) == {f"'{n}" if n[0] in "=-@" else n for n in (*GOOD, *BAD, "short.aedat4")}


def test_overlapping_windows_and_spans(small_recording: Path, tmp_path: Path, readers_in_threads: None) -> None:
    """Every sample a label, a batch that mixes recordings, the model's own stride and spans."""
    copy = write_square(tmp_path / "in" / "b.aedat4", 37)
    inputs = [str(small_recording), str(copy), "--jobs", "2", "--stride", "2", "--min-confidence", "0"]
    code, _, _ = run(["label", *inputs, "--out", str(tmp_path / "out"), "--steady", "1", "--min-span-ms", "0"])
    assert code == 0
    for path in (small_recording, copy):
        windows = lines(tmp_path / "out" / f"{path.name}.windows.jsonl")
        predictions = replayed(path, "--stride", "2")
        assert len(predictions) > 20 and not any(window["unsure"] for window in windows)
        assert_same(windows, [{**prediction, "unsure": False} for prediction in predictions])
        spans = rows(tmp_path / "out" / f"{path.name}.labels.csv")
        assert {span["recording"] for span in spans} == {path.name}
        told = [(w["start_us"], w["end_us"], w["label"]) for w in windows]
        ends = [
            (b[1], a[2]) for a, b in zip(told, [*told[1:], (0, 0, "")], strict=True) if a[2] != b[2]
        ]  # where the label changes
        assert [span["label"] for span in spans] == [label for _, label in ends]
        assert int(spans[0]["start_us"]) == windows[0]["start_us"] and int(spans[-1]["end_us"]) == windows[-1]["end_us"]
        assert all(a["end_us"] == b["start_us"] for a, b in zip(spans, spans[1:], strict=False))


def test_the_spans_can_be_trained_on(tmp_path: Path, readers_in_threads: None, pool_in_this_process: None) -> None:
    for name in ("=a, b", "-c", "d"):
        write_square(tmp_path / "in" / f"{name}.aedat4", 16)
    options = ["--stride", "1", "--hop", "4", "--min-confidence", "0", "--min-span-ms", "0"]
    assert run(["label", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])[0] == 0
    found = [row for path in sorted((tmp_path / "out").glob("*.labels.csv")) for row in rows(path)]
    with (tmp_path / "in" / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    clips = [
        clip
        for split in ("train", "val", "test")
        for clip in open_dataset(str(tmp_path / "in"), split, tmp_path / "cache", size=32).clips
    ]
    assert sorted(clip.name for clip in clips) == ["-c.aedat4", "=a, b.aedat4", "d.aedat4"]
    assert sum(len(clip.spans) for clip in clips) == len(found) >= 3


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_windows_are_the_same_in_each_format(labelled: Labelled, two: Path, tmp_path: Path, kind: str) -> None:
    odd = write_square(two / "=1, 'ü'.aedat4", 20)
    out = tmp_path / "out"
    assert label(two, out)[0] == 0
    expected = {path.name.removesuffix(".windows.jsonl"): lines(path) for path in out.glob("*.jsonl")}
    assert label(two, out, "--format", kind, "--force")[0] == 0
    assert sorted(out.glob("*.windows.*")) == sorted(out / f"{p.name}.windows.{kind}" for p in two.iterdir())
    for name, windows in expected.items():
        path = out / f"{name}.windows.{kind}"
        if kind == "parquet":
            found = pq.read_table(path).to_pylist()
            for row in found:
                row["topk"] = [[likely["label"], likely["confidence"]] for likely in row["topk"]]
        elif kind == "csv":
            found = [_from_csv(row) for row in rows(path)]
            assert (name == odd.name) == found[0].pop("was_formula")
            for row in found[1:]:
                row.pop("was_formula")
        else:
            found = lines(path)
        stamped = [{**row, "settings": windows[0]["settings"]} for row in found]
        assert len({row["settings"] for row in found}) == 1 and stamped == windows


def _from_csv(row: dict[str, str]) -> dict[str, Any]:
    return {
        **row,
        "recording": row["recording"].removeprefix("'"),
        "was_formula": row["recording"].startswith("'="),
        "start_us": int(row["start_us"]),
        "end_us": int(row["end_us"]),
        "confidence": float(row["confidence"]),
        "unsure": row["unsure"] == "1",
        "topk": json.loads(row["topk"]),
    }


def test_the_users_own_words(two: Path, tmp_path: Path, small_clip: SmallClip) -> None:
    words = ["--labels", "=waving, a square,+1", "--model", SMALL_CLIP, "--weights", str(small_clip.file)]
    assert label(two, tmp_path / "out", *words, "--format", "csv")[0] == 0
    (row,) = rows(tmp_path / "out" / "a.aedat4.windows.csv")
    likely = dict(json.loads(row["topk"]))
    assert set(likely) == {"=waving", "a square", "+1"} and row["label"].removeprefix("'") in likely
    for told in [*rows(tmp_path / "out" / "a.aedat4.labels.csv"), row]:
        assert not told["label"].startswith(("=", "+"))
    assert (
        label(two, tmp_path / "out", *words[:1], "walking,+1", *words[2:], "--dry-run")[1].count("another model") == 2
    )


def test_a_bar_for_people_and_nothing_in_a_pipe(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, stdout, stderr = label(two, tmp_path / "out")
    assert stdout == "" and "real time" in stderr and len(stderr.splitlines()) == 1
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "160")
    _, stdout, stderr = label(two, tmp_path / "out", "--force")
    assert stdout == "" and "2/2 recordings" in stderr and "M events/s" in stderr and "x real time" in stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.aedat4"], "nowhere.aedat4: no such file; check the path"),
        (["nowhere/*.aedat4"], "nowhere/*.aedat4: nothing has such a name"),
        (["webcam:0"], "webcam:0 is live and has no end: record it with `velora record`"),
        (["--list", "nowhere.txt"], "nowhere.txt cannot be read as UTF-8 text"),
        (["."], "there is no recording among the inputs"),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, stderr = run(["label", *arguments, "--out", "out"])
    assert code == 1 and stderr.startswith("velora: ") and told in stderr and len(stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_one_line_says_what_to_install(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    code, _, stderr = label(two, tmp_path / "out", "--format", "parquet")
    assert code == 1 and "pip install 'velora-rgbe[parquet]'" in stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--min-confidence", "1.5"], ["x", "--min-span-ms", "-1"], ["x", "--steady", "0"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["label", *arguments, "--out", str(tmp_path / "out")])
    assert caught.value.code == 2
