"""What listens, and where: this machine alone, unless somebody says otherwise."""

from __future__ import annotations

import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import psutil

from app.page import Page
from tests.app.conftest import data_folder  # noqa: F401 (a fixture)
from tests.app.fakes import FakeRecognizer
from tests.trust.faults.page_tools import PATIENCE_S, attempt
from tests.trust.ledger import Ledger


def listening(pid: int | None = None) -> set[str]:
    """The addresses at which a process and those that it has started listen."""
    process = psutil.Process(pid)
    links = [link for own in (process, *process.children(recursive=True)) for link in own.net_connections("inet")]
    return {link.laddr.ip for link in links if link.status == psutil.CONN_LISTEN}


def test_servers_are_reached_from_this_machine_alone(small_recording: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: from other machines", "the page, velora serve, and what is printed of them")
    before = listening()
    with Page(FakeRecognizer, {"square": small_recording}) as page, attempt(row, "the page"):  # type: ignore[arg-type]
        assert listening() - before <= {"127.0.0.1"} and page.url.startswith("http://127.0.0.1:")
    line = [sys.executable, "-c", "from app.cli import main; main()", "serve", str(small_recording), "--loop"]
    server = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        with attempt(row, "velora serve"):
            assert server.stdout is not None
            assert server.stdout.readline().startswith("tcp://127.0.0.1:")
            end = time.monotonic() + PATIENCE_S
            while not (hosts := listening(server.pid)) and time.monotonic() < end:
                time.sleep(0.1)
            assert hosts and all(ip_address(host).is_loopback for host in hosts), hosts
    finally:
        server.kill()
        server.wait(PATIENCE_S)
    row.check()
