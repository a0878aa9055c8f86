"""Fixtures that several tests of the program share: what it does in other processes, done here."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock

import pytest

from streams import write_aedat4
from tests.app.fakes import PoolHere
from tests.conftest import moving_square


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing of the user's own is read or written."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VELORA_DATA", str(folder))
        yield folder


def write_square(path: Path, frames: int = 16) -> Path:
    """A short recording of a moving square, 64 x 48 at 30 fps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aedat4(path, (64, 48), (64, 48)) as writer:
        for item in moving_square(frames):
            writer.write(item)
    return path


class ThreadContext:
    """What `Readers` needs of multiprocessing, with threads of this process: these start at once."""

    Pipe = staticmethod(multiprocessing.Pipe)
    RawArray = staticmethod(multiprocessing.RawArray)

    class Process:
        exitcode = -9

        def __init__(self, *, target: Callable[..., None], args: tuple[Connection, object, object], **_: object):
            link = Connection(os.dup(args[0].fileno()))  # a process has a copy of its own

            def work() -> None:
                with contextlib.suppress(EOFError, OSError, SystemExit), link:
                    target(link, *args[1:])

            self._thread = threading.Thread(target=work, name="reader", daemon=True)
            self.start = self._thread.start

        def kill(self) -> None: ...
        def join(self, timeout: float) -> None: ...


@pytest.fixture
def readers_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes seconds to start; where that is not what is tested, threads do."""
    monkeypatch.setattr("app.labelling.readers.multiprocessing.get_context", lambda _: ThreadContext)
    monkeypatch.setattr("app.labelling.reader._prepare", lambda: None)
    monkeypatch.setattr("app.labelling.reader.faulthandler", Mock())


@pytest.fixture
def two(tmp_path: Path, readers_in_threads: None) -> Path:
    """Two short recordings."""
    for name, frames in (("a", 10), ("b", 12)):
        write_square(tmp_path / "in" / f"{name}.aedat4", frames)
    return tmp_path / "in"


_TREACHERY = """
import os, signal, time
import app.feed

opened = app.feed.open_feed

def treacherous(arguments, address):
    name = os.path.basename(address)
    if "crashes" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exits" in name:
        os._exit(7)
    if "hangs" in name:
        time.sleep(600)
    if "slow" in name:
        time.sleep(0.3)
    if "kills its labeller" in name:
        os.kill(os.getppid(), signal.SIGKILL)
    return opened(arguments, address)

app.feed.open_feed = treacherous
"""


@pytest.fixture
def treacherous(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that start from now on, opening a recording whose name says so crashes, exits, hangs, or is slow."""
    monkeypatch.setenv("PYTHONPATH", with_treachery(tmp_path_factory.mktemp("treachery")))


def with_treachery(folder: Path) -> str:
    """The PYTHONPATH of treacherous processes."""
    (folder / "sitecustomize.py").write_text(_TREACHERY)
    return os.pathsep.join([str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def pool_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets are read without processes, which take seconds to start."""
    monkeypatch.setattr("app.datasets.pool_of", PoolHere)
