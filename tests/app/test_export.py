"""`velora export`: what was labelled, as it is now, in the time of the videos that stand beside it."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.export.items import Span, lanes, one_line, spans_in
from app.export.names import key_of
from app.export.results import read_results
from app.film.film import Clock, read_film
from app.label_file import LabelRow, write_label_rows
from app.labelling.notes import Place, read_note, write_note
from tests.app.conftest import write_square
from tests.app.label_outputs import LABELS, PERIOD_US, SPANS, START_US, at, run, write_note_of, write_outputs, write_run
from tests.app.test_render import interrupt_after, left_over

pytest.importorskip("av")

ODD = ('day 1/walk, "slow"; ü.aedat4', 'day 2/walk, "slow"; ü.aedat4', "=SUM(A1).aedat4", "<b>&amp;#1?.aedat4")


def exported(folder: Path, *options: object, to: str = "csv") -> tuple[int, list[str]]:
    """Export `folder`/out to `folder`/ex; the exit code, and what was said."""
    code, stdout, stderr = run("export", folder / "out", "--to", to, "--out", folder / "ex", *options)
    assert stdout == "" and not left_over(folder)
    return code, stderr.splitlines()


def spans(folder: Path) -> list[dict[str, str]]:
    with (folder / "ex" / "spans.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def correct(out: Path, name: str, *rows: LabelRow) -> None:
    """Somebody edits the labels of a recording."""
    write_label_rows(Place(out, name).labels, rows)


class TestSpans:
    """From the recording's clock to the video's."""

    CLOCK = Clock(1_000_000, Fraction(30), 90)  # three seconds

    @pytest.mark.parametrize(
        ("start_us", "end_us", "expected", "cut", "outside"),
        [
            (1_000_000, 2_000_000, (0.0, 1.0), 0, 0),
            (900_000, 2_000_000, (0.0, 1.0), 0, 0),  # by less than one would notice
            (0, 2_000_000, (0.0, 1.0), 1, 0),
            (3_500_000, 9_000_000, (2.5, 3.0), 1, 0),
            (0, 9_000_000, (0.0, 3.0), 1, 0),
            (0, 1_000_000, None, 0, 1),
            (4_000_000, 5_000_000, None, 0, 1),
        ],
    )
    def test_they_are_inside_of_the_video(
        self, start_us: int, end_us: int, expected: tuple[float, float] | None, cut: int, outside: int
    ) -> None:
        found, *counts = spans_in([LabelRow("a", start_us, end_us, "x", 0.5)], self.CLOCK)
        assert [(span.start_s, span.end_s) for span in found] == ([expected] if expected else [])
        assert counts == [cut, outside]

    def test_the_end_of_a_video_may_be_unknown(self) -> None:
        (span,), cut, outside = spans_in([LabelRow("a", 0, 9_000_000, "x")], Clock(1_000_000, Fraction(30)))
        assert (span.start_s, span.end_s, cut, outside) == (0.0, 8.0, 1, 0)

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
    def test_those_of_one_lane_do_not_overlap_and_none_is_lost(self, pairs: list[tuple[int, int]]) -> None:
        made = [Span(start, start + long, 0, 0, f"{k}", None) for k, (start, long) in enumerate(pairs)]
        found = list(lanes(made))
        assert sorted(span.label for _, span in found) == sorted(span.label for span in made)
        for lane in {number for number, _ in found}:
            own = [span for number, span in found if number == lane]
            assert all(a.end_s <= b.start_s for a, b in zip(own, own[1:], strict=False))
        apart = all(a.end_s <= b.start_s for (_, a), (_, b) in zip(found, found[1:], strict=False))
        assert not apart or {number for number, _ in found} <= {0}, "one is enough where nothing overlaps"

    @pytest.mark.parametrize(
        ("label", "line"), [("a\tb\n c", "a b c"), (" x ", "x"), ("\x00\x1b[1m", "[1m"), ("\x07", "?")]
    )
    def test_a_label_is_one_line(self, label: str, line: str) -> None:
        assert one_line(label) == line


class TestNames:
    """Of files."""

    def test_equal_stems_differ_and_no_sign_is_odd(self) -> None:
        names = [
            *ODD,
            "a.raw",
            "a.aedat4",
            "a/b.raw",
            "a_b.raw",
            "A.raw",
            "日本語.raw",
            "한국.raw",
            "-",
            "x" * 300,
            "...",
        ]
        keys = [key_of(name) for name in names]
        assert len({key.lower() for key in keys}) == len(names)
        assert all(key.replace("-", "").replace("_", "").isalnum() and key.isascii() for key in keys)
        assert all(len(key) <= 71 and not key.startswith(("-", "_")) for key in keys)
        assert key_of(ODD[0]) == "day_1_walk_slow-f0263917bd", "it must stay what it was"

    @given(st.text(max_size=30))
    def test_any_name_has_one(self, name: str) -> None:
        assert key_of(name) == key_of(name) and "/" not in key_of(name)


def test_spans_are_in_the_time_of_the_video_beside_them(tmp_path: Path) -> None:
    write_outputs(tmp_path, {"a.aedat4": SPANS})
    code, told = exported(tmp_path)
    summary = "1 recording, 3 spans; 1 video rendered, 0 there before; README.txt says how to import them"
    assert (code, told) == (0, [f"{tmp_path / 'ex'}: {summary}"])
    rows = spans(tmp_path)
    for row, (start_us, end_us, label, confidence) in zip(rows, SPANS, strict=True):
        assert (int(row["start_us"]), row["label"], float(row["confidence"])) == (start_us, label, confidence)
        assert float(row["start_s"]) == pytest.approx((start_us - START_US) / 1e6)
        assert int(row["end_us"]) == pytest.approx(end_us, abs=PERIOD_US)
    (video,) = {row["video"] for row in rows}
    film = read_film(tmp_path / "ex" / video)
    assert film is not None and (film.clock.origin_us, film.recording) == (START_US, "a.aedat4")
    assert float(rows[-1]["end_s"]) <= film.clock.seconds


def test_corrections_are_exported_and_videos_not_made_again(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS, "b.aedat4": SPANS})
    assert exported(tmp_path)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ex").rglob("*.mp4")}
    correct(
        out,
        "a.aedat4",
        LabelRow("a.aedat4", 0, at(4), "drink"),  # begins before the recording, a new label, by a person
        LabelRow("a.aedat4", at(2), at(9), "walk", 0.9),  # overlaps
        LabelRow("a.aedat4", at(500), at(600), "sit"),  # outside
    )
    write_note_of(out, write_square(tmp_path / "in" / "b.aedat4", 22), "b.aedat4", SPANS, 22)  # labelled again
    code, told = exported(tmp_path)
    assert code == 0 and "1 video rendered, 1 there before" in told[0]
    assert told[1:] == [
        "spans cut, since they reach beyond their recordings: 1",
        "spans left out, since they are outside of their recordings: 1",
    ]
    own = [row for row in spans(tmp_path) if row["recording"] == "a.aedat4"]
    assert [(row["label"], row["confidence"]) for row in own] == [("drink", ""), ("walk", "0.9000")]
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {tmp_path / "ex" / "videos" / f"{key_of('b.aedat4')}.mp4"}


def test_rows_go_to_the_recordings_that_they_name(tmp_path: Path) -> None:
    """People merge files, and leave rows of what is elsewhere."""
    out = write_outputs(tmp_path, {"x/a.aedat4": (), "x/b.aedat4": (), "y/a.aedat4": SPANS[:1]})
    correct(
        out,
        "x/a.aedat4",
        LabelRow("b.aedat4", at(1), at(2), "sit"),
        LabelRow("a.aedat4", at(1), at(2), "walk"),
        LabelRow("../y/a.aedat4", at(6), at(8), "fall"),
        LabelRow("z.aedat4", at(1), at(2), "walk"),
    )
    code, told = exported(tmp_path)
    assert code == 0 and told[1] == "1 left out:"
    assert told[2] == f"  {out}/x/a.aedat4.labels.csv, line 5: 'z.aedat4' is no recording of {out}"
    found = [(row["recording"], row["label"]) for row in spans(tmp_path)]
    assert found == [("x/a.aedat4", "walk"), ("x/b.aedat4", "sit"), ("y/a.aedat4", "walk"), ("y/a.aedat4", "fall")]


def test_what_failed_or_has_gone_is_counted_and_told(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS, "b.aedat4": SPANS, "c.aedat4": SPANS, "d.aedat4": None})
    Place(out, "b.aedat4").labels.unlink()
    (tmp_path / "in" / "c.aedat4").unlink()
    code, told = exported(tmp_path)
    assert code == 1 and "1 recording, 3 spans" in told[0]
    assert told[1:] == [
        "3 left out:",
        "  d.aedat4: was not labelled: the file is empty; record or copy it again",
        f"  {out}/b.aedat4.labels.csv is gone: label the recording again",
        f"  {tmp_path}/in/c.aedat4 has gone or changed: --recordings ROOT looks for it below a folder; or "
        "label it again",
    ]


@pytest.mark.parametrize("way", ["mirrored", "renamed folders"])
def test_recordings_that_have_moved_are_found_below_a_root(tmp_path: Path, way: str) -> None:
    write_outputs(tmp_path, {"x/a.aedat4": SPANS, "y/a.aedat4": SPANS, "b.aedat4": SPANS})
    write_square(tmp_path / "in" / "y" / "a.aedat4", 25)  # so that they differ
    write_note_of(tmp_path / "out", tmp_path / "in" / "y" / "a.aedat4", "y/a.aedat4", SPANS, 25)
    if way == "mirrored":
        shutil.move(tmp_path / "in", tmp_path / "moved")
    else:
        for number, name in enumerate(("x/a.aedat4", "y/a.aedat4")):
            (tmp_path / "moved" / str(number)).mkdir(parents=True)
            shutil.copy(tmp_path / "in" / name, tmp_path / "moved" / str(number))
        shutil.move(tmp_path / "in" / "b.aedat4", tmp_path / "moved")
        shutil.rmtree(tmp_path / "in")
    code, told = exported(tmp_path, "--recordings", tmp_path / "moved")
    assert code == 0 and "3 recordings, 9 spans" in told[0]
    film = read_film(tmp_path / "ex" / "videos" / f"{key_of('y/a.aedat4')}.mp4")
    assert film is not None and film.clock.pictures == 25


def test_a_recording_that_is_nowhere_is_named(tmp_path: Path) -> None:
    write_outputs(tmp_path, {"a.aedat4": SPANS})
    shutil.rmtree(tmp_path / "in")
    write_square(tmp_path / "other" / "deep" / "a.aedat4", 3)  # its name, but not itself
    code, told = exported(tmp_path, "--recordings", tmp_path / "other")
    assert code == 1 and "0 recordings" in told[0]
    assert f"{tmp_path}/in/a.aedat4 has gone or changed, and is not below {tmp_path}/other" in told[2]


@pytest.mark.parametrize("way", [(), ("--no-video",)])
def test_a_note_that_names_what_was_not_labelled_opens_nothing(tmp_path: Path, way: tuple[str, ...]) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    private = write_square(tmp_path / "private" / "b.aedat4", 25)
    note = read_note(Place(out, "a.aedat4").note)
    assert note is not None
    write_note(Place(out, "a.aedat4"), replace(note, source=str(private)))
    code, told = exported(tmp_path, *way)
    assert code == 1 and f"{private} has gone or changed" in told[2]
    assert not list(tmp_path.rglob("*.mp4"))


def test_without_videos_times_are_those_that_videos_would_have(tmp_path: Path) -> None:
    write_outputs(tmp_path, {"a.aedat4": SPANS, "b.aedat4": SPANS})
    code, told = exported(tmp_path, "--no-video")
    assert code == 0 and "rendered" not in told[0] and not list(tmp_path.rglob("*.mp4"))
    assert "Export again without it" in (tmp_path / "ex" / "README.txt").read_text()
    alone = spans(tmp_path)
    assert {row.pop("video") for row in alone} == {""}
    assert exported(tmp_path)[0] == 0
    beside = spans(tmp_path)
    assert all(row.pop("video") for row in beside) and alone == beside
    assert "--no-video" not in (tmp_path / "ex" / "README.txt").read_text()
    assert exported(tmp_path, "--no-video")[0] == 0 and len(list(tmp_path.rglob("*.mp4"))) == 2, "they stay"


def test_a_recording_that_cannot_be_rendered_fails_alone(tmp_path: Path) -> None:
    out, broken = write_outputs(tmp_path, {"a.aedat4": SPANS, "b.aedat4": SPANS}), tmp_path / "in" / "a.aedat4"
    broken.write_bytes(b"#!AER-DAT4.0\r\nbroken")
    write_note_of(out, broken, "a.aedat4", SPANS)
    for options in ([], ["--no-video"]):
        code, told = exported(tmp_path, *options)
        assert code == 1 and told[1] == "1 left out:" and told[2].startswith(f"  {tmp_path}/in/a.aedat4: ")
        assert {row["recording"] for row in spans(tmp_path)} == {"b.aedat4"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "recording,start_us,end_us,label\na.aedat4,1,2,walk\na.aedat4,9,5,sit\n",
            "line 3: a span begins before it ends",
        ),
        ("recording,start_us,end_us,label\na.aedat4,1,2,walk, fast\n", "line 2: it has too many cells"),
        ("recording,start_us,label\na.aedat4,1,walk\n", "line 1: it lacks the column end_us"),
        ("", "it lacks the column"),
    ],
)
def test_a_label_file_that_somebody_broke_is_named_with_line_and_fix(tmp_path: Path, text: str, told: str) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    Place(out, "a.aedat4").labels.write_text(text)
    code, lines = exported(tmp_path)
    assert code == 1 and len(lines) == 1 and not (tmp_path / "ex").exists()
    assert lines[0].startswith(f"velora: {out}/a.aedat4.labels.csv") and told in lines[0]
    assert lines[0].endswith("; correct it, or delete the file and label the recording again")


class TestMistakes:
    """One line each."""

    def told(self, *arguments: object) -> str:
        code, stdout, stderr = run("export", *arguments)
        assert (code, stdout) == (1, "") and len(stderr.splitlines()) == 1
        return stderr

    def test_a_folder_that_is_no_output_of_label(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "gone"):
            told = self.told(folder, "--to", "csv", "--out", tmp_path / "ex")
            assert (
                told
                == f"velora: {folder}: holds nothing that `velora label --out` wrote (.velora/notes); check the path\n"
            )
        assert not (tmp_path / "ex").exists()

    def test_an_output_folder_with_something_else_in_it(self, tmp_path: Path) -> None:
        out = write_outputs(tmp_path, {"a.aedat4": ()})
        assert "holds the labels: let --out name another folder" in self.told(out, "--to", "csv", "--out", out)
        told = self.told(out, "--to", "csv", "--out", tmp_path / "in")
        assert "in holds something else than an export for CSV: choose another --out" in told
        assert run("export", out, "--to", "csv", "--out", tmp_path / "ex")[0] == 0
        told = self.told(out, "--to", "elan", "--out", tmp_path / "ex")
        assert "ex holds something else than an export for ELAN: choose another --out" in told
        told = self.told(out, "--to", "elan", "--out", tmp_path / "in" / "a.aedat4")
        assert "is a file; --out names a folder" in told

    def test_a_broken_run_json(self, tmp_path: Path) -> None:
        out = write_outputs(tmp_path, {"a.aedat4": ()})
        (out / "run.json").write_text("{")
        told = self.told(out, "--to", "csv", "--out", tmp_path / "ex")
        assert told.startswith(f"velora: {out}/run.json cannot be read") and "delete it" in told

    def test_a_root_that_is_none(self, tmp_path: Path) -> None:
        out = write_outputs(tmp_path, {"a.aedat4": ()})
        told = self.told(out, "--to", "csv", "--out", tmp_path / "ex", "--recordings", tmp_path / "no")
        assert "no is no folder: --recordings names one that holds the recordings" in told

    def test_an_unknown_tool(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit) as usage:
            run("export", tmp_path, "--to", "cvat", "--out", tmp_path / "ex")
        assert usage.value.code == 2

    def test_videos_without_the_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = write_outputs(tmp_path, {"a.aedat4": SPANS})
        monkeypatch.setitem(sys.modules, "av", None)
        told = self.told(out, "--to", "csv", "--out", tmp_path / "ex")
        assert told == "velora: videos need PyAV: pip install 'velora-rgbe[export]'\n"
        assert run("export", out, "--to", "csv", "--out", tmp_path / "ex", "--no-video")[0] == 0


def test_an_interrupted_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_outputs(tmp_path, {"a.aedat4": SPANS, "b.aedat4": SPANS}, frames=60)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 65)
        code, told = exported(tmp_path)
    assert code == 130 and "interrupted" in told[0] and not (tmp_path / "ex" / "spans.csv").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    code, told = exported(tmp_path)
    assert code == 0 and "2 recordings, 6 spans; 1 video rendered, 1 there before" in told[0]


def test_videos_show_what_the_model_was_shown(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    told = json.loads((out / "run.json").read_text())
    told["settings"]["feed"] = {"roi": [0, 0, 32, 48], "rotate": 90}
    (out / "run.json").write_text(json.dumps(told))
    assert exported(tmp_path)[0] == 0
    film = read_film(tmp_path / "ex" / "videos" / f"{key_of('a.aedat4')}.mp4")
    assert film is not None and (film.width, film.height) == ((2 * 48 + 8) * 10, 32 * 10)


def test_what_the_command_itself_labelled_is_exported(two: Path, tmp_path: Path) -> None:
    """From recordings to an export, as people do it."""
    options = ["--stride", "1", "--min-confidence", "0", "--steady", "1", "--min-span-ms", "0"]
    assert run("label", two, "--out", tmp_path / "out", *options)[0] == 0
    code, told = exported(tmp_path)
    assert code == 0 and told[0].startswith(f"{tmp_path / 'ex'}: 2 recordings")
    results = read_results(tmp_path / "out", strict=True)
    rows = {(own.name, row.start_us, row.label) for own in results.labelled for row in own.rows}
    assert rows == {(row["recording"], int(row["start_us"]), row["label"]) for row in spans(tmp_path)} and rows
    assert not any(own.corrected for own in results.labelled)
    assert min(float(row["start_s"]) for row in spans(tmp_path)) == 0.0, "it begins with the first picture"


def test_labels_are_the_models_then_those_of_people(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    correct(out, "a.aedat4", LabelRow("a.aedat4", at(0), at(4), "drink"), LabelRow("a.aedat4", at(5), at(6), "climb"))
    results = read_results(out, strict=True)
    assert results.labels == (*LABELS, "climb", "drink") and [own.corrected for own in results.labelled] == [True]
    write_run(out)


def test_notes_without_a_run_are_enough(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    (out / "run.json").unlink()
    assert exported(tmp_path)[0] == 0 and len(spans(tmp_path)) == 3
