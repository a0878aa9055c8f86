"""A live feed over networks that delay, crumble, merge, freeze, cut and lie: late by so much at most, and soon well."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest

from streams import open_source
from streams.server import Server
from tests.streams.fake_server import events_at, frame_at, packed, serving
from tests.trust.faults.measures import PERIOD_US, Clockwork, InUse, Watch, until, watching
from tests.trust.faults.proxy import Proxy, between, crumbs
from tests.trust.ledger import Ledger, Row

LAG_MS = 250  # a frame and its events through two sockets, where nothing is wrong
BACK_S = 5  # until samples come again after a fault has ended


@contextmanager
def feed() -> Iterator[tuple[Watch, list[Proxy], Server]]:
    """A Clockwork behind two proxies, and who watches it; all is well."""
    with (
        serving(Clockwork()) as server,
        between(server.ports) as (address, proxies),
        open_source(address) as client,
        watching(client) as watch,
    ):
        watch.wait(10)
        yield watch, proxies, server


def noted(row: Row, what: str, lags: np.ndarray, beyond_ms: float) -> None:
    """The lag of a case, which must not be more than what the network adds and LAG_MS."""
    p95, most = float(np.percentile(lags, 95)), beyond_ms + LAG_MS
    row.found = f"lag p50 {np.median(lags):.0f} ms, p95 {p95:.0f} ms (at most {most:.0f})"
    failure = "" if p95 <= row.slack * most else f"p95 of the lag is {p95:.0f} ms"
    row.add(what, seconds=p95 / 1e3, failure=failure)


@pytest.mark.parametrize(
    ("what", "faults", "beyond_ms"),
    [
        ("nothing wrong", {}, 0),
        ("0.1 s late, and up to 0.1 s more", {"delay_s": 0.1, "jitter_s": 0.1}, 400),
        ("in pieces of 1 to 7 bytes", {"cut": crumbs(7)}, 0),
        ("0.3 s of it in one piece", {"merge_s": 0.3}, 350),
    ],
)
def test_samples_come_in_time_and_in_order(
    ledger: Ledger, nightly: bool, what: str, faults: dict[str, object], beyond_ms: float
) -> None:
    row = ledger.row("network", what)
    with feed() as (watch, proxies, _):
        for proxy in proxies:
            vars(proxy).update(faults)
        watch.wait(8)
        begun = len(watch.samples)
        watch.wait(900 if nightly else 60, timeout_s=90)
        noted(row, what, watch.lags_ms(begun), beyond_ms)
        ends = [end for _, end, _ in watch.samples]
        assert watch.gaps() == 0 and (np.diff(ends) > 0).all()
        lost = watch.source.counts["samples left out, since showing them takes too long"]
        assert round((ends[-1] - ends[0]) / PERIOD_US) + 1 == len(ends) + lost  # what does not come is counted
        row.found += f"; {lost} of {len(ends) + lost} left out, and counted"
        # a machine that stops for a moment bunches, too
        assert not lost or "merge_s" in faults or (row.slack > 1 and lost <= len(ends) / 4)
    row.check()


def test_a_network_that_freezes_is_said_and_what_it_held_is_caught_up_with(ledger: Ledger, nightly: bool) -> None:
    row = ledger.row("network", "nothing passes for a while, then all of it", most_s=BACK_S)
    before = InUse()
    with feed() as (watch, proxies, _):
        for k in range(5 if nightly else 1):
            for proxy in proxies:
                proxy.freeze()
            said_s = until(lambda: watch.source.warning.startswith("no data for"))
            time.sleep(1)
            frozen = len(watch.samples)
            for proxy in proxies:
                proxy.thaw()
            until(lambda: len(watch.samples) > frozen)  # noqa: B023
            back_s = until(lambda: watch.lags_ms()[-1] < LAG_MS and watch.source.warning == "")
            row.add(f"freeze {k}", seconds=back_s, mb=before.grown_mb())
            row.found = f"said after {said_s:.1f} s (at most 5), memory +{row.worst_mb:.0f} MB (at most 50)"
            assert said_s < row.slack * 5 and before.grown_mb() < 50
    row.check()


@pytest.fixture
def soon_silent(monkeypatch: pytest.MonkeyPatch, nightly: bool) -> None:
    """A connection counts as dead after a second, where there is little time."""
    if not nightly:
        monkeypatch.setattr("streams.network.STALL_S", 0.5)
        monkeypatch.setattr("streams.network.SILENT_S", 1.0)


def test_a_connection_that_is_dead_and_never_closed_is_given_up(soon_silent: None, ledger: Ledger) -> None:
    """As behind a tunnel or a router that has forgotten it: the other side is there, but not on this connection."""
    row = ledger.row("network", "half-open for ever, a new connection works", most_s=10 + BACK_S)
    with feed() as (watch, proxies, _):
        for proxy in proxies:
            proxy.forget()
        time.sleep(0.3)
        begun, frozen = time.monotonic(), len(watch.samples)
        until(lambda: watch.source.warning.startswith("no data for"))
        until(lambda: len(watch.samples) > frozen + 5)
        row.add("half-open", seconds=time.monotonic() - begun)
        row.found = f"samples again after {row.worst_s:.1f} s, with one gap"
        assert watch.gaps() == 1 and watch.source.warning == ""
        assert watch.source.counts["gaps (reconnected)"] == 1
    row.check()


def test_a_dead_connection_to_a_server_that_is_dead_too_is_one_gap(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.network.SILENT_S", 0.3)
    row = ledger.row("network", "half-open, and silent at each new connection", most_s=BACK_S)
    with feed() as (watch, proxies, _):
        for proxy in proxies:
            proxy.delay_s = 30.0
        connected = proxies[0].connected
        until(lambda: proxies[0].connected >= connected + 2)
        for proxy in proxies:
            proxy.delay_s = 0.0
        proxies[0].hang_up()
        frozen = len(watch.samples)
        back_s = until(lambda: len(watch.samples) > frozen + 5)
        row.add("silent", seconds=back_s)
        assert watch.source.counts["gaps (reconnected)"] == 1
    row.check()


GARBAGE = {
    "noise": bytes(np.random.default_rng(0).integers(0, 256, 4_096, np.uint8)),
    "zeros": bytes(64),
    "a negative size": b"\0\0\0\0\xff\xff\xff\xff",
    "a packet of 2 GB": b"\0\0\0\0\xff\xff\xff\x7f",
    "a page": b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
}


def test_garbage_ends_it_with_one_line(ledger: Ledger) -> None:
    row = ledger.row("network", "garbage between packets", most_s=2.0, most_mb=50)
    for name, garbage in GARBAGE.items():
        with feed() as (watch, proxies, _):
            before = InUse()
            proxies[0].inject(garbage)
            took = until(lambda: watch.failure is not None or not watch.thread.is_alive())
            line = str(watch.failure)
            well = "sends what is no packet" in line and "\n" not in line
            row.add(name, seconds=took, mb=before.grown_mb(), failure="" if well else line)
    row.check()


def test_packets_of_another_time_are_gaps_and_hold_up_nothing(ledger: Ledger, nightly: bool) -> None:
    row = ledger.row("network", "one packet whose time is hours or years away", most_s=2.0)
    steps_s = (3_600, -3_600, 300_000_000, -1, 5) if nightly else (3_600, -1)
    for step_s, kind in product(steps_s, ("events", "frame")):
        with feed() as (watch, proxies, _):
            at, seen = time.monotonic_ns() // 1_000 + step_s * 1_000_000, len(watch.samples)
            item = events_at(at, at + 10_000) if kind == "events" else frame_at(at, at + 10_000)
            proxies[kind == "frame"].inject(packed(item))
            watch.wait(40)
            pause_s = max(np.diff([came for came, _, _ in watch.samples[seen - 1 :]]))
            row.add(f"{kind} {step_s} s away", seconds=pause_s)
            assert 1 <= watch.gaps() <= 2 and (np.diff([end for _, end, _ in watch.samples]) > 0).all()
    row.found = f"the longest pause {row.worst_s:.2f} s, two gaps at most"
    row.check()


def test_a_packet_that_never_ends_is_said_and_given_up(soon_silent: None, ledger: Ledger) -> None:
    """Its size is one that a packet may have: all that follows would be taken for its content."""
    row = ledger.row("network", "a packet of 64 MB that never ends", most_s=10 + BACK_S, most_mb=100)
    with feed() as (watch, proxies, _):
        before, begun = InUse(), time.monotonic()
        for proxy in proxies:
            proxy.inject(b"\0\0\0\0" + (1 << 26).to_bytes(4, "little"))
        until(lambda: watch.source.warning.startswith("no data for"))
        until(lambda: watch.gaps() == 1 and watch.lags_ms()[-1] < LAG_MS)
        row.add("64 MB", seconds=time.monotonic() - begun, mb=before.grown_mb())
    row.check()


def test_a_hundred_reconnects_leave_nothing_behind(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.network._RETRY_S", (0.01, 0.05))
    row = ledger.row("network", "cut off and connected again, 100 times", most_s=BACK_S)
    with feed() as (watch, proxies, server):
        for warming in (True, False):
            before = InUse()
            for k in range(10 if warming else 100):
                seen, gaps = len(watch.samples), watch.gaps()
                for proxy in proxies:
                    proxy.hang_up()
                back_s = until(lambda: len(watch.samples) > seen and watch.gaps() > gaps)  # noqa: B023
                if not warming:
                    row.add(f"reconnect {k}", seconds=back_s, mb=before.grown_mb())
        watch.wait(10)
        until(before.is_back)
        until(lambda: server.clients == 1)
        row.found = f"{before}, at most 30 MB more"
        assert before.grown_mb() < 30 and not watch.failure
    row.check()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name in ("watch", "proxied", "proxy")])
