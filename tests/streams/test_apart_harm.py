"""Files whose decoder hangs, crashes, eats or lies cost one line; and when its process ends."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from streams import RecordingError, StreamError, limits, open_source
from streams.apart import Apart
from streams.errors import CutShortError
from streams.items import Item
from streams.parcels import Parcel, receive
from streams.worker_process import TOO_LONG, Idle, WorkerProcess
from tests.streams.apart_tools import ROOT, Open, workers
from tests.streams.test_prophesee import FILES, write

# --- what goes wrong ----------------------------------------------------------------------------------------------

CRASHES = {"crash": "SIGSEGV", "abort": "SIGABRT"}


@pytest.mark.parametrize("when", ["open", "read"])
@pytest.mark.parametrize("what", CRASHES)
def test_a_crash_is_told_in_one_line(opened: Open, when: str, what: str) -> None:
    says = rf"made.bin: its decoder crashed \({CRASHES[what]}\); copy the file again, or leave it out$"
    with pytest.raises(RecordingError, match=says):
        _use(opened, when, what)
    list(opened().read("items", 2))


@pytest.mark.parametrize("when", ["open", "read"])
def test_a_decoder_that_is_killed_is_not_the_files_fault(opened: Open, when: str) -> None:
    says = r"made.bin: its decoder was killed \(SIGKILL\); make room in memory, or leave the file out$"
    with pytest.raises(CutShortError, match=says):
        _use(opened, when, "be killed")
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


@pytest.mark.parametrize(
    "row, says",
    [
        (["events", 0, 1 << 62, 1], "an impossible span"),
        (["events", 5, 1, 1], "an impossible span"),
        (["frame", -(1 << 62), 0, 1, 16], "an impossible span"),
        (["events", 0, 1, 1], "a polarity is neither 0 nor 1"),
    ],
)
def test_values_that_a_decoder_was_made_to_say_are_not_believed(row: list[str | int], says: str) -> None:
    head = json.dumps({"items": [row]}).encode()
    stream = io.BytesIO(struct.pack("<I", len(head)) + head + b"\x02" * 16)
    with pytest.raises(ValueError, match=says):
        receive(stream.readinto)
