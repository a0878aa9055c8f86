"""The AEDAT 4 codec: what is written is read, here and by others; what is damaged is counted, never fatal."""

from __future__ import annotations

import struct
from pathlib import Path

import aedat
import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, RgbFrame, write_aedat4
from streams.aedat4 import (
    COMPRESSIONS,
)
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_writer import encode_events
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


def test_events_are_written_byte_for_byte_whatever_lies_in_their_padding() -> None:
    events = random_events(50, 0, 1_000)
    dirty = events.copy()
    dirty.view(np.uint8).reshape(50, 16)[:, 13:] = 7
    assert encode_events(dirty) == encode_events(events)


@pytest.mark.parametrize("span", [(0, 15_000), (0, 0), (5, 5)])
def test_an_exposure_may_begin_with_time(tmp_path: Path, span: tuple[int, int]) -> None:
    with write_aedat4(tmp_path / "a.aedat4", None, SIZE) as writer:
        writer.write(RgbFrame(*span, np.zeros((48, 64, 3), np.uint8)))
    with Aedat4Reader(tmp_path / "a.aedat4") as reader:
        frame = reader.frame(reader.index[0])
    assert frame is not None and (frame.t_start_us, frame.t_end_us) == span


def test_writing_to_a_feed_that_was_not_opened_is_refused(tmp_path: Path) -> None:
    with write_aedat4(tmp_path / "a.aedat4", None, SIZE) as writer, pytest.raises(ValueError, match="EventPacket"):
        writer.write(EventPacket(0, 1, random_events(1, 0, 1)))
    with pytest.raises(ValueError, match="printable"):
        write_aedat4(tmp_path / "b.aedat4", SIZE, camera="a\x01b")
