"""AEDAT 2.0 and 1.0: words and times as jAER writes them, wraps, seeks, headers, damage."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streams.aedat2
from streams import EventPacket, Gap, RecordingError, Sample, synchronize
from streams.aedat2 import Aedat2Source
from streams.aedat_header import read_header
from streams.event_file import EventFile
from streams.items import Events, join_events
from streams.words import WordFile
from tests.conftest import random_events

SIZES = {"DVS128": (128, 128), "DAVIS240C": (240, 180), "Davis346red": (346, 260)}
WRAP = 1 << 32
Pairs = Iterable[tuple[int, int]]


def word_of(chip: str, x: int, y: int, p: bool) -> int:
    """What the chip sends for an event at (x, y) from the top left corner."""
    width, height = SIZES[chip]
    x, y = width - 1 - x, height - 1 - y
    return y << 8 | x << 1 | (not p) if chip == "DVS128" else y << 22 | x << 12 | p << 11


def pairs_of(chip: str, events: Events) -> list[tuple[int, int]]:
    return [(word_of(chip, int(e["x"]), int(e["y"]), bool(e["p"])), int(e["t"]) % WRAP) for e in events]


def header(chip: str | None = None, eol: str = "\r\n", version: str = "2.0", last: bool = True) -> bytes:
    lines = [f"#!AER-DAT{version}", "# This is a raw AE data file - do not edit", "# Timestamps tick is 1 us"]
    lines += [] if chip is None else [f"# AEChip: eu.seebetter.ini.chips.davis.{chip}"]
    lines += ["#End Of ASCII Header"] if last else []
    return "".join(line + eol for line in lines).encode()


def write(path: Path, pairs: Pairs, head: bytes) -> Path:
    path.write_bytes(head + b"".join(struct.pack(">II", word, stamp) for word, stamp in pairs))
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """So that a few hundred events make many chunks."""
    monkeypatch.setattr(streams.aedat2, "CHUNK", 16)
    return 16


def everything(source: EventFile) -> Events:
    return join_events([item.events for item in source if isinstance(item, EventPacket)])


@pytest.mark.parametrize("chip", SIZES)
def test_events_are_read_as_the_chip_wrote_them(tmp_path: Path, small_chunks: int, chip: str) -> None:
    events = random_events(300, 1_000, 500_000, SIZES[chip])
    with Aedat2Source(write(tmp_path / "a.aedat", pairs_of(chip, events), header(chip))) as source:
        for _ in range(2):  # each iteration begins anew
            assert np.array_equal(everything(source), events)
        assert source.event_size == SIZES[chip] and source.frame_size is None
        assert source.span_us == (events["t"][0], events["t"][-1])
        assert not source.counts and not source.others


@pytest.mark.parametrize(
    "chip, word, event",
    [
        ("DVS128", 0x0000, (127, 127, True)),
        ("DVS128", 0x7FFF, (0, 0, False)),
        ("DVS128", 0x0102, (126, 126, True)),
        ("DAVIS240C", 0x00000000, (239, 179, False)),
        ("DAVIS240C", 0x2CCEF800, (0, 0, True)),
        ("Davis346red", 0x40D59800, (0, 0, True)),
    ],
)
def test_words_are_decoded_as_in_jaer(tmp_path: Path, chip: str, word: int, event: tuple[int, int, bool]) -> None:
    with Aedat2Source(write(tmp_path / "a.aedat", [(word, 5)], header(chip))) as source:
        assert everything(source).tolist() == [(5, *event)]


@pytest.mark.parametrize(
    "name, size",
    [
        ("ch.unizh.ini.jaer.chip.retina.DVS128", (128, 128)),
        ("ch.unizh.ini.caviar.chip.retina.Tmpdiff128", (128, 128)),
        ("eu.seebetter.ini.chips.sbret10.SBret10", (240, 180)),
        ("eu.seebetter.ini.chips.davis.DAVIS240B", (240, 180)),
        ("eu.seebetter.ini.chips.davis.Davis346BColor", (346, 260)),
        ("DAVI346", (346, 260)),  # what aedat4to2 writes
        ("eu.seebetter.ini.chips.davis.Davis128", (128, 128)),
        ("eu.seebetter.ini.chips.davis.Davis208PixelParade", (208, 192)),
        ("eu.seebetter.ini.chips.davis.Davis640Color", (640, 480)),
    ],
)
def test_the_header_names_the_chip(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    path = write(tmp_path / "a.aedat", [(0, 1)], f"#!AER-DAT2.0\r\n# AEChip: {name}\r\n".encode())
    with Aedat2Source(path) as source:
        assert source.event_size == size


def test_where_the_header_names_no_chip_it_has_to_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.aedat", [(0x7FFF, 1)], header())
    with pytest.raises(RecordingError, match=r"a\.aedat: its header names no chip; give one with --chip: DVS"):
        Aedat2Source(path)
    with Aedat2Source(path, chip="DVS128") as source:
        assert source.event_size == (128, 128) and everything(source).tolist() == [(1, 0, 0, False)]
    with Aedat2Source(write(tmp_path / "b.aedat", [(0, 1)], header("DVS128")), chip="davis240") as source:
        assert source.event_size == (240, 180)  # what is given is believed


@pytest.mark.parametrize("head, given", [(header("Cat\u202e"), None), (header(), "Cat")])
def test_an_unknown_chip_is_named_in_one_line(tmp_path: Path, head: bytes, given: str | None) -> None:
    with pytest.raises(RecordingError, match=r"the chip '.*Cat.*' is not known in AEDAT 2.0; give one") as caught:
        Aedat2Source(write(tmp_path / "a.aedat", [(0, 1)], head), chip=given)
    assert str(caught.value).isprintable()


def test_samples_of_other_kinds_are_passed_over_and_no_damage(tmp_path: Path, small_chunks: int) -> None:
    events = random_events(100, 0, 1_000, (240, 180))
    others = [(0x8000_0005, "APS samples"), (0xA000_0C00, "IMU words"), (0x0000_0400, "external events")]
    pairs = []
    for k, pair in enumerate(pairs_of("DAVIS240C", events)):
        pairs += [pair, (others[k % 3][0], pair[1])]
    with Aedat2Source(write(tmp_path / "a.aedat", pairs, header("DAVIS240C"))) as source:
        assert np.array_equal(everything(source), events)
        assert source.others == {"APS samples": 34, "IMU words": 33, "external events": 33}
        assert not source.counts


@pytest.mark.parametrize("word", [240 << 12, 1023 << 12, 180 << 22, 511 << 22])
def test_pixels_outside_the_sensor_do_not_wrap_into_it(tmp_path: Path, word: int) -> None:
    with Aedat2Source(write(tmp_path / "a.aedat", [(0, 1), (word, 2)], header("DAVIS240C"))) as source:
        assert everything(source).tolist() == [(1, 239, 179, False)]
        assert source.counts == {"events outside the sensor, dropped": 1}


@pytest.mark.parametrize("eol", ["\r\n", "\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("first", [b"#\n\x08\x00", b"#abc", b"#\r\n\x00", b"##\x00\x00", b"\x00#\r\n"])
def test_an_event_that_looks_like_text_is_an_event(tmp_path: Path, eol: str, last: bool, first: bytes) -> None:
    word = int.from_bytes(first) & 0x7FFF_F800  # the lower bits are zero in events of a DAVIS
    pairs = [(word, 0), (word, 0x0A0D_0A0D)]
    with Aedat2Source(write(tmp_path / "a.aedat", pairs, header("Davis640", eol, last=last))) as source:
        assert everything(source)["t"].tolist() == [0, 0x0A0D_0A0D]


@pytest.mark.parametrize("line", ["", "#", "# ", "# M\xfcller", "# 12345678901234567890\n#", "#" + "x" * 100_000])
@pytest.mark.parametrize("eol", ["\r\n", "\n"])
def test_lines_of_any_kind_are_header(tmp_path: Path, line: str, eol: str) -> None:
    head = header("DVS128", eol, last=False) + (line + eol if line else "").encode("latin-1")
    path = write(tmp_path / "a.aedat", [(0x7FFF, 1)], head + 10 * f"# so it goes{eol}".encode())
    with Aedat2Source(path) as source:
        assert everything(source).tolist() == [(1, 0, 0, False)]


@given(st.lists(st.sampled_from(["#", "# a", "# " + 200 * "b", "# AEChip: DVS128"]), max_size=400), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_header_is_read_whole_wherever_the_blocks_end(lines: list[str], crlf: bool) -> None:
    text = "".join(line + ("\r\n" if crlf else "\n") for line in ["#!AER-DAT2.0", *lines, "# -"]).encode()
    found = read_header(io.BytesIO(text + b"\x00\x01"), Path("a"), ("2.0",))
    assert found.size == len(text) and len(found.lines) == 2 + len(lines)


def test_words_of_16_bits_are_read_too(tmp_path: Path) -> None:
    data = b"".join(struct.pack(">HI", word, t) for word, t in [(0x7FFF, 7), (0x8000, 8), (0, 9)])
    (tmp_path / "a.dat").write_bytes(header("DVS128", version="1.0") + data)
    with Aedat2Source(tmp_path / "a.dat") as source:
        assert everything(source).tolist() == [(7, 0, 0, False), (9, 127, 127, True)]
        assert source.others == {"external events": 1}
    (tmp_path / "b.dat").write_bytes(header("DAVIS240C", version="1.0") + data)
    with pytest.raises(RecordingError, match="not known in AEDAT 1.0"):
        Aedat2Source(tmp_path / "b.dat")


steps_of_time = st.lists(st.integers(0, 1 << 29) | st.integers(0, 1_000), min_size=1, max_size=200)


@given(steps_of_time, st.integers(0, WRAP - 1), st.integers(1, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_times_go_on_where_32_bits_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int], first: int, chunk: int
) -> None:
    monkeypatch.setattr(streams.aedat2, "CHUNK", chunk)
    times = first + np.cumsum(steps) - steps[0]
    with Aedat2Source(write(tmp_path / "a.aedat", ((0, int(t) % WRAP) for t in times), header("DVS128"))) as source:
        found = np.concatenate([events["t"] for events in source.stored(None)])
        assert found.tolist() == times.tolist()
        assert source.span_us == (times[0], times[-1])


@pytest.mark.parametrize("bit", range(32))
def test_a_flipped_bit_of_a_time_costs_one_event(tmp_path: Path, small_chunks: int, bit: int) -> None:
    times = [1_000_000 + 100 * k for k in range(100)]
    for flipped in (47, 48):  # the last of a chunk, the first of one
        stamps = [t ^ (1 << bit) if k == flipped else t for k, t in enumerate(times)]
        with Aedat2Source(write(tmp_path / "a.aedat", ((0, t) for t in stamps), header("DVS128"))) as source:
            found = np.concatenate([events["t"] for events in source.stored(None)])
        assert len(set(found.tolist()) & set(times)) >= 99


def test_a_clock_that_was_set_back_makes_a_gap_and_costs_nothing(tmp_path: Path) -> None:
    before, after = random_events(500, 60_000_000, 60_500_000), random_events(500, 0, 500_000)
    events = np.concatenate([before, after])
    with Aedat2Source(write(tmp_path / "a.aedat", pairs_of("DAVIS240C", events), header("DAVIS240C"))) as source:
        samples = list(synchronize(source))
        assert source.counts == {"gaps (time jumped)": 1}
    assert sum(len(sample.events) for sample in samples) == 1_000


SEEKS = {
    "a few chunks": random_events(400, 1_000_000, 2_000_000, (128, 128)),
    "across a wrap": random_events(400, WRAP - 500_000, WRAP + 500_000, (128, 128)),
    "after a wrap in a hole": np.concatenate(
        [
            random_events(200, WRAP - 800_000, WRAP - 500_000, (128, 128)),
            random_events(200, WRAP + 600_000_000, WRAP + 600_500_000, (128, 128)),
        ]
    ),
    "one chunk": random_events(10, 0, 1_000_000, (128, 128)),
}


def alike(one: Sample, other: Sample) -> bool:
    times = (one.t_start_us, one.t_end_us) == (other.t_start_us, other.t_end_us)
    return times and np.array_equal(one.events, other.events) and np.array_equal(one.event_image, other.event_image)


def assert_seeks_equal_the_whole(source: WordFile) -> None:
    whole: list[Sample] = list(synchronize(source))
    assert len(whole) > 10
    jumps = [k for k in range(1, len(whole)) if whole[k].discontinuity]
    for k in sorted({0, 1, 7, len(whole) // 2, len(whole) - 1, *jumps, *(j - 1 for j in jumps)}):
        found = list(synchronize(source, from_us=whole[k].t_end_us - 1))
        assert len(found) == len(whole) - k and all(map(alike, found, whole[k:]))
        assert [s.discontinuity for s in found[1:]] == [s.discontinuity for s in whole[k + 1 :]]
    times = np.concatenate([events["t"] for events in source.stored(None)])
    for at in (-5, *np.quantile(times, [0, 0.1, 0.5, 0.9, 1]).astype(int).tolist(), int(times[-1]) + 10**9):
        sought = np.concatenate([events["t"] for events in source.stored(at)])
        assert sought[0] < at or sought[0] == times[0]
        assert np.array_equal(sought[sought >= at], times[times >= at])
        assert len(sought[sought < at]) <= 32


@pytest.mark.parametrize("kind", SEEKS)
def test_what_is_sought_equals_what_the_whole_recording_shows(tmp_path: Path, small_chunks: int, kind: str) -> None:
    path = write(tmp_path / "a.aedat", pairs_of("DVS128", SEEKS[kind]), header("DVS128"))
    with Aedat2Source(path) as source:
        assert_seeks_equal_the_whole(source)


def test_events_from_before_are_found_behind_chunks_without_any(tmp_path: Path, small_chunks: int) -> None:
    samples = [(0x8000_0000, 500 + t) for t in range(100)]
    path = write(tmp_path / "a.aedat", [samples[0], (0, 510), *samples[10:], (0, 900)], header("DAVIS240C"))
    with Aedat2Source(path) as source:
        assert [e["t"].tolist() for e in source.stored(590) if len(e)] == [[510], [900]]
        assert source.span_us == (510, 900)


def opens(path: Path, source: type[WordFile]) -> tuple[Events, dict[str, int]] | None:
    """What a file gives and what is counted; None where it is refused, which takes one line that names it."""
    try:
        opened = source(path)
    except RecordingError as error:
        assert str(path) in str(error) and str(error).isprintable()
        return None
    with opened:
        found = everything(opened)
        assert opened.span_us is not None
        counts = dict(opened.counts)
        list(opened.read(sum(opened.span_us) // 2))
        return found, counts


def test_a_cut_file_gives_every_whole_event(tmp_path: Path) -> None:
    events = random_events(12, 0, 1_000, (128, 128))
    head = header("DVS128")
    data = write(tmp_path / "a.aedat", pairs_of("DVS128", events), head).read_bytes()
    for size in range(len(data)):
        (tmp_path / "cut.aedat").write_bytes(data[:size])
        got = opens(tmp_path / "cut.aedat", Aedat2Source)
        whole, rest = divmod(max(0, size - len(head)), 8)
        assert (got is None) == (whole == 0)
        if got is not None:
            assert np.array_equal(got[0], events[:whole])
            assert got[1].get("bytes missing at the end", 0) == (8 - rest if rest else 0)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 255)), max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_never_raises_while_reading(
    tmp_path: Path, small_chunks: int, tail: bytes, flips: list[tuple[int, int]]
) -> None:
    events = random_events(100, WRAP - 50_000, WRAP + 50_000, (240, 180))
    data = bytearray(write(tmp_path / "a.aedat", pairs_of("DAVIS240C", events), header("DAVIS240C")).read_bytes())
    data += tail
    for at, bits in flips:
        data[at % len(data)] ^= bits
    (tmp_path / "bad.aedat").write_bytes(data)
    got = opens(tmp_path / "bad.aedat", Aedat2Source)
    assert got is None or len(got[0]) <= 100 + len(tail) // 8 + 20


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "no such file"),
        (b"", "not an AEDAT 1.0 or 2.0 recording"),
        (b"#!AER-DAT4.0\r\n", "not an AEDAT 1.0 or 2.0 recording"),
        (b"#!AER-DAT2.0", "not an AEDAT 1.0 or 2.0 recording"),
        (b"#!AER-DAT2.0\r\n# This is a r", "the header is cut off"),
        (b"#!AER-DAT2.0\r\n#" + bytes([65]) * 5_000_000, "the header is cut off or does not end"),
        (b"#!AER-DAT2.0\r\n" + b"# a long line of text\r\n" * 250_000, "the header is cut off or does not end"),
        (header("DVS128"), "holds no events"),
        (header("DVS128") + b"1234567", "holds no events"),
    ],
)
def test_what_is_no_recording_is_named_in_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "odd file.aedat"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        Aedat2Source(path)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_only_what_says_so_is_read() -> None:
    assert Aedat2Source.reads(header(), Path("a.aedat")) and Aedat2Source.reads(header(version="1.0"), Path("a.dat"))
    assert not Aedat2Source.reads(b"#!AER-DAT3.1\r\n", Path("a.aedat"))
    assert not Aedat2Source.reads(b"", Path("a.aedat"))


def test_items_are_packets_and_no_gaps(tmp_path: Path) -> None:
    events = random_events(100, 0, 10_000, (128, 128))
    with Aedat2Source(write(tmp_path / "a.aedat", pairs_of("DVS128", events), header("DVS128"))) as source:
        items = list(source)
    assert items and not any(isinstance(item, Gap) for item in items)
    source.close()  # twice does nothing
