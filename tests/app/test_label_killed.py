"""A run that is killed loses what it was at, and nothing else; a second one on the same folder is refused meanwhile."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.app.conftest import write_square

MOMENTS = int(os.environ.get("VELORA_KILLS", "4"))
VELORA = [sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"]
FRAMES = 14
OPTIONS = ["--stride", "1", "--hop", "2", "--jobs", "1", "--json", "--min-confidence", "0"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def start(inputs: Path, out: Path) -> subprocess.Popen[str]:
    command = [*VELORA, "label", str(inputs), "--out", str(out), *OPTIONS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], finished: int) -> None:
    """Until it has told of so many recordings."""
    assert process.stdout is not None
    while finished:
        line = process.stdout.readline()
        assert line, "it ended by itself"
        finished -= json.loads(line)["event"] == "recording"


def kill(process: subprocess.Popen[str]) -> None:
    """Kill it, and see that its workers end by themselves."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


def windows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_whole(out: Path) -> None:
    """No file that anybody sees is half written."""
    for path in out.rglob("*"):
        if path.name.startswith(".") or ".velora" in path.parts or not path.is_file():
            continue
        if path.suffix == ".jsonl":
            assert len(windows(path)) == (FRAMES - 8) // 2 + 1
        elif path.suffix == ".csv":
            rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
            assert len({len(row) for row in rows}) == 1
        else:
            json.loads(path.read_text(encoding="utf-8"))


def test_kills_at_any_moment_lose_next_to_nothing(tmp_path: Path, treacherous: None) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    count = 3 * MOMENTS
    for k in range(count):
        write_square(inputs / str(k % 3) / f"slow {k}.aedat4", FRAMES)
    done: set[str] = set()
    for moment in range(MOMENTS):
        process = start(inputs, out)
        wait_for(process, finished=moment % 3)
        time.sleep(0.37 * (moment % 4))
        kill(process)
        assert_whole(out)
        found = {p.relative_to(out).as_posix() for p in out.rglob("*.windows.jsonl") if not p.name.startswith(".")}
        assert done <= found
        done = found
    final = start(inputs, out)
    stdout, stderr = final.communicate(timeout=200)
    assert final.returncode == 0, stderr
    told = [json.loads(line) for line in stdout.splitlines()]
    labelled = [line["recording"] for line in told if line["event"] == "recording"]
    assert told[0]["recordings"] == len(set(labelled)) == len(labelled)
    assert told[0]["recordings"] + told[0]["skipped"] == count
    assert count - len(done) <= len(labelled) <= count - len(done) + 2  # whose notes were on their way
    assert_whole(out)
    rows = list(csv.DictReader((out / "index.csv").open(newline="", encoding="utf-8")))
    assert sorted(row["recording"] for row in rows) == sorted(
        p.relative_to(inputs).as_posix() for p in inputs.rglob("*.aedat4")
    )
    assert {row["status"] for row in rows} == {"done"} and not list(out.rglob("*.part"))
    first, *others = (windows(out / row["windows_file"]) for row in rows)
    for other in others:
        assert [(w["start_us"], w["end_us"], w["label"]) for w in other] == [
            (w["start_us"], w["end_us"], w["label"]) for w in first
        ]
        assert [w["confidence"] for w in other] == pytest.approx([w["confidence"] for w in first], abs=1e-3)


def test_a_second_run_is_refused_while_the_first_lives_and_ctrl_c_ends_all(tmp_path: Path, treacherous: None) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    for k in range(6):
        write_square(inputs / f"{'hangs' if k > 1 else 'good'} {k}.aedat4", FRAMES)
    first = start(inputs, out)
    wait_for(first, finished=2)
    second = start(inputs, out)
    stdout, stderr = second.communicate(timeout=60)
    assert second.returncode == 1 and stdout == ""
    assert f"{out} is in use by process {first.pid} on " in stderr and len(stderr.splitlines()) == 1
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    for process in (*children, psutil.Process(first.pid)):  # as a terminal does
        process.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=30)
    assert first.returncode == 130 and "Traceback" not in stderr
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
    assert len(list(out.rglob("*.windows.jsonl"))) == 2 and not list(out.rglob("*.part"))
