"""A labelled folder as the page shows it: sums, doubts, recordings in parts; read again when it changes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.export.results import Results, read_results
from app.folders import Folders
from app.label_file import LabelRow, read_label_rows, write_label_rows
from app.labelling.notes import Place
from tests.app.label_outputs import SPANS, at, write_outputs


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_outputs(tmp_path, {"b.aedat4": SPANS, "walk/a, 1.aedat4": SPANS[:1], "bad.aedat4": None})


def test_it_tells_sums_doubts_and_rows(out: Path) -> None:
    told = Folders().told(out)
    assert (told["recordings"], told["failed"], told["matching"]) == (2, 1, 2)
    assert told["failures"] == [("bad.aedat4", "the file is empty; record or copy it again")]
    assert [(label, spans) for label, _, spans, _ in told["labels"]] == [("walk", 3), ("sit", 1)]
    assert [(name, label, sure) for name, _, _, label, sure, _ in told["doubts"]] == [
        ("b.aedat4", "sit", 0.55),
        ("b.aedat4", "walk", 0.7),
        ("b.aedat4", "walk", 0.9),
        ("walk/a, 1.aedat4", "walk", 0.9),
    ]
    first, second = told["rows"]
    assert (first["name"], first["least"], first["corrected"]) == ("b.aedat4", 0.55, False)
    assert first["spans"][1] == (at(5), at(12), "sit", 0.55) and second["least"] == 0.9


def test_recordings_are_ordered_chosen_and_told_in_parts(tmp_path: Path) -> None:
    spans = {f"{k:02d}.aedat4": [(at(0), at(5), "walk", 0.5 + k / 200)] for k in range(59, -1, -1)}
    folders, out = Folders(), write_outputs(tmp_path, {**spans, "Empty.aedat4": ()})
    assert [len(folders.told(out, first=first)["rows"]) for first in (0, 50, 100)] == [50, 11, 0]
    by_doubt = [row["name"] for row in folders.told(out, order="doubt", first=50)["rows"]]
    assert by_doubt[0] == "50.aedat4" and by_doubt[-1] == "Empty.aedat4"
    assert [row["name"] for row in folders.told(out, text="EMPTY")["rows"]] == ["Empty.aedat4"]


def test_more_spans_than_a_timeline_shows_are_joined_and_counted(tmp_path: Path) -> None:
    def name(k: int) -> str:
        return "sit" if k in (4, 1210) else "walk"

    spans = [(at(0) + 500 * k, at(0) + 500 * (k + 1), name(k), 0.3 if k == 1211 else 0.9) for k in range(1280)]
    out = write_outputs(tmp_path, {"a.aedat4": spans})
    (row,) = Folders().told(out)["rows"]
    assert row["count"] == 1280 and len(row["spans"]) <= 501
    assert row["spans"][0][0] == at(0) and row["spans"][-1][1] == at(0) + 500 * 1280
    assert {label for _, _, label, _ in row["spans"]} == {"walk"}  # what is longest at each place
    assert [sure for *_, sure in row["spans"]].count(0.3) == 1


def test_a_correction_is_seen_at_once(out: Path) -> None:
    folders = Folders()
    folders.told(out)
    labels = Place(out, "b.aedat4").labels
    rows = [row for row in read_label_rows(labels) if row.label != "sit"]
    write_label_rows(labels, [*rows, LabelRow("b.aedat4", at(5), at(12), "fall")])
    told = folders.told(out)
    (row,) = (row for row in told["rows"] if row["name"] == "b.aedat4")
    assert row["corrected"] and row["spans"][1] == (at(5), at(12), "fall", None)
    assert "sit" not in [label for label, *_ in told["labels"]]


def test_what_is_none_is_one_line(out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds nothing that `velora label --out` wrote"):
        Folders().told(tmp_path / "in")
    with pytest.raises(ValueError, match="has no labels of 'nowhere'"):
        Folders().find(out, "nowhere")


def test_links_out_of_what_may_be_read_are_the_recordings_trouble(out: Path, tmp_path: Path) -> None:
    secret, labels = tmp_path / "secret.csv", Place(out, "b.aedat4").labels
    secret.write_text("recording,start_us,end_us,label\nb.aedat4,1005000,1100000,SECRET\n")
    labels.unlink()
    labels.symlink_to(secret)
    assert "SECRET" in str(Folders().told(out))
    told = Folders([out.resolve()]).told(out)
    assert "SECRET" not in str(told) and told["recordings"] == 1
    assert any("is a link to elsewhere" in why for _, why in told["failures"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("which", ["labels", "note", "windows"])
def test_pipes_and_devices_are_not_read(out: Path, make: Callable[[Path], None], which: str) -> None:
    place = Place(out, "b.aedat4")
    path = {"labels": place.labels, "note": place.note, "windows": place.windows("jsonl")}[which]
    path.unlink()
    make(path)
    told = Folders().told(out)
    assert told["recordings"] == (2 if which == "windows" else 1)
    assert any("is not a regular file" in why for _, why in told["failures"]) == (which == "labels")


@pytest.mark.parametrize(
    "note",
    ["[" * 100_000, '{"recording": "b.aedat4"}', '{"seconds": Infinity}', '{"seconds": 1e300}', '{"windows": 1e999}'],
)
def test_notes_that_say_what_cannot_be_are_left_out(out: Path, note: str) -> None:
    own = Place(out, "b.aedat4").note
    told = json.loads(own.read_text())
    own.write_text(note if note.startswith("[") else json.dumps({**told, **json.loads(note)}))
    found = Folders().told(out)
    assert found["recordings"] == (2 if "recording" in note else 1) and json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("line", ["[" * 50_000, '{"start_us": 1e999, "end_us": 5}', '{"start_us": 5'])
def test_windows_that_say_what_cannot_be_are_left_out(out: Path, line: str) -> None:
    Place(out, "b.aedat4").windows("jsonl").write_text(f"{line}\n")
    assert Folders().told(out)["recordings"] == 2


def test_what_changes_while_it_is_read_is_read_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, labels = Folders(), Place(out, "b.aedat4").labels
    for path in out.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))

    def read(*given: Any, **options: Any) -> Results:
        found = read_results(*given, **options)
        write_label_rows(labels, [LabelRow("b.aedat4", at(5), at(12), "fall")])
        return found

    monkeypatch.setattr("app.folders.read_results", read)
    assert "fall" not in str(folders.told(out))
    monkeypatch.undo()
    assert "fall" in str(folders.told(out))
