"""AEDAT 3.1 and 3.0: packets as cAER writes them, overflows, seeks, headers that lie."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streams.aedat3
from streams import RecordingError, synchronize
from streams.aedat3 import Aedat3Source
from streams.items import Events
from tests.conftest import random_events
from tests.streams.test_aedat2 import SEEKS, assert_seeks_equal_the_whole, everything, opens

HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-12-21 16:41:27 (TZ+0100)\r\n"
END = b"#!END-HEADER\r\n"
SIZE = (128, 128)


def packet(events: Events, kind: int = 1, source: int = 1, good: bool = True, height: int = 0, **wrong: int) -> bytes:
    """A packet of polarity events; with a height as in 3.0, from the bottom left. `wrong` replaces header fields."""
    overflow = max(0, int(events["t"][0]) >> 31) if len(events) else 0
    n = len(events)
    fields = dict(kind=kind, source=source, size=8, offset=4, overflow=overflow, capacity=n, number=n, valid=n * good)
    data = struct.pack("<hhiiiiii", *(fields | wrong).values())
    for t, x, y, p in events.tolist():
        y = height - 1 - y if height else y
        data += struct.pack("<Ii", x << 17 | y << 2 | p << 1 | good, t - (overflow << 31))
    return data


def packets(events: Events, n: int = 50, **fields: int) -> bytes:
    """Of n events each, or fewer where the overflow changes."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(events["t"] >> 31)) + 1, [len(events)]])
    runs = [events[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return b"".join(packet(run[k : k + n], **fields) for run in runs for k in range(0, len(run), n))


def write(path: Path, body: bytes, head: bytes = HEADER + END) -> Path:
    path.write_bytes(head + body)
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(streams.aedat3, "CHUNK", 16)
    return 16


EVENTS = random_events(300, 1_000, 500_000, SIZE)
LATE = random_events(300, (1 << 31) - 250_000, (1 << 31) + 250_000, SIZE)


@pytest.mark.parametrize("n", [1, 7, 16, 50, 300])
def test_events_are_read_across_packets_and_overflows(tmp_path: Path, small_chunks: int, n: int) -> None:
    with Aedat3Source(write(tmp_path / "a.aedat", packets(LATE, n))) as source:
        for _ in range(2):  # each iteration begins anew
            assert np.array_equal(everything(source), LATE)
        assert source.event_size == SIZE and source.frame_size is None
        assert source.span_us == (LATE["t"][0], LATE["t"][-1])
        assert not source.counts and not source.others
        assert max(map(len, source.stored(None))) <= 2 * small_chunks


def test_the_bits_of_an_event_are_where_the_format_has_them(tmp_path: Path) -> None:
    body = struct.pack("<hhiiiiii", 1, 1, 8, 4, 2, 1, 1, 1) + struct.pack("<Ii", 100 << 17 | 20 << 2 | 0b11, 7)
    with Aedat3Source(write(tmp_path / "a.aedat", body)) as source:
        assert everything(source).tolist() == [((2 << 31) + 7, 100, 20, True)]


def test_in_3_0_y_grows_upward_and_the_header_has_no_end(tmp_path: Path) -> None:
    head = HEADER.replace(b"3.1", b"3.0")
    with Aedat3Source(write(tmp_path / "a.aedat", packets(EVENTS, height=128), head)) as source:
        assert np.array_equal(everything(source), EVENTS)


def test_other_packets_are_passed_over_and_no_damage(tmp_path: Path, small_chunks: int) -> None:
    frame = struct.pack("<hhiiiiii", 2, 1, 1_000, 12, 0, 1, 1, 1) + bytes(1_000)
    imu = struct.pack("<hhiiiiii", 3, 1, 36, 4, 0, 2, 2, 2) + bytes(72)
    settings_ = struct.pack("<hhiiiiii", 7, 1, 20, 16, 0, 1, 1, 1) + bytes(20)
    other = packet(EVENTS[:5], source=2)
    runs = [packet(EVENTS[k : k + 30]) for k in range(0, 300, 30)]
    body = b"".join(run + between for run, between in zip(runs, [frame, imu, settings_, other, b""] * 2, strict=True))
    with Aedat3Source(write(tmp_path / "a.aedat", settings_ + body)) as source:
        assert np.array_equal(everything(source), EVENTS)
        assert source.others == {"frames": 2, "IMU samples": 4, "other events": 3, "events of other sources": 10}
        assert not source.counts


def test_invalid_events_are_left_out_and_counted(tmp_path: Path) -> None:
    early = EVENTS[:2].copy()
    early["t"] -= 1_000_000
    body = packet(EVENTS[:40]) + packet(EVENTS[40:50], good=False) + packet(early) + packet(EVENTS[50:])
    with Aedat3Source(write(tmp_path / "a.aedat", body)) as source:
        assert np.array_equal(everything(source), np.concatenate([EVENTS[:40], EVENTS[50:]]))
        assert source.counts == {"invalid events left out": 12}


@pytest.mark.parametrize(
    "lines, size",
    [
        ("#Source 1: DVS128", (128, 128)),
        ("#Source 0: DVS128\n#Source 1: DAVIS240C", (240, 180)),
        ("#Source 1: DAVIS346Cbsi", (346, 260)),
        ("#Source 1: File\n#-Source 3: DAVIS640", (640, 480)),
        ("#Source 7: DAVIS208", (208, 192)),
    ],
)
def test_the_header_names_the_sensor(tmp_path: Path, lines: str, size: tuple[int, int]) -> None:
    head = f"#!AER-DAT3.1\n#Format: RAW\n{lines}\n#!END-HEADER\n".replace("\n", "\r\n").encode()
    with Aedat3Source(write(tmp_path / "a.aedat", packets(EVENTS), head)) as source:
        assert source.event_size == size


@pytest.mark.parametrize("lines", [b"", b"#Source 1: DYNAPSE\r\n", b"#Source 5: DVS128\r\n#Source 6: DAVIS240C\r\n"])
def test_where_the_header_names_no_known_sensor_its_size_has_to_be_given(tmp_path: Path, lines: bytes) -> None:
    path = write(tmp_path / "a.aedat", packets(EVENTS), b"#!AER-DAT3.1\r\n#Format: RAW\r\n" + lines + END)
    with pytest.raises(RecordingError, match=r"a\.aedat: its header names no known sensor; give it with --size"):
        Aedat3Source(path)
    with Aedat3Source(path, size=(200, 150)) as source:
        assert source.event_size == (200, 150) and np.array_equal(everything(source), EVENTS)
    with pytest.raises(ValueError, match="must be a width and a height"):
        Aedat3Source(path, size=(0, 150))


@pytest.mark.parametrize("kind", SEEKS)
@pytest.mark.parametrize("n", [5, 40])
def test_what_is_sought_equals_what_the_whole_recording_shows(
    tmp_path: Path, small_chunks: int, kind: str, n: int
) -> None:
    with Aedat3Source(write(tmp_path / "a.aedat", packets(SEEKS[kind], n))) as source:
        assert_seeks_equal_the_whole(source)


def test_a_clock_that_was_set_back_makes_a_gap_and_costs_nothing(tmp_path: Path) -> None:
    events = np.concatenate([random_events(500, 60_000_000, 60_500_000), random_events(500, 0, 500_000)])
    with Aedat3Source(write(tmp_path / "a.aedat", packets(events))) as source:
        assert sum(len(sample.events) for sample in synchronize(source)) == 1_000
        assert source.counts == {"gaps (time jumped)": 1}


def test_a_cut_file_gives_every_whole_event(tmp_path: Path) -> None:
    data = write(tmp_path / "a.aedat", packets(EVENTS[:12], 4)).read_bytes()
    start = len(HEADER + END)
    for size in range(len(data)):
        (tmp_path / "cut.aedat").write_bytes(data[:size])
        got = opens(tmp_path / "cut.aedat", Aedat3Source)
        whole = sum(min(4, max(0, size - start - 60 * k - 28) // 8) for k in range(3))
        assert (got is None) == (whole == 0)
        if got is not None:
            assert np.array_equal(got[0], EVENTS[:whole])
            assert ("bytes missing at the end" in got[1]) == ((size - start) % 60 != 0)


LIES = [
    {"size": 0},
    {"size": -8},
    {"size": 1 << 30},
    {"offset": 8},
    {"offset": -4},
    {"overflow": -1},
    {"overflow": (1 << 31) - 1},
    {"capacity": -1},
    {"capacity": 1 << 27},
    {"capacity": 10_000},
    {"number": -1},
    {"number": (1 << 31) - 1},
    {"valid": -1},
    {"valid": 51},
    {"kind": -1},
    {"capacity": 1 << 27, "number": 1 << 27},
    {"kind": 2, "size": 100_000},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_header_that_lies_costs_one_packet_at_most(tmp_path: Path, small_chunks: int, lie: dict[str, int]) -> None:
    body = packets(EVENTS[:100]) + packet(EVENTS[100:150], **lie) + packets(EVENTS[150:])
    with Aedat3Source(write(tmp_path / "a.aedat", body)) as source:
        found = everything(source)
        assert source.counts in ({"broken packet headers": 1}, {})
    whole = np.concatenate([EVENTS[:100], EVENTS[150:]])
    assert np.array_equal(found, EVENTS) or np.array_equal(found, whole)
    assert np.array_equal(found, EVENTS) == (not source.counts)


@pytest.mark.parametrize("capacity", [0, 7, 49, 60, 1_000])
def test_a_wrong_capacity_costs_nothing(tmp_path: Path, capacity: int) -> None:
    body = packets(EVENTS[:100]) + packet(EVENTS[100:150], capacity=capacity) + packets(EVENTS[150:])
    with Aedat3Source(write(tmp_path / "a.aedat", body)) as source:
        assert np.array_equal(everything(source), EVENTS)
        assert not source.counts


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 255)), max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_never_raises_while_reading(
    tmp_path: Path, small_chunks: int, tail: bytes, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(write(tmp_path / "a.aedat", packets(EVENTS, 20)).read_bytes() + tail)
    for at, bits in flips:
        data[at % len(data)] ^= bits
    (tmp_path / "bad.aedat").write_bytes(data)
    got = opens(tmp_path / "bad.aedat", Aedat3Source)
    assert got is None or len(got[0]) <= len(data) // 8


@pytest.mark.parametrize(
    "content, says",
    [
        (b"#!AER-DAT2.0\r\n", "not an AEDAT 3.0 or 3.1 recording"),
        (HEADER[:40], "the header is cut off"),
        (HEADER, "the header has no end"),
        (HEADER + packets(EVENTS), "the header has no end"),
        (HEADER + END, "holds no events; record again"),
        (HEADER + END + packets(EVENTS)[:30], "holds no events (it is cut off: 398 bytes are missing)"),
        (HEADER + END + bytes(1_000), "holds no events"),
        (HEADER + END + packet(EVENTS[:0]) * 10, "holds no events"),
        (b"#!AER-DAT3.1\r\n#Format: SerializedTS\r\n" + END + packets(EVENTS), "'SerializedTS'; only RAW is read"),
        (b"#!AER-DAT3.1\r\n#" + b"a" * 5_000_000, "the header is cut off or does not end"),
    ],
)
def test_what_is_no_recording_is_named_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "odd file.aedat"
    path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        Aedat3Source(path)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.timing
@pytest.mark.parametrize("lie", [{"capacity": 1 << 27}, {"size": 0}, {"number": 0, "capacity": 0}], ids=str)
def test_a_file_of_broken_headers_is_walked_in_linear_time(tmp_path: Path, lie: dict[str, int]) -> None:
    good = packet(EVENTS[:1])
    began = time.perf_counter()
    with Aedat3Source(write(tmp_path / "a.aedat", 20_000 * (packet(EVENTS[:1], **lie) + good))) as source:
        assert 20_000 <= len(everything(source)) <= 40_000
    assert time.perf_counter() - began < 5


def test_only_what_says_so_is_read() -> None:
    assert Aedat3Source.reads(HEADER, Path("a.aedat"))
    assert not Aedat3Source.reads(b"#!AER-DAT2.0\r\n", Path("a.aedat"))
    assert not Aedat3Source.reads(b"#!AER-DAT4.0\r\n", Path("a.aedat"))
