"""Live feeds over TCP: what a server shares is what a client sees."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streams import EventPacket, RgbFrame, Sample, StreamError, open_source, synchronize
from streams.aedat4_writer import encode_stream_header
from tests.conftest import moving_square
from tests.streams.fake_server import (
    EVENTS_HEADER,
    SIZE,
    events_at,
    frame_at,
    free_ports,
    packed,
    samples_of,
    saying,
    serving,
    taken,
)


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
    path = make_recording(moving_square(36))  # longer than a busy machine stops for
    with (
        open_source(path) as source,
        serving(source, loop=True) as server,
        open_source(f"tcp://127.0.0.1:{server.ports[0]},{server.ports[1]}") as client,
    ):
        samples = samples_of(client, 90)
        assert client.counts["gaps (the clock began anew)"] >= 2
        assert set(client.counts) <= {"frames from before we joined, left out", "gaps (the clock began anew)"}
    starts = [sample.t_start_us for sample in samples]
    again = [k for k, sample in enumerate(samples) if sample.discontinuity][1:]
    assert again[1] - again[0] == 36 and starts == sorted(set(starts))
    assert all(10_000 < starts[k] - samples[k - 1].t_end_us < 5_000_000 for k in again)  # as long as it took
    assert [sample.index for sample in samples] == list(range(samples[0].index, samples[0].index + 90))


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
