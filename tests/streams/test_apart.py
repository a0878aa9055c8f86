"""Files read in a process of their own: all that they hold, and one line where their decoder hangs, crashes or eats."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from streams import RecordingError, RgbFrame, StreamError, limits, open_source
from streams.apart import Apart
from streams.items import EventPacket, Item
from streams.parcels import Parcel
from streams.worker_process import TOO_LONG, Idle, WorkerProcess
from tests.streams.apart_fakes import frame, packet
from tests.streams.test_prophesee import FILES, write

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


def assert_same(found: list[Item], expected: list[Item]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, EventPacket) and isinstance(other, EventPacket):
            assert (one.t_start_us, one.t_end_us) == (other.t_start_us, other.t_end_us)
            assert np.array_equal(one.events, other.events)
        if isinstance(one, RgbFrame) and isinstance(other, RgbFrame):
            assert (one.t_start_us, one.t_end_us) == (other.t_start_us, other.t_end_us)
            assert np.array_equal(one.image, other.image) and one.image.shape == other.image.shape


# --- what is read -------------------------------------------------------------------------------------------------


def test_all_items_come_in_order_with_their_arrays(opened: Open) -> None:
    apart = opened(size=(32, 24))
    assert apart.facts["size"] == (32, 24) and apart.facts["pid"] != os.getpid()
    assert_same(list(apart.read("items", 12)), [*map(packet, range(12)), *map(frame, range(12))])
    assert list(apart.read("items", 0)) == []


def test_arrays_too_large_for_the_shared_memory_come_too(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker_process._MEMORY_BYTES", 1 << 12)
    assert_same(list(opened().read("items", 4)), [*map(packet, range(4)), *map(frame, range(4))])


def test_without_shared_memory_the_pipe_carries_all(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    assert_same(list(opened().read("items", 4)), [*map(packet, range(4)), *map(frame, range(4))])


def test_what_is_lost_is_counted_here(opened: Open) -> None:
    apart = opened()
    assert apart.counts == {"seen at once": 2}
    for _ in apart.read("items", 5):
        pass
    assert apart.counts == {"seen at once": 2, "seen": 5}
    apart.counts.clear()
    list(apart.read("items", 3))
    assert apart.counts == {"seen": 3}


def test_iterations_go_on_side_by_side_and_may_be_left(opened: Open) -> None:
    apart = opened()
    one, other, left = (apart.read("items", 8, first) for first in (0, 100, 200))
    assert_same([next(left)], [packet(200)])
    found = [item for pair in zip(one, other, strict=True) for item in pair]
    assert_same(found[:16:2], [*map(packet, range(8))])
    assert_same(found[1:16:2], [*map(packet, range(100, 108))])
    left.close()
    assert_same(list(apart.read("items", 2)), [packet(0), packet(1), frame(0), frame(1)])


def test_iterations_side_by_side_never_get_one_anothers_items(opened: Open) -> None:
    """However fast the process answers: frames are made at once, and each answer is there before it is asked for."""
    apart = opened()
    kinds = [apart.read("many", colour) for colour in (1, 2, 3)]
    for images in zip(*kinds, strict=True):
        for colour, item in zip((1, 2, 3), images, strict=True):
            assert isinstance(item, RgbFrame) and (item.image == colour).all()


def test_it_reads_on_ahead_by_one_answer(opened: Open) -> None:
    apart = opened()
    items = apart.read("items", 1_000)
    next(items)
    (made,) = apart.read("made")
    assert isinstance(made, RgbFrame) and 2 <= made.t_end_us <= 6  # of 1.6 MB; an answer has 4 MB


def test_a_process_reads_one_file_after_the_other_and_several_at_once_each_their_own(opened: Open) -> None:
    first = opened()
    pid = first.facts["pid"]
    list(first.read("items", 3))
    first.close()
    again, beside = opened(), opened()
    assert again.facts["pid"] == pid != beside.facts["pid"]


def test_many_files_do_not_wear_out_one_process(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker_process._MOST_FILES", 3)
    pids = []
    for _ in range(6):
        apart = opened()
        pids.append(apart.facts["pid"])
        apart.close()
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1 and pids[0] != pids[3]


# --- what goes wrong ----------------------------------------------------------------------------------------------

CRASHES = {"crash": "SIGSEGV", "abort": "SIGABRT", "be killed": "SIGKILL"}


@pytest.mark.parametrize("when", ["open", "read"])
@pytest.mark.parametrize("what", CRASHES)
def test_a_crash_is_told_in_one_line(opened: Open, when: str, what: str) -> None:
    says = rf"made.bin: its decoder crashed \({CRASHES[what]}\); copy the file again, or leave it out$"
    with pytest.raises(RecordingError, match=says):
        _use(opened, when, what)
    list(opened().read("items", 2))


@pytest.mark.skipif(limits.resource is None, reason="the system does not limit processor time")
@pytest.mark.parametrize("when", ["open", "read"])
def test_a_decoder_that_spins_is_ended(opened: Open, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr("streams.limits.BUSY_S", 0.5)
    with pytest.raises(RecordingError, match=r"made.bin: its decoder hung, and was ended; copy the file again"):
        _use(opened, when, "hang")
    list(opened().read("items", 2))


@pytest.mark.parametrize("what", ["hang", "sleep"])
def test_a_decoder_that_does_nothing_for_too_long_is_ended(
    opened: Open, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("streams.limits.WAITING_S", 0.5)
    with pytest.raises(RecordingError, match=r"made.bin: its decoder hung, and was ended; copy the file again"):
        _use(opened, "read", what)


def test_one_that_does_not_end_itself_is_killed(opened: Open) -> None:
    apart = opened()
    apart._timeout_s = 0.5
    os.kill(apart.facts["pid"], signal.SIGSTOP)
    with pytest.raises(RecordingError, match=r"made.bin: its decoder hung, and was ended"):
        list(apart.read("items", 2))
    assert not psutil.pid_exists(apart.facts["pid"])


def test_a_large_file_has_more_time_and_memory(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.touch()
    with large.open("wb") as file:
        file.truncate(1 << 30)
    assert limits.Limits.of(small) == limits.Limits.of(tmp_path / "gone") == limits.Limits(3.0, 15.0, 320 << 20)
    assert limits.Limits.of(large).busy_s > 100 and limits.Limits.of(large).memory_bytes > 16 << 30


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not limit memory")
@pytest.mark.parametrize("when", ["open", "read"])
def test_a_decoder_that_eats_memory_is_refused_it(opened: Open, when: str) -> None:
    with pytest.raises(RecordingError, match=r"made.bin: takes more memory than such a file should; copy the file"):
        _use(opened, when, "eat")


@pytest.mark.parametrize("when", ["open", "read"])
@pytest.mark.parametrize(
    "what, error, says",
    [
        ("refuse", RecordingError, r"^made.bin: holds nothing; record again$"),
        ("object", ValueError, r"^made.bin is not to its taste$"),
        ("fail", RuntimeError, r"^made.bin: KeyError: 'a defect'$"),
    ],
)
def test_its_errors_are_raised_here_and_name_the_file_as_it_was_given(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, what: str, error: type, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made.bin").write_text(f"{when} {what}")
    with pytest.raises(error, match=says):
        apart = Apart("tests.streams.apart_fakes:Decoder", Path("made.bin"), options={}, facts=())
        with contextlib.closing(apart):
            list(apart.read("bad", str(tmp_path / "made.bin")))
    list(opened().read("items", 2))


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"size": "wide", "pid": 5}},
        {"facts": {"size": [64, 48]}},
        {"facts": []},
        {"counts": {"seen": -1}},
        {"counts": {"seen": "many"}},
        {"counts": None},
        {"end": "soon"},
        {"fault": "ValueError"},
        {"fault": ["ValueError"], "text": "x"},
    ],
    ids=str,
)
def test_what_a_decoder_says_is_not_believed(
    opened: Open, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    answer = WorkerProcess.answer

    def lying(process: WorkerProcess, timeout_s: float) -> Parcel:
        head, items = answer(process, timeout_s)
        return ({**head, **change}, items) if set(change) & {*head, "fault"} else (head, items)

    monkeypatch.setattr(WorkerProcess, "answer", lying)
    with pytest.raises(RecordingError, match=r"made\.bin: its decoder says what makes no sense; copy the file again"):
        list(opened().read("items", 2))


def test_what_a_library_prints_does_no_harm(opened: Open) -> None:
    assert len(_use(opened, "read", "write")) == 2


def test_a_file_pays_not_for_one_before_it(opened: Open) -> None:
    for _ in range(3):
        apart = opened(name="Crashing")
        list(apart.read("items", 1))
        apart.close()


def test_where_no_process_starts_one_line_says_so(idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for executable, says in (("/bin/false", "does not start"), ("/gone", "no process starts for it")):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(StreamError, match=f"a.raw: cannot be read: .*{says}"):
            open_source(write(tmp_path, "a.raw", FILES["evt2.raw"]))


def _use(opened: Open, when: str, what: str) -> list[Item]:
    apart = opened(f"{when} {what}")
    return list(apart.read("bad", "made.bin"))


# --- ends ---------------------------------------------------------------------------------------------------------


def test_closing_ends_what_reads_it_elsewhere(others: set[psutil.Process], opened: Open) -> None:
    apart, found = opened("read sleep"), list[Item]()
    thread = threading.Thread(target=lambda: found.extend(apart.read("bad", "made.bin")))
    thread.start()
    while not apart._due:
        time.sleep(0.01)
    apart.close()
    thread.join(10)
    assert not thread.is_alive() and len(found) == 0 and others.issuperset(workers())
    assert list(apart.read("items", 5)) == []
    apart.close()


def test_nothing_is_left_behind(others: set[psutil.Process], opened: Open, idle: Idle) -> None:
    gc.collect()  # of what tests before have left
    descriptors = psutil.Process().num_fds() if hasattr(psutil.Process(), "num_fds") else 0
    for text in ("", "open crash", "open refuse", "read crash"):
        try:
            apart = opened(text)
            next(apart.read("bad", "made.bin"))
            apart.close()
        except RecordingError:
            pass
    gc.collect()
    idle.close()
    assert others.issuperset(workers())
    assert not descriptors or psutil.Process().num_fds() == descriptors


_OPENS = """
import sys, time
from streams import open_source
source = open_source(sys.argv[1])
items = iter(source)
next(items)
import psutil
print(*[child.pid for child in psutil.Process().children()], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_program_that_started_it(tmp_path: Path, how: signal.Signals) -> None:
    pytest.importorskip("faery")
    path = write(tmp_path, "evt2.raw")
    with subprocess.Popen(
        [sys.executable, "-c", _OPENS, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as program:
        assert program.stdout is not None
        (pid,) = map(int, program.stdout.readline().split())
        program.send_signal(how)
        program.wait(20)
    _until_gone(pid)


def test_one_that_hangs_ends_itself_when_nobody_is_left(tmp_path: Path, idle: Idle) -> None:
    path = tmp_path / "made.bin"
    path.write_text("open hang")
    asks = {"open": "tests.streams.apart_fakes:Decoder", "path": str(path), "options": {}, "facts": []}
    asks["limits"] = {"busy_s": 0.5, "waiting_s": 2.0, "memory_bytes": 1 << 30}
    command = [sys.executable, "-P", "-m", "streams.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(asks).encode() + b"\n")
        worker.stdin.close()
        assert worker.wait(30) in TOO_LONG


def test_a_copy_of_the_program_shares_no_process_with_it(opened: Open, idle: Idle) -> None:
    opened().close()
    assert idle.take().is_alive
    idle.forget()
    assert not idle._waiting


def _until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


# --- sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_recordings_that_native_libraries_decode_are_opened_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("faery")
    monkeypatch.setitem(sys.modules, "faery", None)  # here it cannot be imported
    path = write(tmp_path, name)
    with open_source(path) as source:
        whole = [item for item in source if isinstance(item, EventPacket)]
        assert sum(len(item.events) for item in whole) == 6_000
        assert source.name == name and source.path == path and source.event_size == (64, 48)
        later = [item for item in source.read(50_000) if isinstance(item, EventPacket)]
        assert np.array_equal(later[-1].events, whole[-1].events)
