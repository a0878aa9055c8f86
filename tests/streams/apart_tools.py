"""What tests of files read apart share: processes of their own, and files that say what their decoder does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streams.apart import Apart
from streams.worker_process import Idle

ROOT = Path(__file__).parents[2]
Open = Callable[..., Apart]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Idle]:
    """Processes of this test alone, which find the tests' modules."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    own = Idle()
    monkeypatch.setattr("streams.apart.IDLE", own)
    yield own
    own.close()


@pytest.fixture
def opened(idle: Idle, tmp_path: Path) -> Iterator[Open]:
    """Opens a file with a text by one of the decoders of apart_fakes."""
    all_opened: list[Apart] = []

    def opened(text: str = "", *, name: str = "Decoder", **options: Any) -> Apart:
        path = tmp_path / "made.bin"
        path.write_text(text)
        facts = ("size", "pid")
        all_opened.append(Apart(f"tests.streams.apart_fakes:{name}", path, options=options, facts=facts))
        return all_opened[-1]

    yield opened
    for one in all_opened:
        one.close()


@pytest.fixture
def others() -> set[psutil.Process]:
    """Processes that other tests have left at rest."""
    return set(workers())


def workers() -> list[psutil.Process]:
    """Processes that this one has started to read files, also those that have ended and nobody has asked after."""
    return [child for child in psutil.Process().children() if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return child.status() == psutil.STATUS_ZOMBIE or "streams.worker" in child.cmdline()
    except psutil.NoSuchProcess:
        return False
