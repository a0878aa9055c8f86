"""The time of live feeds: frames and events wait for each other but a moment, and clocks may begin anew."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest

from streams import EventPacket, Gap, RgbFrame, open_source, synchronize
from tests.conftest import random_events
from tests.streams.fake_server import (
    EVENTS_HEADER,
    FRAMES_HEADER,
    SIZE,
    events_at,
    frame_at,
    packed,
    samples_of,
    saying,
)


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


def test_a_feed_that_is_joined_where_only_its_frames_have_begun_anew_keeps_them() -> None:
    def events(connection: socket.socket) -> None:
        connection.sendall(packed(events_at(14_000_000, 14_010_000)))
        for k in range(12, 100):
            time.sleep(0.01)
            connection.sendall(packed(events_at(1_000_000 + 10_000 * k, 1_010_000 + 10_000 * k)))

    def frames(connection: socket.socket) -> None:
        time.sleep(0.05)
        for k in range(40):
            connection.sendall(packed(frame_at(1_000_000 + 25_000 * k, 1_010_000 + 25_000 * k), "none"))
            time.sleep(0.025)

    with (
        saying(EVENTS_HEADER, lambda _: time.sleep(0.7), events) as events_port,
        saying(FRAMES_HEADER, lambda _: time.sleep(0.7), frames) as frames_port,
        open_source(f"tcp://127.0.0.1:{events_port},{frames_port}") as client,
    ):
        threading.Timer(2.5, client.close).start()
        items = list(client)
    assert [item.reason for item in items if isinstance(item, Gap)] == ["the clock began anew"]
    assert sum(isinstance(item, RgbFrame) for item in items) > 30


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
    assert len(silent) > 20 and silent.max() < 0.3


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
