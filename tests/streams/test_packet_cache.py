"""Decoded packets are kept within a bound, and shared; what is read with them is what is read without."""

from __future__ import annotations

import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from streams import EventPacket, Player, RgbFrame, Source, open_source, write_aedat4
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_writer import encode_events
from streams.filters import filtered
from streams.items import Events, Item
from streams.packet_cache import PacketCache
from tests.conftest import random_events
from tests.streams.test_aedat4 import write

PLENTY = 64 << 20


def events_of(n: int) -> Callable[[], tuple[Events, int]]:
    """What decodes a packet of `n` events."""
    return lambda: (random_events(n, 0, 1_000), 16 * n)


def is_held(cache: PacketCache, key: object) -> bool:
    class Missed(Exception): ...

    def miss() -> tuple[Events, int]:
        raise Missed

    try:
        cache.get(key, miss)
    except Missed:
        return False
    return True


def frame_of(height: int) -> tuple[RgbFrame, int]:
    image = np.empty((height, 1_000, 3), np.uint8)
    return RgbFrame(0, 1, image), image.nbytes


# --- the cache --------------------------------------------------------------------------------------------------------


def test_it_stays_within_its_bound_over_four_minutes_of_46_mb_a_second() -> None:
    cache = PacketCache(256 << 20)
    for number in range(240 * 30):
        cache.get(number, lambda: frame_of(512))  # 1.5 MB
        assert cache.held_bytes <= 256 << 20
    assert cache.held_bytes > 250 << 20
    assert is_held(cache, 240 * 30 - 1) and not is_held(cache, 240 * 30 - 200)


def test_what_was_not_asked_for_in_the_longest_time_goes_first() -> None:
    cache = PacketCache(3 * 17_500)
    for key in "abc":
        cache.get(key, events_of(1_000))
    assert is_held(cache, "a")  # which asks for it
    cache.get("d", events_of(1_000))
    assert [is_held(cache, key) for key in "bcad"] == [False, True, True, True]


def test_what_is_larger_than_the_cache_puts_nothing_out() -> None:
    cache = PacketCache(20_000)
    cache.get("small", events_of(1_000))
    assert len(cache.get("large", events_of(2_000))) == 2_000
    assert is_held(cache, "small") and not is_held(cache, "large")


def test_packets_of_a_single_event_stay_within_the_bound_too() -> None:
    cache = PacketCache(1 << 18)
    cache.get((1, 0), events_of(1))
    tracemalloc.start()
    try:
        for number in range(2_000):
            cache.get((1, 2 << 40, 3 << 40, number << 40), events_of(1))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.2 * (1 << 18)


def test_what_cannot_be_decoded_is_tried_again() -> None:
    cache = PacketCache(PLENTY)

    def corrupt() -> tuple[Events, int]:
        raise ValueError("corrupt")

    for _ in range(2):
        with pytest.raises(ValueError, match="corrupt"):
            cache.get("a", corrupt)
    assert len(cache.get("a", events_of(3))) == 3


def test_nobody_waits_for_what_another_decodes() -> None:
    cache, begun, go_on = PacketCache(PLENTY), threading.Event(), threading.Event()

    def slow() -> tuple[Events, int]:
        begun.set()
        assert go_on.wait(10)
        return events_of(1)()

    thread = threading.Thread(target=lambda: cache.get("slow", slow))
    thread.start()
    assert begun.wait(10)
    assert len(cache.get("other", events_of(2))) == 2
    assert len(cache.get("slow", events_of(1))) == 1  # decoded here as well
    held = cache.held_bytes
    go_on.set()
    thread.join(10)
    assert not thread.is_alive() and cache.held_bytes == held  # it counts once


# --- sources that share it --------------------------------------------------------------------------------------------


def unsorted(path: Path) -> None:
    with write_aedat4(path, (64, 48)) as writer:
        for start in (0, 5_000):
            writer.write(EventPacket(start, start + 5_000, random_events(100, start, start + 5_000)[::-1].copy()))


