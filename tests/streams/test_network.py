"""Live feeds over TCP: what a server shares is what a client sees, whatever happens to either of them."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from streams import EventPacket, Gap, Live, RgbFrame, Sample, Source, StreamError, open_source, synchronize
from streams import link as link_module
from streams.aedat4_writer import encode_packets, encode_stream_header
from streams.items import Item
from streams.link import Arrived
from streams.server import Server
from tests.conftest import moving_square, random_events

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


def test_what_is_served_is_what_was_recorded(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        recorded = {sample.t_start_us: sample for sample in synchronize(source)}
    with (
        open_source(small_recording) as source,
        serving(source) as server,
        open_source(f"tcp://127.0.0.1:{server.ports[0]}") as client,
    ):
        assert client.live and (client.event_size, client.frame_size) == (SIZE, SIZE)
        assert client.sample_period_us == pytest.approx(33_333, abs=50)
        samples = samples_of(client, 20)
        counts = client.counts
    assert all(same(sample, recorded[sample.t_start_us]) for sample in samples)
    ends = [sample.t_end_us for sample in recorded.values()]
    first = ends.index(samples[0].t_end_us)
    assert [sample.t_end_us for sample in samples] == ends[first : first + 20]
    assert set(counts) <= {"frames from before we joined, left out"}
    assert all(sample.arrival_ns is not None for sample in samples)


def same(one: Sample, other: Sample) -> bool:
    pictures = (one.rgb == other.rgb).all() and (one.event_image == other.event_image).all()
    return bool(pictures) and one.events.tobytes() == other.events.tobytes() and one.t_end_us == other.t_end_us


def test_a_loop_begins_anew_with_a_gap_and_nothing_is_lost(make_recording: Callable[..., Path]) -> None:
    path = make_recording(moving_square(12))
    with (
        open_source(path) as source,
        serving(source, loop=True) as server,
        open_source(f"tcp://127.0.0.1:{server.ports[0]},{server.ports[1]}") as client,
    ):
        samples = samples_of(client, 30)
        assert client.counts["gaps (the clock began anew)"] >= 2
        assert set(client.counts) <= {"frames from before we joined, left out", "gaps (the clock began anew)"}
    starts = [sample.t_start_us for sample in samples]
    again = [k for k, sample in enumerate(samples) if sample.discontinuity][1:]
    assert again[1] - again[0] == 12 and starts == sorted(set(starts))
    assert all(10_000 < starts[k] - samples[k - 1].t_end_us < 500_000 for k in again)  # as long as it took
    assert [sample.index for sample in samples] == list(range(samples[0].index, samples[0].index + 30))


def test_frames_that_begin_anew_while_no_events_come_wait_for_them_but_a_moment() -> None:
    """And events from before, which come after all, are not taken for a clock that begins anew once more."""

    def events(connection: socket.socket) -> None:
        for k in range(30):
            connection.sendall(packed(events_at(14_000_000 + 10_000 * k, 14_010_000 + 10_000 * k)))
            time.sleep(0.01)
        time.sleep(0.6)
        connection.sendall(packed(events_at(14_300_000, 14_310_000)))
        connection.sendall(packed(events_at(1_900_000, 1_910_000)))

    def frames(connection: socket.socket) -> None:
        for k in range(24):
            start = 14_000_000 + 30_000 * k if k < 9 else 1_000_000 + 30_000 * (k - 9)
            connection.sendall(packed(frame_at(start, start + 10_000), "none"))
            time.sleep(0.03)

    with (
        saying(EVENTS_HEADER, events) as events_port,
        saying(FRAMES_HEADER, frames) as frames_port,
        open_source(f"tcp://127.0.0.1:{events_port},{frames_port}") as client,
    ):
        threading.Timer(2, client.close).start()
        items = list(client)
        assert client.counts["items from before the clock began anew, dropped"] > 0
    assert sum(isinstance(item, Gap) for item in items) == 1
    anew = next(k for k, item in enumerate(items) if isinstance(item, Gap))
    assert sum(isinstance(item, RgbFrame) for item in items[anew:]) == 15


@pytest.mark.timing
def test_frames_of_a_scene_in_which_nothing_moves_come_one_by_one() -> None:
    began = time.monotonic()

    def wait_for(k: int) -> None:
        time.sleep(max(0.0, began + 0.01 * k - time.monotonic()))

    def events(connection: socket.socket) -> None:
        for k in range(250):
            if k < 150 or k >= 190:  # 0.4 s without any
                connection.sendall(packed(events_at(1_000_000 + 10_000 * k, 1_010_000 + 10_000 * k)))
            wait_for(k)

    def frames(connection: socket.socket) -> None:
        for k in range(250):
            connection.sendall(packed(frame_at(1_000_000 + 10_000 * k, 1_005_000 + 10_000 * k), "none"))
            wait_for(k)

    with (
        saying(EVENTS_HEADER, events) as events_port,
        saying(FRAMES_HEADER, frames) as frames_port,
        open_source(f"tcp://127.0.0.1:{events_port},{frames_port}") as client,
    ):
        threading.Timer(4, client.close).start()
        came = [(sample.t_end_us, time.monotonic()) for sample in synchronize(client)]
    ends, times = (np.array(column) for column in zip(*came, strict=True))
    silent = np.diff(times)[(ends[:-1] > 2_500_000) & (ends[:-1] < 2_850_000)]
    assert len(silent) > 20 and silent.max() < 0.15


def test_what_dv_processing_shares_is_read() -> None:
    port = free_ports()
    writer = (
        "import sys, time, numpy as np, dv_processing as dv\n"
        "port = int(sys.argv[1])\n"
        "events = dv.io.NetworkWriter('127.0.0.1', port, dv.io.Stream.EventStream(0, 'e', 'cam', (64, 48)))\n"
        "frames = dv.io.NetworkWriter('127.0.0.1', port + 1, dv.io.Stream.FrameStream(0, 'f', 'cam', (64, 48)))\n"
        "print('ready', flush=True)\n"
        "image = np.full((48, 64, 3), (10, 20, 30), np.uint8)\n"
        "for k in range(2000):\n"
        "    t = 1_000_000 + 10_000 * k\n"
        "    store = dv.EventStore()\n"
        "    for i in range(20):\n"
        "        store.push_back(t + 400 * i, i, i + 1, i % 2 == 0)\n"
        "    events.writeEvents(store)\n"
        "    if k % 3 == 0:\n"
        "        frames.writeFrame(dv.Frame(t, 5000, 0, 0, image, dv.FrameSource.SENSOR))\n"
        "    time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with open_source(f"tcp://127.0.0.1:{port},{port + 1}") as client:
            assert client.event_size == client.frame_size == SIZE
            samples = samples_of(client, 10)
    finally:
        process.kill()
        process.wait()
    for sample in samples:
        assert (sample.rgb == (30, 20, 10)).all()  # it is BGR there
        assert len(sample.events) == 13 and sample.t_end_us - sample.t_start_us == 5_000
        assert (sample.events["y"] == sample.events["x"] + 1).all()
        assert (sample.events["p"] == (sample.events["x"] % 2 == 0)).all()


def free_ports() -> int:
    with Server(Silent()) as server:
        return server.ports[0]


class Silent(Source):
    name, event_size, frame_size, sample_period_us = "silent", SIZE, SIZE, 33_333

    def __iter__(self) -> Iterator[Item]:
        yield from ()

    def close(self) -> None:
        pass


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


def test_packets_may_come_in_any_pieces() -> None:
    packets = [events_at(1_000_000 + 10_000 * k, 1_010_000 + 10_000 * k) for k in range(8)]
    stream = b"".join(map(packed, packets))

    def dribble(connection: socket.socket) -> None:
        rng = np.random.default_rng(0)
        rest = stream
        while rest:
            cut = int(rng.integers(1, 700))
            connection.sendall(rest[:cut])
            rest = rest[cut:]
            time.sleep(0.001)

    with saying(EVENTS_HEADER, dribble) as port, open_source(f"tcp://127.0.0.1:{port}") as client:
        items = taken(client, lambda item: isinstance(item, EventPacket) and item.t_end_us > 1_079_000)
    found = np.concatenate([item.events for item in items if isinstance(item, EventPacket)])
    expected = np.concatenate([packet.events for packet in packets])
    assert (found == expected[: len(found)]).all() and len(expected) - len(found) < 5  # of the last microsecond


def test_frames_do_not_wait_for_events_that_never_come() -> None:
    def frames(connection: socket.socket) -> None:
        for k in range(40):
            connection.sendall(packed(frame_at(1_000_000 + 33_000 * k, 1_010_000 + 33_000 * k), "none"))
            time.sleep(0.033)

    with (
        saying(EVENTS_HEADER) as events_port,
        saying(FRAMES_HEADER, frames) as frames_port,
        open_source(f"tcp://127.0.0.1:{events_port},{frames_port}") as client,
    ):
        began = time.monotonic()
        samples = samples_of(client, 5)
        assert time.monotonic() - began < 5
        assert all(sample.has_rgb and not len(sample.events) for sample in samples)


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


def test_a_clock_that_wraps_within_a_packet_goes_on_and_stray_times_do_not_count() -> None:
    events = random_events(2_000, 0, 200_000, SIZE)
    wrapped = events.copy()
    wrapped["t"] = (events["t"] + 2**31 - 100_000 - 1_000_000) % (2**31 - 1_000_000) + 1_000_000
    wrapped["t"][500] += 5_000_000_000
    wrapped["t"][1500] -= 900_000
    parts = [packed(EventPacket(0, 1, part)) for part in np.split(wrapped, 20)]
    with saying(EVENTS_HEADER, b"".join(parts)) as port, open_source(f"tcp://127.0.0.1:{port}") as client:
        timer = threading.Timer(1.5, client.close)
        timer.start()
        items = list(client)
        assert client.counts["events scattered in time, dropped"] == 2
    assert sum(isinstance(item, Gap) for item in items) == 1
    times = np.concatenate([item.events["t"] for item in items if isinstance(item, EventPacket)])
    assert (np.diff(times) >= 0).all() and times[-1] - times[0] < 400_000 and len(times) > 1_990


def test_frames_of_no_known_size_and_second_cameras_are_left_alone() -> None:
    sizeless = encode_stream_header(RgbFrame, (0, 0), "none", "a camera")
    with (
        saying(EVENTS_HEADER, packed(events_at(1_000_000, 1_010_000))) as events_port,
        saying(sizeless, packed(frame_at(1_000_000, 1_010_000), "none")) as frames_port,
        open_source(f"tcp://127.0.0.1:{events_port},{frames_port}") as client,
    ):
        threading.Timer(1, client.close).start()
        assert client.frame_size is None and not any(isinstance(item, RgbFrame) for item in client)
    with (
        saying(EVENTS_HEADER) as one,
        saying(EVENTS_HEADER) as other,
        pytest.raises(StreamError, match="share the same"),
    ):
        open_source(f"tcp://127.0.0.1:{one},{other}")


def test_a_flood_of_frames_before_any_event_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.network._MAX_HELD_BYTES", 100_000)
    flood = b"".join(packed(frame_at(1_000_000 + 1_000 * k, 1_000_500 + 1_000 * k), "none") for k in range(100))
    with (
        saying(EVENTS_HEADER) as events_port,
        saying(FRAMES_HEADER, b"", lambda connection: time.sleep(1), flood) as frames_port,
        open_source(f"tcp://127.0.0.1:{events_port},{frames_port}") as client,
    ):
        threading.Timer(2.5, client.close).start()
        frames = [item for item in client if isinstance(item, RgbFrame)]
        assert client.counts["items that waited too long for others, dropped"] > 80 and len(frames) < 12


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
