"""Prophesee RAW and DAT and .es files: what faery reads equals slow decoders and writers; damage is counted."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from streams import EVENT_DTYPE, RecordingError, RenderConfig, Source, prophesee, synchronize
from streams.items import Events, join_events
from streams.prophesee import FaerySource, size_in, text_header
from tests.conftest import random_events

SIZE = (64, 48)
RENDER = RenderConfig(period_us=10_000)
Real = Callable[[str], Path]


@pytest.fixture
def faery() -> None:
    pytest.importorskip("faery")


@pytest.fixture
def real(real_recording: Real, faery: None) -> Real:
    """The path of a real recording that is no AEDAT 4."""
    return real_recording("cuke_davis346").with_name


def all_events(source: FaerySource) -> Events:
    return join_events(list(source.stored(None)))


def assert_seeks_equal_the_whole(source: Source, size: tuple[int, int]) -> None:
    """Samples from some places on are what they are in the whole recording."""
    assert source.event_size == size
    whole = list(synchronize(source, render=RENDER))
    assert len(whole) > 5
    for k in (0, 1, len(whole) // 2, len(whole) - 1):
        found = list(synchronize(source, render=RENDER, from_us=whole[k].t_end_us - 1))
        assert [(s.t_start_us, s.t_end_us) for s in found] == [(s.t_start_us, s.t_end_us) for s in whole[k:]]
        for one, other in zip(found, whole[k:], strict=True):
            assert np.array_equal(one.events, other.events) and np.array_equal(one.event_image, other.event_image)


# --- slow and independent -----------------------------------------------------------------------------------------


def slow_evt2(words: bytes, count: int) -> Iterator[tuple[int, int, int, bool]]:
    high = 0
    for (word,) in struct.iter_unpack("<I", words):
        kind = word >> 28
        if kind == 8:
            high = word & 0xFFFFFFF
        elif kind in (0, 1):
            yield high << 6 | word >> 22 & 63, word >> 11 & 2047, word & 2047, bool(kind)
            count -= 1
            if not count:
                return


def slow_es(data: bytes, height: int, count: int) -> Iterator[tuple[int, int, int, bool]]:
    t = position = 0
    while count:
        first = data[position]
        if first >= 0xFE:  # more than 127 us without an event, or a reset
            t, position = t + 127 * (first & 1), position + 1
            continue
        x, y = struct.unpack_from("<HH", data, position + 1)
        t, position, count = t + (first >> 1), position + 5, count - 1
        yield t, x, height - 1 - y, bool(first & 1)


def evt3(events: Events) -> bytes:
    """Words of EVT 3, some of them vectors of eight or twelve pixels with one event in them."""
    words: list[int] = []
    for k, (t, x, y, p) in enumerate(events.tolist()):
        words += [0x8000 | t >> 12 & 0xFFF, 0x6000 | t & 0xFFF, y]
        if k % 3 == 0:
            words.append(0x2000 | p << 11 | x)
        else:
            start = max(0, x - 5)
            words += [0x3000 | p << 11 | start, (0x4000 if k % 3 == 1 else 0x5000) | 1 << x - start]
    return struct.pack(f"<{len(words)}H", *words)


def evt2(events: Events) -> bytes:
    words: list[int] = []
    for t, x, y, p in events.tolist():
        words += [0x8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y]
    return struct.pack(f"<{len(words)}I", *words)


def dat(events: Events) -> bytes:
    return b"\x0c\x08" + b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for t, x, y, p in events.tolist())


def es(events: Events) -> bytes:
    data, now = b"Event Stream\x02\x00\x00\x01" + struct.pack("<HH", *SIZE), 0
    for t, x, y, p in events.tolist():
        data += (
            b"\xff" * ((t - now) // 127) + bytes([(t - now) % 127 << 1 | p]) + struct.pack("<HH", x, SIZE[1] - 1 - y)
        )
        now = t
    return data


EVENTS = random_events(6_000, 1_000, 100_000, SIZE)
FILES = {
    "evt3.raw": b"% date 2026-11-21\n% evt 3.0\n% format EVT3;height=48;width=64\n% end\n" + evt3(EVENTS),
    "evt2.raw": b"% evt 2.0\n% geometry 64x48\n" + evt2(EVENTS),
    "cd.dat": b"% Data file containing CD events\n% Version 2\n% Width 64\n% Height 48\n" + dat(EVENTS),
    "dvs.es": es(EVENTS),
}


def write(folder: Path, name: str, data: bytes | None = None) -> Path:
    (folder / name).write_bytes(FILES[name] if data is None else data)
    return folder / name


# --- whole files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_word_by_word_is_read(tmp_path: Path, faery: None, name: str) -> None:
    path = write(tmp_path, name)
    assert FaerySource.reads(FILES[name][:4096], path)
    with FaerySource(path) as source:
        assert isinstance(source, FaerySource) and all_events(source).dtype == EVENT_DTYPE
        assert np.array_equal(all_events(source), EVENTS)
        assert source.span_us == (EVENTS["t"][0], EVENTS["t"][-1])
        assert_seeks_equal_the_whole(source, SIZE)
        assert not source.counts


def test_a_real_evt2_recording_equals_a_slow_decoder(real: Real) -> None:
    source = FaerySource(real("evt2.raw"))
    events = all_events(source)
    assert source.event_size == (640, 480)  # by the name of its driver
    assert len(events) == 521_252
    assert source.span_us == (913_716_224, 913_812_095) == (events["t"][0], events["t"][-1])
    data = source.path.read_bytes() if source.path else b""
    words = data[text_header(data)[1] :]
    assert events[:5_000].tolist() == list(slow_evt2(words, 5_000))
    assert_seeks_equal_the_whole(source, (640, 480))
    assert not source.counts


def test_a_real_es_recording_equals_a_slow_decoder(real: Real) -> None:
    source = FaerySource(real("dvs.es"))
    events = all_events(source)
    assert len(events) == 473_225 and source.span_us == (0, 999_000)
    data = source.path.read_bytes()[20:] if source.path else b""
    assert events[:20_000].tolist() == list(slow_es(data, 240, 20_000))
    assert_seeks_equal_the_whole(source, (320, 240))


def test_seeks_equal_the_whole_across_a_hole(tmp_path: Path, faery: None) -> None:
    events = random_events(50_000, 0, 100_000, SIZE)
    events["t"][30_000:] += 25_007_700
    source = FaerySource(write(tmp_path, "a.raw", b"% evt 2.0\n% geometry 64x48\n" + evt2(events)))
    assert_seeks_equal_the_whole(source, SIZE)


def test_where_a_large_file_ends_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faery: None
) -> None:
    monkeypatch.setattr(prophesee, "_SCANNED_BYTES", 1_000)
    source = FaerySource(write(tmp_path, "evt3.raw"))
    assert source.span_us is None and np.array_equal(all_events(source), EVENTS)


def test_of_an_atis_changes_are_read_and_exposures_are_not(tmp_path: Path, faery: None) -> None:
    head = b"Event Stream\x02\x00\x00\x02" + struct.pack("<HH", *SIZE)
    rows = [(5, 2, 1, 2), (1, 1, 3, 4), (0, 3, 3, 4), (7, 0, 63, 47)]  # time since the last, kind, x, y from the bottom
    data = b"".join(struct.pack("<BHH", since << 2 | kind, x, y) for since, kind, x, y in rows)
    source = FaerySource(write(tmp_path, "a.es", head + data))
    assert all_events(source).tolist() == [(5, 1, 45, True), (13, 63, 0, False)]


def test_a_seek_begins_with_a_packet_from_before(real: Real) -> None:
    source = FaerySource(real("dvs.es"))
    packets = list(source.stored(500_000))
    assert packets[0]["t"][-1] < 500_000 <= packets[1]["t"][-1]
    assert len(list(source.stored(10**9))) == 1


# --- headers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines, size",
    [
        ("% geometry 640x480", (640, 480)),
        ("% format EVT3;height=720;width=1280", (1280, 720)),
        ("% format EVT3;height=720;width=1280;endianness=little", (1280, 720)),
        ("% Width 304\n% Height 240", (304, 240)),
        ("% Height 240", None),
        ("% geometry 640 by 480", None),
        ("% geometry 640x480000000000", None),
        ("% date 2026-11-21", None),
    ],
)
def test_the_sensor_size_is_found_in_the_header(lines: str, size: tuple[int, int] | None) -> None:
    assert size_in(text_header(f"{lines}\nbinary".encode())[0]) == size


def test_the_option_says_the_size_where_the_header_does_not(tmp_path: Path, faery: None) -> None:
    path = write(tmp_path, "evt2.raw", b"% evt 2.0\n" + evt2(EVENTS))
    with pytest.raises(RecordingError, match=r"its header gives no sensor size; say it, as in --size 640x480$"):
        FaerySource(path)
    assert FaerySource(path, size=(80, 60)).event_size == (80, 60)
    assert FaerySource(write(tmp_path, "evt3.raw"), size=(80, 60)).event_size == SIZE


def test_what_is_not_theirs_is_left_to_others(tmp_path: Path) -> None:
    assert not FaerySource.reads(b"% a comment\n\\documentclass{article}\n", tmp_path / "paper.tex")
    assert not FaerySource.reads(b"%PDF-1.7\n", tmp_path / "a.raw")
    assert not FaerySource.reads(b"", tmp_path)
    assert FaerySource.reads(b"% Date 2020-09-25\n\x00\x00", tmp_path / "a.RAW")


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("gone.raw", None, "no such file"),
        ("a.raw", b"", "not a Prophesee RAW, DAT or .es recording"),
        ("a.raw", b"% evt 2.1\n% geometry 64x48\n" + bytes(800), "'EVT 2.1' is not read here"),
        ("a.raw", b"% format EVT21;height=320;width=320\n" + bytes(800), "'EVT21' is not read here"),
        ("a.raw", b"% format HISTO3D;height=320;width=320\n", "'HISTO3D' is not read here"),
        ("a.raw", b"% evt 3.0\n% geometry 64x48\n", "holds no events"),
        ("a.raw", b"% evt 3.0\n% geometry 0x0\n" + evt3(EVENTS), "0 x 0 cannot be its sensor's size"),
        ("a.raw", b"% evt 3.0\n% geometry 8x8\n" + evt3(EVENTS), "no events can be read ("),
        ("a.raw", b"% evt 3.0\n% " + bytes(1 << 25), "has no end of its header"),
        ("a.raw", b"% evt 3.0\n% geometry 64x48\n% format \x1b[31mE;x=1\n" + evt3(EVENTS), 'unknown version "?[31mE"'),
        ("a.dat", b"% Version 2\n% Width 64\n% Height 48\n", "cannot be read ("),
        ("a.dat", b"% Version 2\n% Width 64\n% Height 48\n\x0e\x08" + bytes(80), "holds trigger events"),
        ("a.es", b"Event Stream\x02", "cannot be read ("),
        ("a.es", b"Event Stream\x02\x00\x00\x00" + bytes(80), "holds generic events"),
        ("a.es", b"Event Stream\x02\x00\x00\x01\xff\xff\xff\xff" + bytes(80), "65535 x 65535 cannot be"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, faery: None, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        write(tmp_path, name, content)
    with pytest.raises(RecordingError) as caught:
        FaerySource(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_without_the_library_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "faery", None)
    with pytest.raises(RecordingError, match=r"are read by faery: pip install 'velora-rgbe\[formats\]'$"):
        FaerySource(write(tmp_path, name))


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evt3.raw", "evt2.raw", "cd.dat"])
def test_a_cut_recording_gives_every_event_before_the_cut(tmp_path: Path, faery: None, name: str) -> None:
    source = FaerySource(write(tmp_path, name, FILES[name][:-9_001]))
    found = all_events(source)
    assert 3_000 < len(found) < 6_000 and np.array_equal(found, EVENTS[: len(found)])
    assert source.counts == {"bytes missing at the end": 1}


def test_an_event_outside_of_a_size_in_the_header_costs_one_packet(tmp_path: Path, faery: None) -> None:
    events = random_events(40_000, 0, 1_000_000, SIZE)
    events["x"][20_000] = 2_000
    source = FaerySource(write(tmp_path, "a.raw", b"% evt 2.0\n% geometry 64x48\n" + evt2(events)))
    found = all_events(source)
    assert source.counts == {"corrupt packets skipped": 1}
    assert len(found) == 40_000 - 65_536 // 8
    assert np.array_equal(found[:1_000], events[:1_000]) and np.array_equal(found[-1_000:], events[-1_000:])


def test_an_event_outside_of_a_size_that_was_said_is_dropped_alone(tmp_path: Path, faery: None) -> None:
    events = EVENTS.copy()
    events["x"][3_000] = 2_000
    source = FaerySource(write(tmp_path, "a.raw", b"% evt 2.0\n" + evt2(events)), size=SIZE)
    samples = list(synchronize(source, render=RENDER))
    assert source.counts == {"events outside the sensor, dropped": 1}
    assert sum(len(sample.events) for sample in samples) == 5_999


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_end_a_program(tmp_path: Path, faery: None, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = np.frombuffer(FILES[name], np.uint8).copy()
    data[rng.integers(0 if seed % 2 else 100, len(data), 4)] ^= rng.integers(1, 256, 4, np.uint8)
    path = write(tmp_path, name, data.tobytes())
    try:
        source = FaerySource(path)
    except RecordingError as error:
        assert "\n" not in str(error)
    else:
        assert all(event.dtype == EVENT_DTYPE for event in source.stored(None))
