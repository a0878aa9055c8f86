"""Live feeds as a person uses them: programs that talk over real sockets, are stopped, killed and started again."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import pytest

from app.channel import Settings
from app.cli import main
from app.demo import recordings_of
from app.page import Page
from streams import RgbFrame, open_source, write_aedat4
from tests.app.fakes import FakeRecognizer, until, viewer_threads
from tests.app.test_page import CHROMIUM, Tab, browser  # noqa: F401 (a fixture)
from tests.conftest import moving_square

PROGRAM = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
PAIR = ("t_start_us", "t_end_us")


class Program:
    """A velora command in a process of its own, whose output is read as it comes."""

    def __init__(self, *line: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: Queue[str] = Queue()
        self.errors: list[str] = []
        assert self.process.stdout is not None and self.process.stderr is not None
        self._readers = [
            threading.Thread(target=lambda out: [self.said.put(line) for line in out], args=[self.process.stdout]),
            threading.Thread(target=lambda err: self.errors.extend(err), args=[self.process.stderr]),
        ]
        for reader in self._readers:
            reader.start()

    def line(self, timeout_s: float = 40) -> str:
        try:
            return self.said.get(timeout=timeout_s)
        except Empty:
            raise AssertionError(f"it says nothing; its errors: {''.join(self.errors)}") from None

    def interrupt(self) -> tuple[float, str]:
        """Ctrl-C: how long it takes to end, and what it says last."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        took = time.monotonic() - began
        for reader in self._readers:
            reader.join(10)
        return took, "".join(self.errors)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(10)


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def start(*line: str) -> Program:
        programs.append(Program(*line))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of a moving square."""
    path = tmp_path_factory.mktemp("live") / "square.aedat4"
    with write_aedat4(path, (64, 48), (64, 48)) as writer:
        for item in moving_square(300):
            writer.write(item)
    return path


@pytest.fixture(scope="module")
def calm_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames a second, which slow machines keep up with, for 40 s, in which they start."""
    path = tmp_path_factory.mktemp("live") / "calm.aedat4"
    with write_aedat4(path, (64, 48), (64, 48)) as writer:
        for item in moving_square(400, period_us=100_000):
            writer.write(item)
    return path


