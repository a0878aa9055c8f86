"""Servers of the DV protocol, ours and one that says whatever a test likes, and what clients take from them."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from streams import EventPacket, Live, RgbFrame, Sample, Source
from streams.aedat4_writer import encode_packets, encode_stream_header
from streams.items import Item
from streams.link import Arrived
from streams.server import Server
from tests.conftest import random_events

SIZE = (64, 48)


@contextmanager
def serving(source: Source, *, loop: bool = False, port: int = 0) -> Iterator[Server]:
    with Server(source, loop=loop, port=port) as server:
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        yield server
        server.stop()
        thread.join(5)


@contextmanager
def saying(*said: bytes | Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """A server that says something to the one who comes first, and then nothing more."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        done = threading.Event()

        def talk() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the other side may hang up first
                for what in said:
                    if isinstance(what, bytes):
                        connection.sendall(what)
                    else:
                        what(connection)
                done.wait(20)

        threading.Thread(target=talk, daemon=True).start()
        yield listener.getsockname()[1]
        done.set()


EVENTS_HEADER = encode_stream_header(EventPacket, SIZE, "lz4", "a camera")


FRAMES_HEADER = encode_stream_header(RgbFrame, SIZE, "none", "a camera")


def packed(item: Arrived, compression: str = "lz4") -> bytes:
    return b"".join(encode_packets(item, compression))


def events_at(start_us: int, end_us: int, count: int = 50) -> EventPacket:
    return EventPacket(start_us, end_us, random_events(count, start_us, end_us, SIZE, seed=start_us % 1000))


def frame_at(start_us: int, end_us: int) -> RgbFrame:
    return RgbFrame(start_us, end_us, np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))


def taken(source: Source, until: Callable[[Item], bool], timeout_s: float = 15) -> list[Item]:
    """The items up to one that is waited for; without it, the source is closed after a while."""
    timer = threading.Timer(timeout_s, source.close)
    timer.start()
    items: list[Item] = []
    try:
        for item in source:
            items.append(item)
            if until(item):
                return items
    finally:
        timer.cancel()
    raise AssertionError(f"it never came; what came: {items[-5:]}")


def samples_of(client: Source, count: int) -> list[Sample]:
    timer = threading.Timer(20, client.close)
    timer.start()
    samples = list(itertools.islice(Live(client), count))
    timer.cancel()
    assert len(samples) == count
    return samples


class Silent(Source):
    name, event_size, frame_size, sample_period_us = "silent", SIZE, SIZE, 33_333

    def __iter__(self) -> Iterator[Item]:
        yield from ()

    def close(self) -> None:
        pass


def free_ports() -> int:
    with Server(Silent()) as server:
        return server.ports[0]
