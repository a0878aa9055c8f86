"""Live feeds that are lost or stall: it is said, they are waited for, and a gap follows."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from streams import EventPacket, Gap, Live, RgbFrame, open_source
from streams.record import Tee
from tests.streams.fake_server import (
    EVENTS_HEADER,
    FRAMES_HEADER,
    SIZE,
    events_at,
    frame_at,
    free_ports,
    packed,
    saying,
    serving,
    taken,
)


def test_a_lost_connection_is_noticed_retried_and_followed_by_a_gap(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        with serving(source, loop=True) as server:
            ports = server.ports
            client = open_source(f"tcp://127.0.0.1:{ports[0]},{ports[1]}")
            items = iter(client)
            for _ in range(20):
                next(items)
        lost = threading.Thread(target=lambda: taken(client, lambda item: isinstance(item, Gap)))
        lost.start()
        until = time.monotonic() + 3
        while "connection lost" not in client.warning and time.monotonic() < until:
            time.sleep(0.02)
        assert "connection lost" in client.warning
        with serving(source, loop=True, port=ports[0]):
            back = time.monotonic()
            lost.join(10)
            assert not lost.is_alive() and time.monotonic() - back < 5
        assert client.warning == ""
        client.close()


def test_a_stall_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.network.STALL_S", 0.3)
    with saying(EVENTS_HEADER) as port, open_source(f"tcp://127.0.0.1:{port}") as client:
        samples = Live(client)
        thread = threading.Thread(target=lambda: list(samples))
        thread.start()
        time.sleep(1.5)
        assert client.warning.startswith("no data for")
        began = time.monotonic()
        samples.stop()
        thread.join(5)
        assert not thread.is_alive() and time.monotonic() - began < 1


def test_frames_that_no_longer_come_beside_events_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.network.STALL_S", 0.3)

    def events(connection: socket.socket) -> None:
        for k in range(100):
            connection.sendall(packed(events_at(1_000_000 + 20_000 * k, 1_020_000 + 20_000 * k)))
            time.sleep(0.02)

    with (
        saying(EVENTS_HEADER, events) as port,
        saying(FRAMES_HEADER) as frames_port,
        open_source(f"tcp://127.0.0.1:{port},{frames_port}") as client,
    ):
        samples = Live(client)
        thread = threading.Thread(target=lambda: list(samples))
        thread.start()
        time.sleep(1)
        assert client.warning.startswith("no frames for")
        samples.stop()
        thread.join(5)


def test_a_feed_that_is_missing_for_a_moment_is_waited_for(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        with serving(source, loop=True) as server:
            port = server.ports[0]
            client = open_source(f"tcp://127.0.0.1:{port}")
            items = iter(client)
            next(items)
        waiting = threading.Thread(target=lambda: taken(client, lambda item: isinstance(item, Gap)))
        waiting.start()
        with saying(EVENTS_HEADER, port=port):  # it comes back with its events alone
            time.sleep(0.8)
            assert waiting.is_alive()
        time.sleep(0.2)
        with serving(source, loop=True, port=port):
            waiting.join(10)
            assert not waiting.is_alive()
        client.close()


@contextmanager
def saying_once_more(first: bytes) -> Iterator[int]:
    """A server that sends events for ever, but to the one who comes first nothing after `first`."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        done = threading.Event()

        def talk() -> None:
            with suppress(OSError):
                silent, _ = listener.accept()
                stack.enter_context(silent).sendall(EVENTS_HEADER + first)
                talking, _ = listener.accept()
                stack.enter_context(talking).sendall(EVENTS_HEADER)
                for k in itertools.takewhile(lambda _: not done.wait(0.01), itertools.count()):
                    talking.sendall(packed(events_at(1_000_000 + 10_000 * k, 1_010_000 + 10_000 * k)))

        thread = threading.Thread(target=talk)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join(5)


@pytest.mark.parametrize("first", [b"", b"\0\0\0\0" + (1 << 26).to_bytes(4, "little") + bytes(100_000)])
def test_a_connection_over_which_nothing_whole_comes_is_said_and_given_up(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.network.STALL_S", 0.2)
    monkeypatch.setattr("streams.network.SILENT_S", 0.6)
    with saying_once_more(first) as port, open_source(f"tcp://127.0.0.1:{port}") as client:
        samples = Live(client)
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.extend(str(s.t_start_us) for s in islice(samples, 3)))
        thread.start()
        until = time.monotonic() + 10
        while not client.warning.startswith("no data for") and time.monotonic() < until:
            time.sleep(0.01)
        assert client.warning.startswith("no data for")
        thread.join(10)
        assert len(said) == 3 and client.counts["gaps (reconnected)"] == 1


def test_a_feed_that_was_not_there_at_first_is_left_out(small_recording: Path) -> None:
    """The server comes back with frames beside its events."""
    port = free_ports()
    with saying(EVENTS_HEADER, packed(events_at(1_000_000, 1_010_000)), lambda end: end.close(), port=port):
        client = open_source(f"tcp://127.0.0.1:{port}")
        assert (client.event_size, client.frame_size) == (SIZE, None)
    with open_source(small_recording) as source, serving(source, loop=True, port=port):
        came = taken(client, lambda item: isinstance(item, EventPacket) and item.t_start_us > 1_100_000)
    client.close()
    assert any(isinstance(item, Gap) for item in came) and not any(isinstance(item, RgbFrame) for item in came)


@pytest.mark.parametrize("record", [True, False])
def test_frames_alone_stay_alone_however_long_they_come(tmp_path: Path, record: bool) -> None:
    """They wait for no events, of which a recording, or another server, could take none."""
    frames = [frame_at(1_000_000 + 100_000 * k, 1_010_000 + 100_000 * k) for k in range(12)]

    def talk(to: socket.socket) -> None:
        for frame in frames:
            to.sendall(packed(frame, "none"))
            time.sleep(0.1)

    with saying(FRAMES_HEADER, talk) as port, open_source(f"tcp://127.0.0.1:{port}") as client:
        tee = Tee(client)
        if record:
            tee.start(tmp_path / "a.aedat4")
        came = taken(tee, lambda item: item.t_end_us == frames[-1].t_end_us)
        tee.stop()
    assert all(isinstance(item, RgbFrame) for item in came)
    if record:
        with open_source(tmp_path / "a.aedat4") as source:
            assert [item.t_end_us for item in source] == [item.t_end_us for item in came]
