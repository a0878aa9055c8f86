"""The server: what it shares others read; who reads too slowly loses whole packets, and nobody else does."""

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

from streams import RgbFrame, StreamError, open_source
from streams.server import QUEUE_BYTES, Server
from tests.streams.fake_server import Silent, events_at, samples_of, serving

LEFT_OUT = "samples left out, since showing them takes too long"


def test_dv_processing_reads_what_is_served(small_recording: Path) -> None:
    reader = (
        "import sys, dv_processing as dv\n"
        "events, frames = (dv.io.NetworkReader('127.0.0.1', int(port)) for port in sys.argv[1:])\n"
        "size = events.getEventResolution()\n"
        "count, seen, first = 0, 0, None\n"
        "while seen < 20:\n"
        "    batch, frame = events.getNextEventBatch(), frames.getNextFrame()\n"
        "    if batch is not None:\n"
        "        count += batch.size()\n"
        "    if frame is not None:\n"
        "        seen += 1\n"
        "        assert frame.image.shape == (48, 64, 3) and frame.exposure.total_seconds() == 0.01\n"
        "print(*size, seen, count > 1000)\n"
    )
    with open_source(small_recording) as source, serving(source, loop=True) as server:
        ports = [str(port) for port in server.ports]
        done = subprocess.run([sys.executable, "-c", reader, *ports], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["64", "48", "20", "True"], done.stderr


def test_a_client_that_does_not_read_loses_packets_and_nobody_else_does(make_recording: Callable[..., Path]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)  # does not compress
    path = make_recording([RgbFrame(10_000 * k, 10_000 * k + 5_000, frame) for k in range(60)], frame_size=(640, 480))
    with open_source(path) as source, serving(source, loop=True) as server:
        lazy = socket.create_connection(("127.0.0.1", server.ports[0]))
        with open_source(f"tcp://127.0.0.1:{server.ports[0]}") as client:
            samples = samples_of(client, 80)
            steps = np.diff([sample.t_start_us for sample in samples])
            assert not set(client.counts) - {"gaps (the clock began anew)", LEFT_OUT}
        assert (steps[steps > 0] == 10_000).mean() > 0.8
        assert server.counts.total() > 0 and all("reads too slowly" in reason for reason in server.counts)
        assert max(one.queued for port in server._ports.values() for one in port.clients) <= QUEUE_BYTES
        lazy.close()


def test_a_client_that_takes_nothing_for_long_is_hung_up_on(
    make_recording: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.server.PATIENCE_S", 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)  # more than its socket holds
    path = make_recording([RgbFrame(10_000 * k, 10_000 * k + 5_000, noise) for k in range(60)], frame_size=(640, 480))
    with open_source(path) as source, serving(source, loop=True) as server:
        lazy = socket.create_connection(("127.0.0.1", server.ports[0]))
        with open_source(f"tcp://127.0.0.1:{server.ports[0]}") as client:
            samples_of(client, 150)
        assert server.counts["clients hung up on, that had taken nothing for 0.5 s"] == 1
        lazy.close()


def test_a_port_in_use_is_said() -> None:
    with Server(Silent()) as server, pytest.raises(StreamError, match="is not to be had"):
        Server(Silent(), port=server.ports[0])


def test_the_end_comes_after_what_is_queued(make_recording: Callable[..., Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    path = make_recording([RgbFrame(1_000 * k, 1_000 * k + 500, noise) for k in range(8)], frame_size=(640, 480))
    with open_source(path) as source, Server(source) as server:
        slow = socket.create_connection(("127.0.0.1", server.ports[0]))
        until = time.monotonic() + 5
        while not server.clients and time.monotonic() < until:
            time.sleep(0.01)
        thread = threading.Thread(target=server.run)
        thread.start()
        got = 0
        slow.settimeout(1)
        while got < 8 * noise.nbytes:
            got += len(slow.recv(1 << 20))
            time.sleep(0.01)
        thread.join(5)
        slow.close()
        assert not server.counts


def test_a_pause_in_a_recording_is_not_waited_for_more_than_once(make_recording: Callable[..., Path]) -> None:
    items = [packet for k in range(10) for packet in [events_at(1_000_000 + 10_000 * k, 1_010_000 + 10_000 * k)]]
    later = [events_at(item.t_start_us + 100_000_000, item.t_end_us + 100_000_000) for item in items]
    with open_source(make_recording([*items, *later])) as source, Server(source) as server:
        began = time.monotonic()
        server.run()
        assert time.monotonic() - began < 5
