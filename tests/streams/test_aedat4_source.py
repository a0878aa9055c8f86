"""Stored packets are looked at together, or handed on without a copy; what comes of them is as of each by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streams import EventPacket, RgbFrame, Sample, open_source, synchronize, write_aedat4
from streams.aedat4_source import Spans
from streams.items import EVENT_DTYPE, Events, is_sound, join_events, no_events
from streams.synchronize import EventStore
from tests.conftest import moving_square, random_events

SIZE = (64, 48)


def feed(seed: int, damaged: bool) -> list[Events]:
    """Packets of 1 to 60 events; single moments, quiet and, where damaged, everything that must not be."""
    rng = np.random.default_rng(seed)
    packets, t_us = [], 1_000_000
    for number in range(60):
        lasts = int(rng.choice([1, 3, 40, 1_000]))
        packet = random_events(int(rng.integers(1, 60)), t_us, t_us + lasts, SIZE, seed=100 * seed + number)
        if damaged and rng.random() < 0.2:
            packet = rng.permutation(packet)
        if damaged and rng.random() < 0.2:
            packet["x"][rng.integers(len(packet))] = SIZE[0]
        packets.append(packet)
        t_us += lasts - 1 + int(rng.choice([0, 1, 50, 30_000, -20 if damaged else 0]))
    return packets


def runs(packets: list[Events], seed: int) -> list[list[Events]]:
    """Some together, where nothing is quiet between them."""
    rng, found = np.random.default_rng(seed), [[packets[0]]]
    for packet in packets[1:]:
        quiet = not 0 <= int(packet["t"][0]) - int(found[-1][-1]["t"][-1]) <= 5_000
        if quiet or rng.random() < 0.5:
            found.append([])
        found[-1].append(packet)
    return found


def stored(spans: Spans, feed: list[list[Events]]) -> tuple[list[EventPacket], Events, Counter[str]]:
    """The packets, and what is kept of them and counted on the way to samples."""
    packets = [packet for run in feed for packet in spans.push(*run)] + list(spans.flush())
    store = EventStore(SIZE, spans.counts)
    for packet in packets:
        store.push(packet)
    return packets, join_events(store.between(0, 1 << 60)), spans.counts


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("large", [1, 8, 1 << 15])
@pytest.mark.parametrize("seed", range(6))
def test_packets_together_or_uncopied_are_what_each_is_by_itself(
    monkeypatch: pytest.MonkeyPatch, seed: int, large: int, damaged: bool
) -> None:
    monkeypatch.setattr("streams.aedat4_source._LARGE", large)
    packets = feed(seed, damaged)
    _, expected, expected_counts = stored(Spans(Counter()), [[packet] for packet in packets])
    found, events, counts = stored(Spans(Counter(), SIZE), runs(packets, seed))
    assert np.array_equal(events, expected) and counts == expected_counts
    assert bool(counts) == damaged
    for packet in found:
        assert packet.sound_for is None or is_sound(packet.events, SIZE)
        if not damaged:
            assert ((packet.events["t"] >= packet.t_start_us) & (packet.events["t"] < packet.t_end_us)).all()
    if not damaged:
        ends = [packet.t_end_us for packet in found]
        assert all(end <= packet.t_start_us for end, packet in zip(ends, found[1:], strict=False))


def test_a_large_packet_is_not_copied(tmp_path: Path) -> None:
    with write_aedat4(tmp_path / "a.aedat4", SIZE, compression="none") as writer:
        for start in (0, 10_000):
            writer.write(EventPacket(start, start + 10_000, random_events(40_000, start, start + 10_000, SIZE)))
    with open_source(tmp_path / "a.aedat4") as source:
        large = [item.events for item in source if isinstance(item, EventPacket) and len(item.events) > 30_000]
    assert len(large) == 2 and all(isinstance(_root(events), bytes) for events in large)


def _root(events: Events) -> object:
    """Whose memory it is."""
    base: object = events
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base


def test_no_packets_are_taken_together_across_a_frame(tmp_path: Path) -> None:
    with write_aedat4(tmp_path / "a.aedat4", SIZE, SIZE) as writer:
        for k in range(12):
            writer.write(
                EventPacket(1_000 * k, 1_000 * k + 1_000, random_events(50, 1_000 * k, 1_000 * k + 1_000, SIZE))
            )
            if k % 3 == 2:
                writer.write(RgbFrame(1_000 * k, 1_000 * k + 900, np.zeros((48, 64, 3), np.uint8)))
    with open_source(tmp_path / "a.aedat4") as source:
        spans = [item.t_end_us - item.t_start_us for item in source if isinstance(item, EventPacket)]
    assert 3 <= len(spans) <= 5 and max(spans) < 4_000


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_the_events_of_a_sample_may_be_given_in_parts(parts: int) -> None:
    pieces = [random_events(10, 100 * k, 100 * k + 100, SIZE, seed=k) for k in range(parts)]
    blank = np.zeros((48, 64, 3), np.uint8)
    sample = Sample(0, 0, 300, blank, blank, pieces, True, True, True)  # type: ignore[arg-type]
    assert sample.event_count == 10 * parts
    assert np.array_equal(sample.events, np.concatenate([*pieces, no_events()]))
    assert sample.event_count == 10 * parts == len(sample.events) and sample.events is sample.events


def test_samples_say_how_many_events_they_have(make_recording) -> None:
    with open_source(make_recording(moving_square(6))) as source:
        samples = list(synchronize(source))
    assert len(samples) == 6
    for sample in samples:
        assert sample.event_count == len(sample.events) > 0


def test_events_of_one_moment_are_not_held_without_end() -> None:
    spans, events = Spans(Counter()), np.zeros(1 << 20, EVENT_DTYPE)
    packets = [packet for _ in range(3) for packet in spans.push(events)]
    assert [(packet.t_start_us, packet.t_end_us, len(packet.events)) for packet in packets] == [(0, 1, 3 << 20)]


@pytest.mark.parametrize("size", [None, SIZE])
def test_packets_of_one_moment_are_not_joined_anew_with_each_that_follows(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] | None
) -> None:
    copied: list[int] = []

    def counted(parts: Sequence[Events]) -> Events:
        copied.append(sum(map(len, parts)))
        return join_events(parts)

    monkeypatch.setattr("streams.aedat4_source.join_events", counted)
    spans, events, later = Spans(Counter(), size), np.zeros(100, EVENT_DTYPE), random_events(100, 5, 10, SIZE)
    packets = [packet for stored in [*1_000 * [events], later] for packet in spans.push(stored)]
    assert [len(packet.events) for packet in packets][0] >= 100_000
    assert sum(copied) < 15 * 100_000  # each with each that came before: 500 times as many
