"""A server among clients that never read, knock and say nothing, or shout; and one that is killed and started again."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from streams import open_source
from streams.server import QUEUE_BYTES
from tests.app.test_live import Program
from tests.streams.fake_server import serving
from tests.trust.faults.measures import Clockwork, InUse, until, watching
from tests.trust.faults.test_network import LAG_MS, noted
from tests.trust.ledger import Ledger

NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)  # 7 MB a second, does not compress


def test_clients_that_never_read_cost_bounded_memory_and_nobody_else_anything(ledger: Ledger, nightly: bool) -> None:
    lazy = 40 if nightly else 8
    row = ledger.row("server", f"{lazy} clients that never read", most_mb=lazy * QUEUE_BYTES / 1e6 + 50)
    with ExitStack() as stack:
        server = stack.enter_context(serving(Clockwork(frame=NOISE)))
        client = stack.enter_context(open_source(f"tcp://127.0.0.1:{server.ports[0]}"))
        watch = stack.enter_context(watching(client))
        watch.wait(10)
        before = InUse()
        for port in (server.ports[0], *[server.ports[1]] * (lazy - 1)):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        until(lambda: any("reads too slowly" in reason for reason in list(server.counts)))
        begun = len(watch.samples)
        watch.wait(900 if nightly else 60, timeout_s=60)
        noted(row, "lag of the one that reads", watch.lags_ms(begun), 0)
        row.add("memory of the server", seconds=0, mb=before.grown_mb())
        queued = [one.queued for port in server._ports.values() for one in port.clients]
        assert max(queued) <= QUEUE_BYTES and watch.gaps() == 0
    row.check()


def test_those_who_knock_and_say_nothing_or_shout_disturb_nobody(ledger: Ledger, nightly: bool) -> None:
    row = ledger.row("server", "200 who knock: 20 stay, 20 shout, the others go")
    with ExitStack() as stack:
        server = stack.enter_context(serving(Clockwork()))
        client = stack.enter_context(open_source(f"tcp://127.0.0.1:{server.ports[0]}"))
        watch = stack.enter_context(watching(client))
        watch.wait(10)
        before, begun = InUse(), len(watch.samples)
        with ExitStack() as knocking:
            for k in range(200):
                own = socket.create_connection(("127.0.0.1", server.ports[k % 2]), timeout=5)
                knocking.callback(own.close)
                if k % 10 == 0:
                    with suppress(OSError):  # hung up on: as good
                        own.sendall(os.urandom(100_000))
                elif k % 10 != 1:
                    own.close()
            watch.wait(300 if nightly else 45, timeout_s=60)
        noted(row, "lag of the one that listens", watch.lags_ms(begun), 0)
        until(lambda: server.clients == 1)
        until(before.is_back)
        row.found += f"; {before}"
        assert watch.gaps() == 0 and before.grown_mb() < 30
    row.check()


def test_the_places_that_silent_ones_take_are_free_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.server.PATIENCE_S", 1.0)
    row = ledger.row("server", "all 64 places taken by clients that never read", most_s=15)
    hung_up = "clients hung up on, that had taken nothing for 1 s"
    with ExitStack() as stack:
        server = stack.enter_context(serving(Clockwork(frame=NOISE)))
        for _ in range(64):
            own = stack.enter_context(socket.socket())
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            own.connect(("127.0.0.1", server.ports[1]))
        row.add("until they are free", seconds=until(lambda: server.counts[hung_up] == 64))
        with open_source(f"tcp://127.0.0.1:{server.ports[0]}") as client, watching(client) as watch:
            watch.wait(5)
            row.found = f"lag {np.median(watch.lags_ms()):.0f} ms (at most {LAG_MS})"
            assert np.median(watch.lags_ms()) < row.slack * LAG_MS
    row.check()


def test_a_server_that_is_killed_and_started_again_is_found_each_time(
    ledger: Ledger,
    nightly: bool,
    start: Callable[..., Program],
    calm_recording: Path,
) -> None:
    row = ledger.row("server", "killed, and started again at its port", most_s=5.0, most_mb=60)
    server = start("serve", str(calm_recording), "--loop")
    address = server.line().strip()
    port = address.rpartition(":")[2].partition(",")[0]
    live = start("live", address, "--headless", "--json", "--stride", "1")
    live.line()
    before = InUse(live.process.pid)
    kills = 20 if nightly else 1
    for k in range(kills):
        server.kill()
        time.sleep(0.3)
        while not live.said.empty():
            live.line()
        server = start("serve", str(calm_recording), "--loop", "--port", port)
        assert server.line().strip() == address
        back = time.monotonic()
        label = json.loads(live.line())
        row.add(f"kill {k}", seconds=time.monotonic() - back, mb=before.grown_mb())
        assert label["t_end_us"] > 0
    row.found = f"a label after {row.worst_s:.1f} s at most; {before}"
    _, told = live.interrupt()
    assert f"gaps (reconnected): {kills}" in told and "Traceback" not in told
    row.check()
