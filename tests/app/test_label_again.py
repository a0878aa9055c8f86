"""`velora label` a second time, and interrupted: what is done again, what is kept, what is left."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from app.labelling.ledger import Ledger
from app.labelling.notes import Note
from tests.app.conftest import write_square
from tests.app.test_label import index, label


def test_a_folder_that_somebody_removes_meanwhile_is_told(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, add = tmp_path / "out", Ledger.add

    def remove_then_add(ledger: Ledger, note: Note) -> None:
        shutil.rmtree(out, ignore_errors=True)
        add(ledger, note)

    monkeypatch.setattr(Ledger, "add", remove_then_add)
    code, _, stderr = label(two, out)
    assert code == 1 and f"{out} was removed meanwhile, with the labels in it: run the same" in stderr
    monkeypatch.undo()
    assert label(two, out)[0] == 0 and len(index(out)) == 2


def done_now(stderr: str) -> int:
    (line,) = (line for line in stderr.splitlines() if " labelled in " in line)
    return int(line.split(": ", 1)[1].split(" ")[0])


def test_what_has_changed_is_done_again_and_nothing_else(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert label(two, out)[0] == 0
    cases = [
        (lambda: None, [], 0),
        (lambda: write_square(two / "a.aedat4", 14), [], 1),
        (lambda: (two / "b.aedat4").touch(), [], 1),
        (lambda: (out / "a.aedat4.windows.jsonl").unlink(), [], 1),
        (lambda: write_square(two / "c.aedat4", 9), [], 1),
        (lambda: None, ["--force"], 3),
        (lambda: None, ["--topk", "2"], 3),
        (lambda: None, ["--topk", "2", "--jobs", "2", "--timeout", "60", "--device", "cpu"], 0),
        (lambda: None, ["--topk", "2", "--flip", "horizontal"], 3),
    ]
    for change, options, expected in cases:
        change()
        code, _, stderr = label(two, out, *options)
        assert (code, done_now(stderr)) == (0, expected), (options, stderr)
        assert len(index(out)) == len(list(two.iterdir()))


def test_another_model_does_all_again(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    random = ["--model", "ViT-B-32-quickgelu", "--random-weights", "--hop", "100"]
    assert label(two, out)[0] == 0
    code, _, stderr = label(two / "a.aedat4", out, *random)
    assert (code, done_now(stderr)) == (0, 1)
    digests = {name: row["model"] for name, row in index(out).items()}
    assert digests["a.aedat4"] != digests["b.aedat4"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, stdout, _ = label(two, out, "--dry-run")
    assert code == 0 and stdout.splitlines() == ["label  a.aedat4 (new)", "label  b.aedat4 (new)"]
    assert not out.exists()
    assert label(two / "a.aedat4", out)[0] == 0
    code, stdout, _ = label(two, out, "--dry-run", "--json")
    assert [json.loads(line) for line in stdout.splitlines()] == [
        {"recording": "a.aedat4", "skip": True, "why": "finished"},
        {"recording": "b.aedat4", "skip": False, "why": "new"},
    ]
    assert label(two, out, "--dry-run", "--hop", "3")[1].startswith("label  a.aedat4 (other settings)")


def test_ctrl_c_drops_what_is_at_hand_and_keeps_what_is_finished(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(6):
        write_square(two / f"c{k}.aedat4", 30)
    add = Ledger.add

    def interrupt(self: Ledger, note: Any) -> None:
        add(self, note)
        if len(self.done) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Ledger, "add", interrupt)
    out = tmp_path / "out"
    code, _, stderr = label(two, out)
    assert code == 130 and "Traceback" not in stderr
    finished = set(index(out))
    assert 3 <= len(finished) < 8 and json.loads((out / "run.json").read_text())["state"] == "interrupted"
    assert {p.name.removesuffix(".windows.jsonl") for p in out.glob("*.windows.*")} == finished
    assert not list(out.rglob("*.part")) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(Ledger, "add", add)
    code, _, stderr = label(two, out)
    assert (code, done_now(stderr), len(index(out))) == (0, 8 - len(finished), 8)


def test_strict_stops_at_the_first_failure(two: Path, tmp_path: Path) -> None:
    (two / "a.aedat4").write_bytes(b"")
    for k in range(4):
        write_square(two / f"c{k}.aedat4", 30)
    code, _, stderr = label(two, tmp_path / "out", "--strict")
    assert code == 1 and "1 failed:" in stderr and len(index(tmp_path / "out")) < 6
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "stopped"
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_failure_leaves_what_was_labelled_before(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert label(two, out)[0] == 0
    before = (out / "a.aedat4.windows.jsonl").read_text()
    good = (two / "a.aedat4").read_bytes()
    (two / "a.aedat4").write_bytes(b"")
    assert label(two, out)[0] == 1 and index(out)["a.aedat4"]["status"] == "failed"
    assert (out / "a.aedat4.windows.jsonl").read_text() == before
    assert label(two, out)[0] == 1  # it is tried again
    (two / "a.aedat4").write_bytes(good)
    assert label(two, out)[0] == 0 and index(out)["a.aedat4"]["status"] == "done"


def test_labels_of_which_no_note_is_left_are_kept_where_they_may_be_corrected(two: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy"
    assert label(two, out)[0] == 0
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns(".velora"))
    corrected = (copy / "a.aedat4.labels.csv").read_text() + "a.aedat4,1,2,waving,1\n"
    (copy / "a.aedat4.labels.csv").write_text(corrected)
    assert label(two, copy)[0] == 0
    assert (copy / "a.aedat4.labels.csv.corrected-1").read_text() == corrected
    assert not (copy / "b.aedat4.labels.csv.corrected-1").exists()  # which says the same anew


def test_corrected_labels_are_kept_when_a_recording_is_done_again(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert label(two, out)[0] == 0
    corrected = (out / "a.aedat4.labels.csv").read_text() + "a.aedat4,1,2,waving,1\n"
    (out / "a.aedat4.labels.csv").write_text(corrected)
    assert label(two, out)[0] == 0  # which is no reason to do it again
    assert (out / "a.aedat4.labels.csv").read_text() == corrected
    assert label(two, out, "--force")[0] == 0
    assert (out / "a.aedat4.labels.csv.corrected-1").read_text() == corrected
    assert "waving" not in (out / "a.aedat4.labels.csv").read_text()
    assert "kept in a.aedat4.labels.csv.corrected-1" in index(out)["a.aedat4"]["remarks"]
    assert not (out / "b.aedat4.labels.csv.corrected-1").exists()


def test_a_namesake_does_not_take_the_place_of_another_recording(two: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", write_square(tmp_path / "other" / "a.aedat4", 13)
    assert label(two, out)[0] == 0
    before = (out / "a.aedat4.windows.jsonl").read_text()
    code, _, stderr = label(other, out)
    assert code == 1 and "choose another --out, or label both in one run" in stderr
    assert (out / "a.aedat4.windows.jsonl").read_text() == before
    code, _, stderr = label(two, out)
    assert (code, done_now(stderr), index(out)["a.aedat4"]["status"]) == (0, 0, "done")


def test_a_recording_that_has_moved_is_not_done_again(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert label(two, out)[0] == 0
    two.rename(tmp_path / "elsewhere")
    code, _, stderr = label(tmp_path / "elsewhere", out)
    assert (code, done_now(stderr)) == (0, 0)
