"""A connection to a server: what is none is said in one line, and neither nonsense nor a flood does harm."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import pytest

from streams import EventPacket, RgbFrame, StreamError, open_source
from streams import link as link_module
from tests.streams.fake_server import EVENTS_HEADER, events_at, free_ports, packed, saying


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([b""], "says nothing"),
        ([EVENTS_HEADER[:40]], "says nothing"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "no DV network server"),
        ([(1 << 30).to_bytes(4, "little")], "no DV network server"),
        ([EVENTS_HEADER[:4] + bytes(len(EVENTS_HEADER) - 4)], "no DV network server"),
        ([lambda connection: connection.close()], "no DV network server"),
    ],
)
def test_what_is_no_server_of_the_protocol_is_said_in_one_line(
    said: Sequence[bytes], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CONNECT_S", 0.3)
    with saying(*said) as port, pytest.raises(StreamError, match=message) as caught:
        open_source(f"tcp://127.0.0.1:{port}")
    assert f"tcp://127.0.0.1:{port}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["tcp://", "tcp://host", "tcp://host:0", "tcp://host:70000", "tcp://h:1,2,3"])
def test_an_address_that_is_none_is_explained(address: str) -> None:
    with pytest.raises(StreamError, match="write it as tcp://HOST:PORT"):
        open_source(address)


def test_nobody_there_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(StreamError, match="nobody answers at port"):
        open_source(f"tcp://127.0.0.1:{free_ports()}")
    assert time.monotonic() - began < 2


def test_nonsense_between_packets_ends_it_and_a_corrupt_packet_does_not() -> None:
    good = [packed(events_at(1_000_000 + 10_000 * k, 1_010_000 + 10_000 * k)) for k in range(6)]
    corrupt = bytearray(good[2])
    corrupt[12:40] = bytes(28)
    nonsense = bytes([255] * 64)
    with (
        saying(EVENTS_HEADER, good[0], good[1], bytes(corrupt), good[3], good[4], good[5], nonsense) as port,
        open_source(f"tcp://127.0.0.1:{port}") as client,
    ):
        assert client.frame_size is None
        with pytest.raises(StreamError, match="sends what is no packet"):
            list(client)
        assert client.counts["corrupt packets skipped"] == 1


def test_an_address_that_does_not_answer_holds_nobody_up_who_wants_to_stop() -> None:
    gone = threading.Event()
    with ExitStack() as stack:
        busy = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # its queue is full: it says neither yes nor no to who comes now
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(busy.getsockname())
        timer = threading.Timer(0.2, gone.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(StreamError, match="nobody answers"):
            link_module.Link("127.0.0.1", busy.getsockname()[1], "it", Counter(), gone)
        assert 0.1 < time.monotonic() - began < 1.5


def test_too_many_events_are_thinned_by_whole_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_BACKLOG_BYTES", 10_000)
    packets = [events_at(1_000_000 + 1_000 * k, 1_001_000 + 1_000 * k, 500) for k in range(400)]
    with (
        saying(EVENTS_HEADER, b"".join(map(packed, packets))) as port,
        open_source(f"tcp://127.0.0.1:{port}") as client,
    ):
        time.sleep(0.5)  # all of it has come
        timer = threading.Timer(2, client.close)
        timer.start()
        items = [item for item in client if isinstance(item, EventPacket)]
    left_out = client.counts["packets of events left out, since too many came"]
    assert 300 <= left_out < 400
    assert sum(len(item.events) for item in items) == pytest.approx(500 * (400 - left_out), abs=500)


def test_a_long_exposure_is_no_clock_that_begins_anew() -> None:
    """Events and frames of one socket: what a frame shows began long before the newest events."""
    link = link_module.Link.__new__(link_module.Link)
    link.epoch, link._reached, link._before = 0, 1_000_000, None
    assert link.epoch_of(RgbFrame(820_000, 980_000, np.zeros((4, 4, 3), np.uint8))) == 0
    assert link.epoch_of(RgbFrame(20_000, 180_000, np.zeros((4, 4, 3), np.uint8))) == 1
