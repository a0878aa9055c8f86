"""`velora label` and `velora export` beside all else: watched, stopped, and gone on with."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.batch import Batch, BatchState
from app.folders import Folders
from tests.app.conftest import write_square

_LONG_S = 120.0


def ended(batch: Batch) -> BatchState:
    assert batch.wait(_LONG_S)
    state = batch.state()
    assert state is not None and state.over
    return state


def test_a_folder_is_labelled_stopped_gone_on_with_and_exported(tmp_path: Path) -> None:
    recordings, out = tmp_path / "in, today", tmp_path / "out"
    for k in range(12):
        write_square(recordings / f"{k}.aedat4", 40)
    (recordings / "bad.aedat4").write_bytes(b"\xff" * 300)
    batch = Batch()
    assert batch.state() is None and batch.wait(0)
    batch.label(recordings, out, "demo", ["--device", "cpu", "--stride", "1"])
    with pytest.raises(ValueError, match="is being labelled or exported already"):
        batch.label(recordings, out, "demo")
    end = time.monotonic() + _LONG_S
    while (state := batch.state()) is None or not state.done:
        assert time.monotonic() < end and not (state and state.over), state
        time.sleep(0.02)
    batch.stop()
    stopped = ended(batch)
    assert stopped.phase == "stopped" and 0 < stopped.done < 12 and "goes on with the rest" in stopped.message
    batch.label(recordings, out, "demo", ["--device", "cpu", "--stride", "1"])
    done = ended(batch)
    assert done.phase == "done" and done.failed == 1 and done.share == 1.0
    assert done.done + done.skipped == 12 and done.skipped >= stopped.done
    assert done.failures[0][0] == "bad.aedat4" and "1 could not be read" in done.message
    assert Folders().told(out)["recordings"] == 12
    batch.export(out, "csv", tmp_path / "exported", ["--no-video"])
    assert ended(batch).phase == "done" and list((tmp_path / "exported").rglob("*.csv"))


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    batch = Batch()
    batch.label(tmp_path, tmp_path / "out", "demo")
    state = ended(batch)
    assert state.phase == "failed" and "there is no recording among the inputs" in state.message
    batch.export(tmp_path, "csv", tmp_path / "exported", ["--no-video"])
    assert ended(batch).phase == "failed" and "holds nothing that" in ended(batch).message


def test_what_a_child_says_in_no_known_letters_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_square(tmp_path / "a.aedat4")
    monkeypatch.setattr("app.child.sys.executable", _saying(tmp_path, rb"caf\351"))
    batch = Batch()
    batch.label(tmp_path, tmp_path / "out", "demo")
    assert ended(batch).phase == "failed"


def test_a_watch_that_fails_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no memory for it")

    monkeypatch.setattr("app.batch.Child.wait", fails)
    batch = Batch()
    batch.label(tmp_path, tmp_path / "out", "demo")
    assert "no memory for it" in ended(batch).message
    monkeypatch.undo()
    batch.label(tmp_path, tmp_path / "out", "demo")
    ended(batch)


def _saying(folder: Path, text: bytes) -> str:
    """A program that prints it, whatever it is asked."""
    program = folder / "program"
    program.write_bytes(b"#!/bin/sh\nprintf '" + text + b"\\n'\n")
    program.chmod(0o755)
    return str(program)
