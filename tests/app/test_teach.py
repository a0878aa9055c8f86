"""Teaching, in the process that it takes: a model of new labels at the end, and nothing at all before."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.lessons import Lessons
from app.taught import models
from app.teach import Teaching, TeachingState
from streams import open_source, synchronize
from velora import load_recognizer
from velora.loading import DEMO

FEW = ("--epochs", "2", "--batch", "2", "--sampling", "clip", "--w-rec", "0", "--patience", "0")
ENDLESS = (*FEW, "--epochs", "10000")
_LONG_S = 180.0


@pytest.fixture(scope="module")
def lessons(small_recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    """Two clips of each of two labels."""
    made = Lessons(tmp_path_factory.mktemp("teach") / "lessons")
    for k, label in enumerate(("left half", "right half") * 2):
        start_us = 1_000_000 + 400_000 * k
        made.add(lambda: open_source(small_recording), start_us, start_us + 400_000, label)
    return made


def seen(teaching: Teaching) -> list[TeachingState]:
    """What it goes through, to its end."""
    states, deadline = [teaching.state()], time.monotonic() + _LONG_S
    while not teaching.wait(0.02):
        assert time.monotonic() < deadline
        if (state := teaching.state()) != states[-1]:
            states.append(state)
    return [*states, teaching.state()]


def until(teaching: Teaching, phase: str) -> None:
    deadline = time.monotonic() + _LONG_S
    while teaching.state().phase != phase:
        assert time.monotonic() < deadline and not teaching.state().over, teaching.state()
        time.sleep(0.02)


def test_a_model_is_taught_and_knows_the_new_labels(lessons: Lessons, small_recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    teaching = Teaching(lessons, "demo", out, "Halves 1", options=FEW)
    assert models(out).found == () and models(out).skipped == ()  # a half-written one is hidden
    states = seen(teaching)
    phases = list(dict.fromkeys(state.phase for state in states))
    assert phases[0] == "starting" and phases[-1] == "done" and {"reading", "training"} <= set(phases)
    last = states[-1]
    assert last.over and last.model == out / "Halves 1" and last.step == last.steps > 0
    assert last.validation is not None and last.nearest_class_mean is not None and last.loss is not None
    assert last.message.startswith("Done: right in ") and last.seconds_left is None
    (model,) = models(out).found
    assert (model.name, model.path, model.labels) == ("Halves 1", last.model, ("left half", "right half"))
    assert {path.name for path in out.iterdir()} == {"Halves 1"}
    assert "training.pt" not in {path.name for path in model.path.iterdir()}
    recognizer = load_recognizer(model.path)
    assert recognizer.config.labels == model.labels and not recognizer.random_parts
    with open_source(small_recording) as source:
        session = recognizer.open(stride=4)
        said = [found for sample in synchronize(source) if (found := session.push(sample))]
    assert said and all(found.label in model.labels for found in said)
    with pytest.raises(ValueError, match="there is a model Halves 1 already"):
        Teaching(lessons, "demo", out, "Halves 1", options=FEW)


def test_it_is_stopped_in_the_middle_and_leaves_nothing(lessons: Lessons, tmp_path: Path) -> None:
    teaching = Teaching(lessons, "demo", tmp_path, "never", options=ENDLESS)
    with pytest.raises(ValueError, match="a model is learning from these clips"):
        lessons.clear()
    until(teaching, "training")
    assert teaching.state().seconds_left is not None
    teaching.stop()
    assert teaching.wait(30)
    assert teaching.state().phase == "stopped" and teaching.state().over and teaching.state().model is None
    assert not list(tmp_path.iterdir())
    teaching.stop()  # does nothing
    with lessons.in_use():
        pass


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ("nowhere", FEW, "nowhere/config.json cannot be read (No such file or directory): a checkpoint is a folder"),
        ("demo", (*FEW, "--rate", "-1"), "rate must be 0 or more, not -1.0"),
        ("demo", (*FEW, "--no-such-option"), "it ended by itself with code 2: velora: error: unrecognized"),
    ],
)
def test_a_failure_is_one_line(
    lessons: Lessons, tmp_path: Path, base: str, options: tuple[str, ...], message: str
) -> None:
    state = seen(Teaching(lessons, base, tmp_path, "never", options=options))[-1]
    assert state.phase == "failed" and message in state.message and "\n" not in state.message
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_taught_is_refused_at_once(lessons: Lessons, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clips of two labels at least"):
        Teaching(Lessons(tmp_path / "none"), "demo", tmp_path, "a")
    for name in ("", "..", ".hidden", "a/b", "a\nb", "x" * 81, " a", "a:b"):
        with pytest.raises(ValueError, match="a model's name has 1 to 80 characters"):
            Teaching(lessons, "demo", tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_program_left_is_removed_when_it_is_old(lessons: Lessons, tmp_path: Path) -> None:
    for name, age_s in ((".teaching-old", 7200), (".teaching-now", 0)):
        file = tmp_path / name / "model" / "training.pt"
        file.parent.mkdir(parents=True)
        for path in (file, file.parent, file.parent.parent):
            path.touch()
            os.utime(path, (time.time() - age_s, time.time() - age_s))
    teaching = Teaching(lessons, "nowhere", tmp_path, "never")
    assert {path.name for path in tmp_path.iterdir()} & {".teaching-old", ".teaching-now"} == {".teaching-now"}
    teaching.stop()  # at once: before it has begun
    assert teaching.wait(30) and teaching.state().phase == "stopped"


_PARENT = """
import subprocess, sys
command = [sys.executable, "-P", "-m", "app.child_process", *sys.argv[1:]]
subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True).wait()
"""


def test_it_ends_with_the_program_that_started_it_also_when_that_is_killed(small_recording: Path) -> None:
    line = ["serve", str(small_recording), "--loop", "--port", "0"]
    with subprocess.Popen([sys.executable, "-c", _PARENT, *line], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("tcp://")
        parent.kill()
        ended, _, _ = select.select([parent.stdout], [], [], 30)
        assert ended and parent.stdout.read() == ""  # its end comes when the last one that can write has gone


def test_it_stops_in_good_order_also_where_the_program_ignores_ctrl_c(small_recording: Path) -> None:
    """As programs do that a script has started in the background."""
    line = [sys.executable, "-P", "-m", "app.child_process", "serve", str(small_recording), "--loop", "--port", "0"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which children inherit
    try:
        child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline().startswith("tcp://")
        child.stdin.close()
        assert child.wait(60) >= 0  # not killed


def test_a_checkpoint_that_is_broken_is_left_out_with_the_reason(tmp_path: Path) -> None:
    for k, name in enumerate(("old", "new", "cut", "half", "odd", ".hidden")):
        shutil.copytree(DEMO, tmp_path / name)
        os.utime(tmp_path / name / "config.json", (k, k))
    adapter = tmp_path / "cut" / "adapter.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:1000])
    (tmp_path / "half" / "config.json").unlink()
    (tmp_path / "odd" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    shelf = models(tmp_path)
    assert [model.name for model in shelf.found] == ["new", "old"]
    assert len(shelf.skipped) == 3 and all("\n" not in line for line in shelf.skipped)
    for name in ("cut/adapter.safetensors", "half/config.json", "odd/config.json"):
        assert sum(name in line for line in shelf.skipped) == 1
    assert models(tmp_path / "nowhere").found == ()


def test_a_folder_that_cannot_be_looked_through_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that another user made, or of a network's disk that has gone: the page goes on."""

    def refused(self: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refused)
    shelf = models(tmp_path)
    assert shelf.found == () and len(shelf.skipped) == 1 and "Permission denied" in shelf.skipped[0]
