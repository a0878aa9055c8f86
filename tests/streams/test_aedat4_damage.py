"""Damaged and hostile AEDAT 4 files: every whole packet is read, what is lost is counted, nothing is believed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import lz4.frame
import numpy as np
import pytest
import zstandard

from streams import EventPacket, RecordingError, RgbFrame, open_source, write_aedat4
from streams.aedat4 import (
    MAGIC,
    MAX_PACKET_BYTES,
    MAX_PIXELS,
    CorruptPacketError,
    decompress,
    parse_header,
)
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_writer import _TABLE_POSITION_AT, encode_frame, encode_header, encode_table
from streams.items import Events
from tests.conftest import random_events
from tests.streams.test_aedat4 import SIZE, assert_same_frames, images, read, write


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_a_killed_writer_leaves_every_whole_packet(tmp_path: Path, compression: str) -> None:
    path, events = tmp_path / "killed.aedat4", random_events(1_000, 1_000_000, 1_100_000)
    writer = write_aedat4(path, SIZE, None, compression=compression)
    for start in range(0, 1_000, 100):
        writer.write(EventPacket(0, 0, events[start : start + 100]))
    with Aedat4Reader(path) as reader:  # nobody has closed the writer
        found = np.concatenate([reader.events(entry) for entry in reader.index])
        assert reader.counts == {"packet tables rebuilt": 1}
    assert np.array_equal(found, events)
    writer.close()


ENDLESS = """
import sys, numpy as np
from streams import EVENT_DTYPE, EventPacket, write_aedat4
writer = write_aedat4(sys.argv[1], (64, 48))
events = np.zeros(1_000, EVENT_DTYPE)
for i in range(1_000_000):
    events["t"] = 1_000 * i + np.arange(1_000)
    writer.write(EventPacket(1_000 * i, 1_000 * (i + 1), events))
    print(i, flush=True)
