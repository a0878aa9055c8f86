"""The AEDAT 4 codec: what is written is read, here and by others; what is damaged is counted, never fatal."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import aedat
import lz4.frame
import numpy as np
import pytest
import zstandard

from streams import EVENT_DTYPE, EventPacket, RecordingError, RgbFrame, open_source, write_aedat4
from streams.aedat4 import (
    COMPRESSIONS,
    MAGIC,
    MAX_PACKET_BYTES,
    CorruptPacketError,
    decompress,
    parse_header,
)
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_writer import _TABLE_POSITION_AT, encode_events, encode_header, encode_table
from streams.items import Events
from tests.conftest import random_events

SIZE = (64, 48)


def images(seed: int = 0) -> list[RgbFrame]:
    """Two colour frames and a grey one."""
    rng = np.random.default_rng(seed)
    shapes = [(48, 64, 3), (48, 64, 3), (48, 64)]
    return [
        RgbFrame(1_000_000 + i * 40_000, 1_010_000 + i * 40_000, rng.integers(0, 255, shape, dtype=np.uint8))
        for i, shape in enumerate(shapes)
    ]


def write(path: Path, compression: str = "lz4", n: int = 5_000, packet: int = 500) -> Events:
    events = random_events(n, 1_000_000, 1_120_000)
    with write_aedat4(path, SIZE, SIZE, compression=compression) as writer:
        for start in range(0, n, packet):
            chunk = events[start : start + packet]
            writer.write(EventPacket(int(chunk["t"][0]), int(chunk["t"][-1]) + 1, chunk))
        for frame in images():
            writer.write(frame)
    return events


def read(path: Path) -> tuple[Events, list[RgbFrame], Aedat4Reader]:
    with Aedat4Reader(path) as reader:
        events_of, frames_of = reader.header.streams
        packets = [reader.events(entry) for entry in reader.of(events_of)]
        frames = [reader.frame(entry) for entry in reader.of(frames_of)]
    whole = [packet for packet in packets if packet is not None]
    events = np.concatenate(whole) if whole else np.empty(0, EVENT_DTYPE)
    return events, [frame for frame in frames if frame is not None], reader


def assert_same_frames(found: list[RgbFrame], expected: list[RgbFrame]) -> None:
    assert [(f.t_start_us, f.t_end_us) for f in found] == [(f.t_start_us, f.t_end_us) for f in expected]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_written_is_read(tmp_path: Path, compression: str) -> None:
    events = write(tmp_path / "a.aedat4", compression)
    found, frames, reader = read(tmp_path / "a.aedat4")
    assert np.array_equal(found, events)
    assert_same_frames(frames, images())
    assert not reader.counts


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_aedat_reads_what_is_written(tmp_path: Path, compression: str) -> None:
    events = write(tmp_path / "a.aedat4", compression)
    packets = list(aedat.Decoder(tmp_path / "a.aedat4"))
    found = np.concatenate([packet["events"] for packet in packets if "events" in packet])
    for mine, theirs in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        assert np.array_equal(found[theirs], events[mine])
    for packet, frame in zip([p["frame"] for p in packets if "frame" in p], images(), strict=True):
        assert (packet["exposure_begin_t"], packet["exposure_end_t"]) == (frame.t_start_us, frame.t_end_us)
        assert np.array_equal(packet["pixels"], frame.image)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_dv_processing_reads_what_is_written(tmp_path: Path, compression: str) -> None:
    dv = pytest.importorskip("dv_processing")
    events = write(tmp_path / "a.aedat4", compression)
    recording = dv.io.MonoCameraRecording(str(tmp_path / "a.aedat4"))
    assert tuple(recording.getEventResolution()) == SIZE
    store = dv.EventStore()
    while (batch := recording.getNextEventBatch()) is not None:
        store.add(batch)
    found = store.numpy()
    for mine, theirs in (("t", "timestamp"), ("x", "x"), ("y", "y"), ("p", "polarity")):
        assert np.array_equal(found[theirs], events[mine])
    for frame in images():
        theirs = recording.getNextFrame()
        assert np.array_equal(theirs.image, frame.image[..., ::-1] if frame.image.ndim == 3 else frame.image)
        assert theirs.timestamp == frame.t_start_us
        assert theirs.exposure.total_seconds() == pytest.approx((frame.t_end_us - frame.t_start_us) / 1e6)


def test_what_dv_processing_writes_is_read(tmp_path: Path) -> None:
    dv = pytest.importorskip("dv_processing")
    events = random_events(300, 1_000, 50_000)
    path = tmp_path / "dv.aedat4"
    config = dv.io.MonoCameraWriter.Config("camera")
    config.addEventStream(SIZE)
    config.addFrameStream(SIZE)
    writer = dv.io.MonoCameraWriter(str(path), config)
    vector = dv.EventPacket.EventVector([dv.Event(int(t), int(x), int(y), bool(p)) for t, x, y, p in events.tolist()])
    writer.writeEventPacket(dv.EventPacket(vector))
    pixels = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)
    writer.writeFrame(dv.Frame(5_000, 2_000, 0, 0, pixels, dv.FrameSource.SENSOR))
    del writer
    found, frames, reader = read(path)
    assert np.array_equal(found, events)
    assert_same_frames(frames, [RgbFrame(5_000, 7_000, pixels[..., ::-1])])
    assert not reader.counts


@pytest.mark.parametrize("name", ["cuke_davis346", "static_davis346", "frames_only", "empty", "one_timestamp"])
def test_real_recordings_read_as_aedat_reads_them(real_recording, name: str) -> None:
    path = real_recording(name)
    theirs = list(aedat.Decoder(path))
    with Aedat4Reader(path) as reader:
        ids = {stream.id: stream.kind for stream in reader.header.streams}
        mine = [(entry, ids[int(entry["stream"])]) for entry in reader.index]
        events = [reader.events(entry) for entry, kind in mine if kind == "EVTS"]
        frames = [reader.frame(entry) for entry, kind in mine if kind == "FRME"]
        assert not reader.counts
    for packet, expected in zip(events, [p["events"] for p in theirs if "events" in p], strict=True):
        assert packet is not None
        assert all(np.array_equal(packet[a], expected[b]) for a, b in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")))
    for frame, expected in zip(frames, [p["frame"] for p in theirs if "frame" in p], strict=True):
        assert frame is not None
        assert np.array_equal(frame.image, expected["pixels"])
        assert (frame.t_start_us, frame.t_end_us) == (expected["exposure_begin_t"], expected["exposure_end_t"])


@pytest.mark.parametrize("name", ["cuke_davis346", "static_davis346", "frames_only", "one_timestamp"])
def test_a_walk_finds_the_packets_of_the_table(real_recording, tmp_path: Path, name: str) -> None:
    original = real_recording(name)
    data = bytearray(original.read_bytes())
    struct.pack_into("<q", data, data.index(struct.pack("<q", len_before_table(original))), -1)
    (tmp_path / "no_table.aedat4").write_bytes(data[: len_before_table(original)])
    with Aedat4Reader(original) as table, Aedat4Reader(tmp_path / "no_table.aedat4") as walk:
        for column in ("offset", "stream", "size"):
            assert np.array_equal(table.index[column], walk.index[column])
        assert walk.counts == {"packet tables rebuilt": 1}


def len_before_table(path: Path) -> int:
    with Aedat4Reader(path) as reader:
        return reader.header.table_position


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


def test_events_are_written_byte_for_byte_whatever_lies_in_their_padding() -> None:
    events = random_events(50, 0, 1_000)
    dirty = events.copy()
    dirty.view(np.uint8).reshape(50, 16)[:, 13:] = 7
    assert encode_events(dirty) == encode_events(events)


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"MThd", "not an AEDAT 4 recording"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "AEDAT 3.1 is not supported"),
        (b"#!AER-DAT2.0\r\n", "AEDAT 2.0 is not supported"),
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


@pytest.mark.parametrize("span", [(0, 15_000), (0, 0), (5, 5)])
def test_an_exposure_may_begin_with_time(tmp_path: Path, span: tuple[int, int]) -> None:
    with write_aedat4(tmp_path / "a.aedat4", None, SIZE) as writer:
        writer.write(RgbFrame(*span, np.zeros((48, 64, 3), np.uint8)))
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        frame = reader.frame(reader.index[0])
    assert frame is not None and (frame.t_start_us, frame.t_end_us) == span


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


def test_writing_to_a_feed_that_was_not_opened_is_refused(tmp_path: Path) -> None:
    with write_aedat4(tmp_path / "a.aedat4", None, SIZE) as writer, pytest.raises(ValueError, match="EventPacket"):
        writer.write(EventPacket(0, 1, random_events(1, 0, 1)))
    with pytest.raises(ValueError, match="printable"):
        write_aedat4(tmp_path / "b.aedat4", SIZE, camera="a\x01b")


def test_header_text_cannot_command_a_terminal() -> None:
    xml = '<dv><node name="outInfo"><node name="0"><attr key="source">a&#x9b;31m</attr></node></node></dv>'
    (stream,) = parse_header(encode_header(0, -1, xml.encode()), 0).streams
    assert stream.source == "a?31m"
