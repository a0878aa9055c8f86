"""AEDAT 4 files that were made to harm: what they claim costs no more time or memory than what they hold."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from unittest.mock import Mock

import lz4.frame
import numpy as np
import pytest

from streams import EventPacket, RecordingError, RgbFrame, open_source, write_aedat4
from streams.aedat4 import MAGIC, decode_events, decompress, parse_header
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_writer import encode_frame, encode_header, encode_packets
from streams.items import Image
from tests.conftest import random_events
from tests.streams.test_aedat4 import SIZE

_LZ4 = b"\x04\x22\x4d\x18"


def node(number: int, more: str = "") -> str:
    attributes = {"typeIdentifier": "EVTS", "sizeX": "64", "sizeY": "48"}
    told = "".join(f'<attr key="{key}">{value}</attr>' for key, value in attributes.items())
    return f'<node name="{number}">{told}{more}</node>'


def file_of(body: bytes, nodes: str = node(0)) -> bytes:
    """A recording that was cut off: it has no table."""
    xml = f'<dv><node name="outInfo">{nodes}</node></dv>'
    return MAGIC + encode_header(1, -1, xml.encode()) + body


def test_the_index_of_a_file_without_a_table_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.aedat4_reader._MAX_ROWS", 1_000)
    path, packet = tmp_path / "many.aedat4", struct.pack("<ii", 0, 1) + b"x"
    path.write_bytes(file_of(packet * 2_500))
    with Aedat4Reader(path) as reader:
        assert len(reader.index) == 1_000
        assert reader.counts["bytes beyond the first two million packets, left out"] == 1_500 * len(packet)


@pytest.mark.timing
def test_a_walk_over_tiny_packets_takes_seconds(tmp_path: Path) -> None:
    path, packet = tmp_path / "many.aedat4", struct.pack("<ii", 0, 1) + b"x"
    path.write_bytes(file_of(packet * 1_000_000))
    began = time.perf_counter()
    with Aedat4Reader(path) as reader:
        assert len(reader.index) == 1_000_000
    assert time.perf_counter() - began < 15


def test_packets_do_not_overlap_however_headers_claim_it(tmp_path: Path) -> None:
    """Each claims all that follows it, and begins within the one before."""
    places, step = 2_000, 12
    end = places * step
    body = b"".join(struct.pack("<ii", 0, end - k * step - 8) + _LZ4 for k in range(places)) + bytes(8)
    path = tmp_path / "nested.aedat4"
    path.write_bytes(file_of(body))
    with Aedat4Reader(path) as reader:
        starts = reader.index["offset"] - 8
        ends = reader.index["offset"] + reader.index["size"]
        assert (starts[1:] >= ends[:-1]).all() and reader.index["size"].sum() <= len(body)


def test_the_search_for_headers_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.aedat4_reader._MAX_LOOKS", 500)
    path = tmp_path / "marks.aedat4"
    path.write_bytes(file_of(struct.pack("<ii", 99, 4) + _LZ4 * 100_000))
    unpacked = Mock(wraps=Aedat4Reader._at)
    monkeypatch.setattr(Aedat4Reader, "_at", lambda self, *place: unpacked(self, *place))
    with Aedat4Reader(path) as reader:
        assert not len(reader.index)
    assert unpacked.call_count < 1_000


def test_a_flipped_size_is_a_broken_header_and_no_missing_end(tmp_path: Path) -> None:
    events, path = random_events(1_000, 0, 100_000, SIZE), tmp_path / "a.aedat4"
    packets = [
        b"".join(encode_packets(EventPacket(0, 1, events[start : start + 100]), "lz4"))
        for start in range(0, 1_000, 100)
    ]
    broken = struct.pack("<ii", 0, 1 << 30) + packets[3][8:]
    path.write_bytes(file_of(b"".join([*packets[:3], broken, *packets[4:]])))
    with Aedat4Reader(path) as reader:
        assert len(reader.index) == 9 and reader.counts["broken packet headers"] == 1
        assert "bytes missing at the end" not in reader.counts


def test_small_packets_that_are_corrupt_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = lz4.frame.compress(bytes(100_000))
    path = tmp_path / "bombs.aedat4"
    path.write_bytes(file_of(20 * (struct.pack("<ii", 0, len(bomb)) + bomb)))
    unpack = Mock(wraps=decompress)
    monkeypatch.setattr("streams.aedat4_reader.decompress", unpack)
    with Aedat4Reader(path) as reader:
        for _ in range(3):
            assert [reader.events(entry) for entry in reader.index] == [None] * 20
    assert unpack.call_count == 20


def test_one_stream_of_a_number_and_no_more_than_any_camera_has() -> None:
    xml = '<dv><node name="outInfo">{}</node></dv>'
    assert len(parse_header(encode_header(0, -1, xml.format(node(0) * 60).encode()), 0).streams) == 1
    with pytest.raises(ValueError, match="100 streams"):
        parse_header(encode_header(0, -1, xml.format("".join(map(node, range(100)))).encode()), 0)


@pytest.mark.timing
def test_a_header_whose_nodes_lie_in_each_other_is_read_in_linear_time() -> None:
    depth, text = 10_000, "x" * 100_000
    opened = '<node name="outInfo"><node name="0">' * depth
    xml = f'<dv>{opened}<attr key="source">{text}</attr>{"</node></node>" * depth}</dv>'
    began = time.perf_counter()
    with pytest.raises(ValueError, match="streams"):
        parse_header(encode_header(0, -1, xml.encode()), 0)
    assert time.perf_counter() - began < 5


def test_events_that_lie_oddly_in_memory_are_read() -> None:
    events = random_events(50, 0, 1_000, SIZE)
    (packet,) = encode_packets(EventPacket(0, 1_000, events), "none")
    shifted = memoryview(b"\0\0\0" + packet[8:])[3:]
    found = decode_events(shifted)
    assert np.array_equal(found, events) and found.flags.aligned


def test_a_frame_larger_than_its_sensor_is_left_out_and_a_region_of_it_lies_in_its_place(tmp_path: Path) -> None:
    region, large = np.full((10, 20, 3), 200, np.uint8), np.full((200, 200, 3), 9, np.uint8)
    placed = [frame_of(region, 30, 12), frame_of(region, 50, 12), frame_of(region, -1, 0), frame_of(large, 0, 0)]
    path = tmp_path / "regions.aedat4"
    path.write_bytes(file_of(b"".join(placed), node(0).replace("EVTS", "FRME")))
    with open_source(path) as source:
        (frame,) = (item for item in source if isinstance(item, RgbFrame))
        assert source.counts["corrupt packets skipped"] == 3
    assert frame.image.shape == (48, 64, 3)
    assert (frame.image[12:22, 30:50] == 200).all() and int(frame.image.sum()) == int(region.sum())


def frame_of(image: Image, x: int, y: int) -> bytes:
    """A packet of a frame whose upper left corner is there."""
    height, width = image.shape[:2]
    frame, places = encode_frame(RgbFrame(5_000, 7_000, image)), struct.pack("<hhhh", width, height, 0, 0)
    payload = lz4.frame.compress(frame.replace(places, struct.pack("<hhhh", width, height, x, y), 1))
    return struct.pack("<ii", 0, len(payload)) + payload


def test_a_disk_that_fails_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.aedat4"
    with write_aedat4(path, SIZE, None) as writer:
        writer.write(EventPacket(0, 100, random_events(10, 0, 100, SIZE)))

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with open_source(path) as source:
        monkeypatch.setattr("os.pread", fails)
        with pytest.raises(RecordingError, match=r"a\.aedat4: cannot be read \(Input/output error; check the disk\)"):
            list(source)