"""


def test_kill_9_loses_at_most_the_packet_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "killed.aedat4"
    with subprocess.Popen([sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        writer.kill()
        written = 50 + len(writer.stdout.read().splitlines())
    with open_source(path) as source:
        times = np.concatenate([item.events["t"] for item in source if isinstance(item, EventPacket)])
    assert written * 1_000 <= len(times) <= (written + 1) * 1_000
    assert np.array_equal(times, np.arange(len(times)))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_a_cut_recording_gives_every_whole_packet_and_says_what_is_missing(tmp_path: Path, compression: str) -> None:
    events = write(tmp_path / "a.aedat4", compression)
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        index, size = reader.index, reader.header.table_position
    data = (tmp_path / "a.aedat4").read_bytes()
    cut = int(index["offset"][4]) + 3
    (tmp_path / "cut.aedat4").write_bytes(data[:cut])
    found, frames, reader = read(tmp_path / "cut.aedat4")
    assert np.array_equal(found, events[: 4 * 500])
    assert frames == []
    assert reader.counts["bytes missing at the end"] == size - cut


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_a_corrupt_packet_is_skipped_and_counted(tmp_path: Path, compression: str) -> None:
    events = write(tmp_path / "a.aedat4", compression)
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        entry = reader.index[3]
    data = bytearray((tmp_path / "a.aedat4").read_bytes())
    data[int(entry["offset"]) : int(entry["offset"]) + 16] = b"\xff" * 16
    (tmp_path / "bad.aedat4").write_bytes(data)
    found, _, reader = read(tmp_path / "bad.aedat4")
    assert np.array_equal(found, np.concatenate([events[:1_500], events[2_000:]]))
    assert reader.counts["corrupt packets skipped"] == 1


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("size", [0, -5, 1 << 30, 7])
def test_a_broken_packet_header_without_a_table_costs_one_packet_at_most(
    tmp_path: Path, compression: str, size: int
) -> None:
    events = write(tmp_path / "a.aedat4", compression)
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        at = int(reader.index["offset"][3])
    data = bytearray((tmp_path / "a.aedat4").read_bytes())
    struct.pack_into("<i", data, at - 4, size)
    struct.pack_into("<q", data, _TABLE_POSITION_AT, -1)
    (tmp_path / "bad.aedat4").write_bytes(data)
    found, frames, _ = read(tmp_path / "bad.aedat4")
    assert np.array_equal(found[:1_500], events[:1_500])
    assert np.array_equal(found[-3_000:], events[2_000:])
    assert_same_frames(frames, images())


def test_a_wrong_table_is_rebuilt(tmp_path: Path) -> None:
    events = write(tmp_path / "a.aedat4")
    data = bytearray((tmp_path / "a.aedat4").read_bytes())
    position = struct.unpack_from("<q", data, _TABLE_POSITION_AT)[0]
    data[position + 20 : position + 60] = bytes(40)
    (tmp_path / "bad.aedat4").write_bytes(data)
    found, frames, reader = read(tmp_path / "bad.aedat4")
    assert np.array_equal(found, events)
    assert_same_frames(frames, images())
    assert reader.counts == {"packet tables rebuilt": 1}


@pytest.mark.parametrize("pack, code", [(lz4.frame.compress, 1), (zstandard.compress, 3)])
def test_a_decompression_bomb_is_refused(pack, code: int) -> None:
    bomb = pack(bytes(MAX_PACKET_BYTES + 1))
    assert len(bomb) < 1_000_000
    with pytest.raises(CorruptPacketError):
        decompress(bomb, code)


def test_bombs_are_unpacked_once_however_often_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.aedat4")
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        first_frame = int(reader.of(reader.header.streams[1])["offset"][0])
    bomb = lz4.frame.compress(bytes(MAX_PACKET_BYTES))
    packets = 4 * (struct.pack("<ii", 1, len(bomb)) + bomb)
    data = bytearray((tmp_path / "a.aedat4").read_bytes()[: first_frame - 8] + packets)
    struct.pack_into("<q", data, _TABLE_POSITION_AT, -1)
    (tmp_path / "bombs.aedat4").write_bytes(data)
    unpack = Mock(wraps=decompress)
    monkeypatch.setattr("streams.aedat4_reader.decompress", unpack)
    with Aedat4Reader(tmp_path / "bombs.aedat4") as reader:
        events_of, frames_of = reader.header.streams
        assert not reader.is_readable(frames_of) and reader.times(reader.of(frames_of)[0], frames_of) is None
        assert [reader.frame(entry) for entry in reader.of(frames_of)] == [None] * 4
        assert reader.counts["corrupt packets skipped"] == 4
        assert unpack.call_count == 4
        assert reader.is_readable(events_of)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_a_packet_beyond_all_sizes_is_not_even_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.aedat4"
    with write_aedat4(path, SIZE, None, compression=compression) as writer:
        writer.write(EventPacket(0, 1, random_events(10, 0, 100)))
    with Aedat4Reader(path) as reader:
        start = reader.header.data_start
    with path.open("r+b") as file:
        file.seek(_TABLE_POSITION_AT)
        file.write(struct.pack("<q", -1))
        file.seek(start + 4)
        file.write(struct.pack("<i", MAX_PACKET_BYTES + 1))
        file.truncate(start + 8 + MAX_PACKET_BYTES + 1)
    tracemalloc.start()
    with Aedat4Reader(path) as reader:
        assert reader.events(reader.index[0]) is None and reader.counts["corrupt packets skipped"] == 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_the_largest_image_fits_a_packet() -> None:
    image = np.zeros((1 << 12, 1 << 12, 3), np.uint8)  # of four channels it is a quarter larger
    assert len(encode_frame(RgbFrame(0, 1, image))) - image.size < 1 << 12
    assert (MAX_PIXELS << 2) + (1 << 12) <= MAX_PACKET_BYTES


@pytest.mark.parametrize(
    "name, value", [("t", -1), ("t", 1 << 62)], ids=["before time began", "so late that sums overflow"]
)
def test_a_packet_of_impossible_times_is_corrupt(tmp_path: Path, name: str, value: int) -> None:
    events = random_events(10, 0, 100)
    events[name][5] = value
    path = tmp_path / "a.aedat4"
    with write_aedat4(path, SIZE, None) as writer:
        writer.write(EventPacket(0, 1, events))
        writer.write(EventPacket(0, 1, random_events(10, 0, 100)))
    found, _, reader = read_events(path)
    assert len(found) == 10
    assert reader.counts == {"corrupt packets skipped": 1}


def read_events(path: Path) -> tuple[Events, None, Aedat4Reader]:
    with Aedat4Reader(path) as reader:
        packets = [reader.events(entry) for entry in reader.index]
    return np.concatenate([packet for packet in packets if packet is not None]), None, reader


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"MThd", "not an AEDAT 4 recording"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "AEDAT 3.1 is not read here"),
        (b"#!AER-DAT2.0\r\n", "AEDAT 2.0 is not read here"),
        (b"#!AER-DAT4.0\r\n", "the header is cut off"),
        (b"#!AER-DAT4.0\r\n\xff\xff\xff\xff", "the header is cut off"),
        (b"#!AER-DAT4.0\r\n" + struct.pack("<I", 40) + bytes(40), "corrupt header"),
    ],
)
def test_what_is_no_recording_is_named_in_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "odd file.aedat4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        Aedat4Reader(path)
    assert str(path) in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="is a folder"):
        Aedat4Reader(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordingError, match="not a regular file"):
        Aedat4Reader(tmp_path / "pipe")


@pytest.mark.parametrize("xml", ['<!DOCTYPE a [<!ENTITY b "c">]><dv>&b;</dv>', "<dv", "<dv></dv>", ""])
def test_a_header_of_hostile_or_empty_xml_is_refused_or_empty(tmp_path: Path, xml: str) -> None:
    (tmp_path / "x.aedat4").write_bytes(MAGIC + encode_header(0, -1, xml.encode()))
    try:
        with Aedat4Reader(tmp_path / "x.aedat4") as reader:
            assert reader.header.streams == ()
    except RecordingError as error:
        assert "corrupt header" in str(error)


def test_an_exposure_of_weeks_is_not_believed(tmp_path: Path) -> None:
    with write_aedat4(tmp_path / "a.aedat4", None, SIZE) as writer:
        writer.write(RgbFrame(1_000, 1_000 + (1 << 40), np.zeros((48, 64, 3), np.uint8)))
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        frame = reader.frame(reader.index[0])
    assert frame is not None and frame.t_start_us == frame.t_end_us


@pytest.mark.timing
def test_a_file_of_broken_headers_is_walked_in_linear_time(tmp_path: Path) -> None:
    write(tmp_path / "a.aedat4", n=10, packet=10)
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        start, end = reader.header.data_start, int(reader.index["offset"][0] + reader.index["size"][0])
    data = bytearray((tmp_path / "a.aedat4").read_bytes())
    struct.pack_into("<q", data, _TABLE_POSITION_AT, -1)
    (tmp_path / "bad.aedat4").write_bytes(data[:start] + 10_000 * (data[start:end] + b"\xff" * 8))
    began = time.perf_counter()
    with Aedat4Reader(tmp_path / "bad.aedat4") as reader:
        assert len(reader.index) == reader.counts["broken packet headers"] == 10_000
    assert time.perf_counter() - began < 5


def test_a_table_that_claims_more_packets_than_fit_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a.aedat4", "zstd")
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        index, position = reader.index, reader.header.table_position
    bomb = zstandard.compress(encode_table(np.repeat(index[:1], 100_000)))
    (tmp_path / "bomb.aedat4").write_bytes((tmp_path / "a.aedat4").read_bytes()[:position] + bomb)
    found, _, reader = read(tmp_path / "bomb.aedat4")
    assert len(found) == 5_000 and reader.counts == {"packet tables rebuilt": 1}


def test_a_stream_of_corrupt_packets_does_not_hide_another(tmp_path: Path) -> None:
    write(tmp_path / "a.aedat4", "none")
    data = bytearray((tmp_path / "a.aedat4").read_bytes())
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        for entry in reader.of(reader.header.streams[0]):
            data[int(entry["offset"]) + 8] ^= 0xFF
    (tmp_path / "b.aedat4").write_bytes(data)
    with open_source(tmp_path / "b.aedat4") as source:
        assert source.event_size is None and source.frame_size == SIZE


def test_header_text_cannot_command_a_terminal() -> None:
    xml = '<dv><node name="outInfo"><node name="0"><attr key="source">a&#x9b;31m</attr></node></node></dv>'
    (stream,) = parse_header(encode_header(0, -1, xml.encode()), 0).streams
    assert stream.source == "a?31m"
