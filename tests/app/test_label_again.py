"""`velora label` a second time, and interrupted: what is done again, what is kept, what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.export.results import read_results
from app.labelling.ledger import Ledger
from app.labelling.notes import Note
from tests.app.conftest import write_square
from tests.app.test_label import OPTIONS, index, label, run


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


def test_the_same_files_beside_others_keep_their_names(two: Path, tmp_path: Path) -> None:
    """Two inputs may hold files of one name, for which all are named by longer paths."""
    out, other = tmp_path / "out", tmp_path / "other"
    assert label(two, out)[0] == 0
    write_square(other / "a.aedat4", 13)
    write_square(other / "c.aedat4", 9)
    line = ["label", str(two), str(other), "--out", str(out), *OPTIONS]
    code, _, stderr = run(line)
    assert (code, done_now(stderr)) == (0, 2)
    assert set(index(out)) == {"a.aedat4", "b.aedat4", "other/a.aedat4", "other/c.aedat4"}
    code, _, stderr = run(line)
    assert (code, done_now(stderr)) == (0, 0)


def test_an_input_that_is_the_output_is_said(two: Path) -> None:
    code, _, stderr = label(two, two)
    assert code == 1 and "is both an input and --out" in stderr


def test_an_input_that_is_an_empty_text_is_not_this_folder(tmp_path: Path) -> None:
    code, _, stderr = run(["label", "", "--out", str(tmp_path / "out")])
    assert code == 1 and "an input is an empty text" in stderr


def test_what_old_recordings_do_not_tell_is_nothing_to_those_that_do(two: Path, tmp_path: Path) -> None:
    code, _, stderr = label(two, tmp_path / "out", "--size", "346x260", "--chip", "DVS128")
    assert (code, done_now(stderr)) == (0, 2)


def test_names_that_spreadsheets_and_shells_dislike_are_read_back(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ["line\nend.aedat4", "line\u2028separator.aedat4", "\\back.aedat4", "tab\t.aedat4", 'a,b".aedat4']
    for name, path in zip(names, list(two.iterdir()) + names[2:], strict=False):
        write_square(two / name, 10) if isinstance(path, str) else path.rename(two / name)
    assert label(two, out)[0] == 0
    found = read_results(out, strict=False)
    assert not found.strangers and all(own.rows and not own.trouble for own in found.labelled)
    assert len(found.labelled) == len(names)
    code, _, stderr = label(two, out)
    assert (code, done_now(stderr)) == (0, 0)


def test_a_run_whose_output_nobody_reads_any_more_has_not_gone_well(two: Path, tmp_path: Path) -> None:
    code = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, "label", str(two), "--out", str(tmp_path / "out"), "--json", *OPTIONS]
    root = Path(__file__).parents[2]
    ours, theirs = os.pipe()
    os.close(ours)
    ended = subprocess.run(line, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120, cwd=root)
    os.close(theirs)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("nobody reads its output any more; the same command goes on")