def damaged(path: Path) -> None:
    """A corrupt packet of events, one of frames, and no table."""
    write(path, "none")
    with Aedat4Reader(path) as reader:
        corrupt = [int(reader.of(stream)["offset"][1]) for stream in reader.header.streams]
        end = int(reader.index["offset"][-1]) + 10
    data = bytearray(path.read_bytes()[:end])
    for at in corrupt:
        data[at : at + 16] = b"\xff" * 16
    path.write_bytes(data)


RECORDINGS: dict[str, Callable[[Path], object]] = {
    "lz4": write,
    "zstd": lambda path: write(path, "zstd"),
    "not compressed": lambda path: write(path, "none"),
    "unsorted": unsorted,
    "damaged": damaged,
}


@pytest.fixture(params=RECORDINGS)
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Colour and grey frames, some of them damaged."""
    path = tmp_path / "a.aedat4"
    RECORDINGS[request.param](path)
    return path


def plain(item: Item) -> tuple[object, ...]:
    """An item as what can be compared."""
    array = item.image if isinstance(item, RgbFrame) else item.events
    return type(item), item.t_start_us, item.t_end_us, array.dtype, array.shape, array.tobytes()


def passes(source: Source, count: int = 2) -> Iterator[tuple[list[tuple[object, ...]], Counter[str]]]:
    """The items of each pass, and what it counted."""
    for _ in range(count):
        before = source.counts.copy()
        yield [plain(item) for item in source], source.counts - before


def test_items_and_what_is_counted_of_each_pass_are_the_same_with_a_cache(recording: Path) -> None:
    with open_source(recording) as source:
        expected = list(passes(source))
    cache = PacketCache(PLENTY)
    for _ in range(2):  # two sources
        with open_source(recording) as source:
            source.share(cache)
            assert list(passes(source)) == expected
    assert cache.held_bytes > 0


def test_a_cache_that_is_too_small_changes_nothing(recording: Path) -> None:
    with open_source(recording) as source:
        expected = list(passes(source))
        source.share(PacketCache(20_000))
        assert [items for items, _ in passes(source)] == [items for items, _ in expected]


def test_shared_arrays_are_read_only(recording: Path) -> None:
    with Aedat4Reader(recording) as reader:
        reader.cache = PacketCache(PLENTY)
        for _ in range(2):
            for entry in reader.index:
                events, frame = reader.events(entry), reader.frame(entry)
                assert events is None or not events.flags.writeable
                assert frame is None or not frame.image.flags.writeable


def test_a_loop_decodes_nothing_again(small_recording: Path, decodes: Counter[tuple[str, int]]) -> None:
    with open_source(small_recording) as source:
        source.share(PacketCache(PLENTY))
        decodes.clear()
        for _ in range(3):
            assert sum(isinstance(item, RgbFrame) for item in source) == 60
    assert len(decodes) == 120 and set(decodes.values()) == {1}


def test_a_seek_decodes_nothing_again(small_recording: Path, decodes: Counter[tuple[str, int]]) -> None:
    cache = PacketCache(PLENTY)

    def opened(path: str | Path) -> Source:
        source = open_source(path)
        source.share(cache)
        decodes.clear()
        return source

    player = Player(small_recording, speed=None, lead=4, opened=opened)
    whole = [sample.t_end_us for sample in player]
    assert set(decodes.values()) == {1}
    for place in (50, 10, 30):
        player.seek(whole[place] - 1)
        assert next(sample.t_end_us for sample in player if not sample.lead) == whole[place]
        assert not decodes


def test_a_seek_without_a_table_looks_into_each_packet_once(
    small_recording: Path, tmp_path: Path, decodes: Counter[tuple[str, int]]
) -> None:
    path = tmp_path / "cut.aedat4"
    path.write_bytes(small_recording.read_bytes()[:-100])
    with open_source(path) as source:
        source.share(PacketCache(PLENTY))
        assert source.counts["packet tables rebuilt"] and source.span_us is not None
        list(source)
        decodes.clear()
        assert list(source.read(source.span_us[0] + 1_000_000))
    assert not decodes


def test_filters_and_other_frames_pass_it_on(
    small_recording: Path, tmp_path: Path, decodes: Counter[tuple[str, int]]
) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number:04}.png"), np.zeros((48, 64, 3), np.uint8))
    cache = PacketCache(PLENTY)
    for source in (
        filtered(open_source(small_recording), denoise=True, flip="horizontal", rotate=90),
        open_source(small_recording, rgb=str(tmp_path), rgb_fps=30),
    ):
        with source:
            source.share(cache)
            list(source)
            decodes.clear()
            list(source)
            assert not decodes


def replaced(path: Path, other: bytes) -> None:
    path.with_name("new").write_bytes(other)
    os.replace(path.with_name("new"), path)


def overwritten(path: Path, other: bytes) -> None:
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # the clock of a file system ticks every few milliseconds
        path.write_bytes(other)


@pytest.mark.parametrize("put", [replaced, overwritten])
def test_a_file_that_was_replaced_meanwhile_is_read_anew(tmp_path: Path, put: Callable[[Path, bytes], None]) -> None:
    path, seeds, items = tmp_path / "a.aedat4", (1, 2), []
    contents = []
    for seed in seeds:  # of one size, packets at the same places
        with write_aedat4(path, (64, 48), compression="none") as writer:
            writer.write(EventPacket(0, 1_000, random_events(100, 0, 1_000, seed=seed)))
        contents.append(path.read_bytes())
        with open_source(path) as source:
            items.append([plain(item) for item in source])
    assert len(contents[0]) == len(contents[1]) and items[0] != items[1]
    path.write_bytes(contents[0])
    cache, state = PacketCache(PLENTY), path.stat()
    with open_source(path) as before:
        before.share(cache)
        assert [plain(item) for item in before] == items[0]
        put(path, contents[1])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as programs that copy do
        assert [plain(item) for item in before] == items[put is overwritten]
        with open_source(path) as after:
            after.share(cache)
            assert [plain(item) for item in after] == items[1]


def test_threads_that_read_one_recording_at_once_get_the_same(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        expected = list(passes(source, 1))
    cache, found = PacketCache(200_000), list[object]()  # so that packets come and go

    def read() -> None:
        with open_source(small_recording) as source:
            source.share(cache)
            found.extend(passes(source, 3))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == 6 * expected
    with cache._lock:
        assert cache.held_bytes == sum(size for _, size in cache._held.values()) <= 200_000


def test_a_packet_counts_with_all_that_it_keeps_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may unpack to far more than the events that it says are in it."""
    monkeypatch.setattr("streams.aedat4_writer.encode_events", lambda events: encode_events(events) + bytes(1 << 20))
    path = tmp_path / "padded.aedat4"
    with write_aedat4(path, (64, 48)) as writer:
        for start in range(0, 20_000, 1_000):
            writer.write(EventPacket(start, start + 1_000, random_events(10, start, start + 1_000)))
    assert path.stat().st_size < 200_000
    cache = PacketCache(4 << 20)
    with open_source(path) as source:
        source.share(cache)
        assert sum(len(item.events) for item in source if isinstance(item, EventPacket)) == 200
        assert 3 << 20 < cache.held_bytes <= 4 << 20


def test_a_packet_is_never_taken_for_one_of_another_kind(small_recording: Path) -> None:
    with Aedat4Reader(small_recording) as reader:
        reader.cache = PacketCache(PLENTY)
        events = reader.index[reader.index["stream"] == 0][0]
        assert reader.events(events) is not None
        assert reader.frame(events) is None and reader.counts == {"corrupt packets skipped": 1}
