"""The processes of a pool."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest

from app.pool import pool_of

_PROGRAM = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from app.pool import be_a_worker

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=be_a_worker) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def test_they_end_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert not psutil.wait_procs([worker], timeout=20)[1]


def _work(folder: Path, seconds: float) -> None:
    (folder / f"begun {os.getpid()}").touch()
    time.sleep(seconds)
    (folder / f"done {os.getpid()}").touch()


@pytest.mark.parametrize(("seconds", "done"), [(1.0, 1), (60.0, 0)])
def test_what_they_are_at_is_finished_unless_it_takes_long(
    seconds: float, done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pool.GRACE_S", 5.0 if done else 0.5)
    resource_tracker.ensure_running()
    before = psutil.Process().children()
    with pytest.raises(KeyboardInterrupt), pool_of(1) as pool:
        for _ in range(9):
            pool.submit(_work, tmp_path, seconds)
        while not list(tmp_path.glob("begun *")):
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert len(list(tmp_path.glob("done *"))) >= done and (done or not list(tmp_path.glob("done *")))
    assert not [child for child in psutil.Process().children() if child not in before]