def test_live_labels_equal_those_of_replay(start: Callable[..., Program], calm_recording: Path, capsys) -> None:
    assert main(["replay", str(calm_recording), "--json", "--speed", "max", "--stride", "2"]) == 0
    replayed = {tuple(row[k] for k in PAIR): row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    for _ in range(4):  # a machine that is slow just then has a wider stride
        server = start("serve", str(calm_recording), "--loop")
        address = server.line().strip()
        assert address.startswith("tcp://127.0.0.1:") and "," in address
        live = start("live", address, "--headless", "--json", "--stride", "2")
        rows = (json.loads(live.line()) for _ in range(40))  # after its first pass a loop has other times
        equal = list(islice((row for row in rows if tuple(row[k] for k in PAIR) in replayed), 6))
        took, told = live.interrupt()
        server.kill()
        if len(equal) >= 3:
            break
    assert len(equal) >= 3
    for row in equal:
        other = replayed[tuple(row[k] for k in PAIR)]
        assert row["label"] == other["label"] and row["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
    assert live.process.returncode == 130 and "samples" in told and "Traceback" not in told
    assert took < 10


@pytest.mark.timing
def test_ctrl_c_ends_each_mode_at_once_with_a_summary(
    start: Callable[..., Program], recording: Path, tmp_path: Path, capsys
) -> None:
    server = start("serve", str(recording), "--loop")
    address = server.line().strip()
    live = start("live", address, "--headless", "--json", "--record", str(tmp_path / "live.aedat4"))
    recorder = start("record", address, str(tmp_path / "recorded.aedat4"))
    live.line()
    time.sleep(2.0)  # of input: sixty samples
    seconds = {}
    for name, program, word in (("live", live, "samples"), ("record", recorder, "events"), ("serve", server, "tcp")):
        seconds[name], told = program.interrupt()
        assert word in told and "Traceback" not in told and program.process.returncode == 130
    with capsys.disabled():
        print("\n[Ctrl-C: " + ", ".join(f"{name} {took:.2f} s" for name, took in seconds.items()) + "]")
    assert max(seconds.values()) < 5
    for name in ("live", "recorded"):
        with open_source(tmp_path / f"{name}.aedat4") as source:
            assert not source.counts and len(list(source)) > 20  # its table is there
    with (tmp_path / "live.labels.csv").open() as file:
        assert next(csv.reader(file)) == ["recording", "start_us", "end_us", "label", "confidence"]


def test_a_server_that_comes_back_is_found_again(start: Callable[..., Program], recording: Path, capsys) -> None:
    server = start("serve", str(recording), "--loop")
    address = server.line().strip()
    port = address.rpartition(":")[2].partition(",")[0]
    live = start("live", address, "--headless", "--json", "--stride", "1")
    before = json.loads(live.line())
    server.kill()
    while not live.said.empty():
        before = json.loads(live.line())
    assert start("serve", str(recording), "--loop", "--port", port).line().strip() == address
    back = time.monotonic()
    while json.loads(live.line())["t_start_us"] <= before["t_end_us"]:  # said before it was killed
        pass
    with capsys.disabled():
        print(f"\n[a label {time.monotonic() - back:.1f} s after the server's return]")
    _, told = live.interrupt()
    assert "gaps (reconnected): 1" in told


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP") or not Path("/proc").exists(), reason="needs /proc")
def test_a_client_that_is_stopped_costs_the_server_no_memory(start: Callable[..., Program], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with write_aedat4(tmp_path / "noise.aedat4", None, (640, 480)) as writer:
        for k in range(40):
            writer.write(RgbFrame(20_000 * k, 20_000 * k + 5_000, noise))
    server = start("serve", str(tmp_path / "noise.aedat4"), "--loop")
    address = server.line().strip()
    client = start("record", address, str(tmp_path / "out.aedat4"))
    until(lambda: (tmp_path / "out.aedat4").exists() and (tmp_path / "out.aedat4").stat().st_size > 10e6)
    before = resident_mb(server.process.pid)
    os.kill(client.process.pid, signal.SIGSTOP)
    time.sleep(4)  # 180 MB
    after = resident_mb(server.process.pid)
    os.kill(client.process.pid, signal.SIGCONT)
    assert after - before < 20
    _, told = server.interrupt()
    assert "reads too slowly" in told


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_the_page_shows_a_live_feed_and_says_when_it_is_lost(
    browser,  # noqa: F811
    start: Callable[..., Program],
    recording: Path,
) -> None:
    server = start("serve", str(recording), "--loop")
    address = server.line().strip()
    port = address.rpartition(":")[2].partition(",")[0]
    with Page(lambda: FakeRecognizer(), {address: address}) as page:  # type: ignore[arg-type,return-value]
        tab = Tab(browser, page.url)
        tab.moves()
        tab.wait("document.querySelectorAll('#bars .name')[0].textContent !== ''")
        assert address in tab.text("status") and "ms late" in tab.text("status")
        assert float(re.search(r"Time([\d.]+) s", tab.text("status"))[1]) < 60  # since we joined, not by its clock
        tab.page.click("#play")
        tab.stands()
        tab.page.click("#play")
        tab.moves()
        server.kill()
        tab.wait("document.getElementById('health').textContent.includes('connection lost')")
        start("serve", str(recording), "--loop", "--port", port).line()
        tab.wait("!document.getElementById('health').textContent.includes('connection lost')")
        tab.moves()
        tab.page.close()
        assert tab.errors == []
    until(lambda: not viewer_threads())


def test_the_page_records_a_live_feed_and_its_labels(
    browser,  # noqa: F811
    start: Callable[..., Program],
    recording: Path,
    tmp_path: Path,
) -> None:
    server = start("serve", str(recording), "--loop")
    address = server.line().strip()
    sources = {address: address, "recorded": recording}
    with Page(lambda: FakeRecognizer(), sources, settings=Settings(record_to=tmp_path)) as page:  # type: ignore[arg-type,return-value]
        tab = Tab(browser, page.url)
        tab.moves()
        assert tab.text("record") == "Record"
        tab.page.click("#record")
        tab.wait("/^Stop · 0:0[2-9] · \\d+\\.\\d MB$/.test(document.getElementById('record').textContent)")
        tab.page.click("#record")
        tab.wait("document.getElementById('message').textContent.includes(' events, ')")
        assert tab.text("record") == "Record"
        tab.page.click("#record")  # and again, until the tab goes
        tab.wait("document.getElementById('record').textContent.startsWith('Stop · 0:01')")
        tab.page.close()
        assert tab.errors == []
    until(lambda: not viewer_threads())
    first, second = sorted(tmp_path.glob("*.aedat4"))
    for path in (first, second):
        with open_source(path) as source:
            frames = [item for item in source if isinstance(item, RgbFrame)]
        assert len(frames) > 15 and path.name.startswith("127-0-0-1-")
        rows = path.with_name(f"{path.stem}.labels.csv").read_text().splitlines()
        assert rows[0] == "recording,start_us,end_us,label,confidence" and len(rows) > 1


def test_only_what_is_live_can_be_recorded(browser, recording: Path, tmp_path: Path) -> None:  # noqa: F811
    with Page(lambda: FakeRecognizer(), {"it": recording}, settings=Settings(record_to=tmp_path)) as page:  # type: ignore[arg-type,return-value]
        tab = Tab(browser, page.url)
        tab.moves()
        assert not tab.page.locator("#record").is_visible()
        tab.page.close()


def test_recordings_go_to_the_folder_named_or_this_one(tmp_path: Path) -> None:
    assert recordings_of(Namespace(record_to=None)) == Path.cwd()
    assert recordings_of(Namespace(record_to=tmp_path / "new")) == tmp_path / "new" and (tmp_path / "new").is_dir()


def test_filters_reach_every_mode(recording: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "turned.aedat4"
    options = ["--roi", "8,4,40,30", "--rotate", "90", "--flip", "horizontal", "--denoise"]
    assert main(["record", str(recording), str(out), *options]) == 0
    assert "removed as noise, per cent" in capsys.readouterr().err
    assert main(["serve", str(recording), "--denoise"]) == 0
    assert "removed as noise, per cent" in capsys.readouterr().err
    with open_source(out) as source:
        assert source.event_size == source.frame_size == (30, 40)
    assert main(["record", str(recording), str(out), *options]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["record", str(recording), str(out), "--force", "--seconds", "1", "--model", "demo"]) == 0
    with open_source(out) as source:
        assert 25 <= sum(isinstance(item, RgbFrame) for item in source) <= 35
    assert main(["replay", str(recording), "--roi", "0,0,100,100", "--json"]) == 1
    assert "not within the sensor" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["live", "serve", "record"])
def test_what_cannot_be_is_one_line(command: str, tmp_path: Path, recording: Path, capsys) -> None:
    more = {"live": ["--headless"], "serve": [], "record": [str(tmp_path / "out.aedat4")]}[command]
    for address, message in (("tcp://127.0.0.1:9", "nobody answers at port 9"), ("tcp://here", "write it as tcp://")):
        assert main([command, address, *more]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    if command == "live":
        assert main(["live", str(recording), "--headless"]) == 1
        assert "velora replay reads it" in capsys.readouterr().err
        for option, value in (("--record-to", str(tmp_path)), ("--name", "cards.lan")):
            assert main(["live", "tcp://here", "--headless", option, value]) == 1
            assert f"{option} is of the page" in capsys.readouterr().err
    if command == "record":
        assert main(["record", str(recording), *more, "--random-weights"]) == 1
        assert "--model names it" in capsys.readouterr().err


def test_replay_is_for_recordings(start: Callable[..., Program], recording: Path, capsys) -> None:
    address = start("serve", str(recording), "--loop").line().strip()
    assert main(["replay", address]) == 1
    assert "is live: velora live --headless" in capsys.readouterr().err
