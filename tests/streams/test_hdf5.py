"""HDF5 files of events: the layouts of known data sets, their units and sizes; hostile and damaged files."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams import EVENT_DTYPE, RecordingError, hdf5
from streams.hdf5 import Hdf5Source
from streams.items import Events, join_events
from tests.conftest import random_events
from tests.streams.test_prophesee import assert_seeks_equal_the_whole

h5py = pytest.importorskip("h5py")

SIZE = (346, 260)
EVENTS = random_events(150_000, 1_000_000, 1_100_000, SIZE)
RECORD = np.dtype({"names": ["x", "y", "p", "t"], "formats": ["<u2", "<u2", "<i2", "<i8"], "itemsize": 16})


def all_events(source: Hdf5Source) -> Events:
    return join_events(list(source.stored(None)))


def columns(group: Any, names: str = "x y t p", events: Events = EVENTS, **how: Any) -> None:
    """x, y, t and p as datasets of a group, by some names."""
    for field, name in zip("xytp", names.split(), strict=True):
        group.create_dataset(name, data=events[field], **how)


def plain(file: Any) -> None:
    columns(file.create_group("events"))


def dsec(file: Any) -> None:
    events = EVENTS.copy()
    events["t"] -= 900_000
    columns(file.create_group("events"), events=events, chunks=(5_000,), compression="gzip", shuffle=True)
    file["t_offset"] = 900_000
    file["ms_to_idx"] = np.arange(10)


def m3ed(file: Any) -> None:
    file["ovc/rgb/data"] = np.zeros((2, 4, 4, 3), np.uint8)
    columns(file.create_group("prophesee/left"), compression="lzf")
    columns(file.create_group("prophesee/right"), events=EVENTS[:10])
    file["prophesee/left/calib/resolution"] = [346, 260]


def metavision(file: Any) -> None:
    file.attrs["geometry"] = np.bytes_("346x260")
    records = np.zeros(len(EVENTS), RECORD)
    for name in "xypt":
        records[name] = EVENTS[name]
    file.create_dataset("CD/events", data=records, chunks=(16_384,))
    file["EXT_TRIGGER/events"] = np.zeros(3, [("p", "<i2"), ("t", "<i8"), ("id", "<i2")])


def mvsec(file: Any) -> None:
    array = np.stack([EVENTS["x"], EVENTS["y"], EVENTS["t"] / 1e6, 2.0 * EVENTS["p"] - 1], axis=1)
    file["davis/left/events"] = array
    file["davis/left/image_raw"] = np.zeros((2, 4, 4), np.uint8)


def v2e(file: Any) -> None:
    array = np.stack([EVENTS[name] for name in "txyp"], axis=1).astype(np.uint32)
    file.create_dataset("events", data=array, chunks=True, compression="gzip")


def e2vid(file: Any) -> None:
    file.attrs["sensor_resolution"] = (260, 346)
    file.attrs["t0"] = 1.0
    columns(file.create_group("events"), "xs ys _ ps")
    del file["events/_"]
    file["events/ts"] = EVENTS["t"] / 1e6


def long_names(file: Any) -> None:
    file["width"], file["height"] = 346, 260
    columns(file, "x y timestamp polarity")


def nanoseconds(file: Any) -> None:
    columns(file, "x y _ p")
    del file["_"]
    file["t"] = EVENTS["t"] * 1_000 + 10**18


LAYOUTS = [plain, dsec, m3ed, metavision, mvsec, v2e, e2vid, long_names]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes an HDF5 file by a function."""

    def make(fill: Callable[[Any], None]) -> Path:
        with h5py.File(tmp_path / "made.h5", "w") as file:
            fill(file)
        return tmp_path / "made.h5"

    return make


# --- layouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_known_layouts_are_read(make: Callable[..., Path], layout: Callable[[Any], None]) -> None:
    path = make(layout)
    assert Hdf5Source.reads(path.read_bytes()[:4096], path)
    with Hdf5Source(path) as source:
        assert isinstance(source, Hdf5Source)
        found = all_events(source)
        assert found.dtype == EVENT_DTYPE and np.array_equal(found, EVENTS)
        assert source.span_us == (EVENTS["t"][0], EVENTS["t"][-1])
        assert source.event_size == SIZE
        assert not source.counts


@pytest.mark.parametrize("layout", [plain, metavision, mvsec], ids=lambda layout: layout.__name__)
def test_seeks_equal_the_whole(make: Callable[..., Path], layout: Callable[[Any], None]) -> None:
    assert_seeks_equal_the_whole(Hdf5Source(make(layout)), SIZE)


def test_a_seek_begins_with_events_from_before(make: Callable[..., Path]) -> None:
    source = Hdf5Source(make(plain))
    for k in (65_536, 65_600, 131_072):
        packets = source.stored(int(EVENTS["t"][k]))
        first, second = next(packets), next(packets)
        assert first["t"][0] < EVENTS["t"][k] <= second["t"][0] or EVENTS["t"][k] <= first["t"][-1]
    assert len(next(source.stored(10**12))) == 150_000 - 2 * 65_536
    assert next(source.stored(-5))["t"][0] == EVENTS["t"][0]


def test_large_whole_numbers_are_nanoseconds(make: Callable[..., Path]) -> None:
    assert np.array_equal(all_events(Hdf5Source(make(nanoseconds)))["t"], EVENTS["t"] + 10**15)


@pytest.mark.parametrize(
    "places, size",
    [((100, 120), (128, 128)), ((303, 10), (304, 240)), ((345, 259), (346, 260)), ((1_279, 719), (1280, 720))],
)
def test_without_a_size_it_is_that_of_the_smallest_known_sensor(
    make: Callable[..., Path], places: tuple[int, int], size: tuple[int, int]
) -> None:
    events = EVENTS[:100].copy()
    events["x"] %= 50
    events["y"] %= 10
    events["x"][50], events["y"][60] = places
    path = make(lambda file: columns(file, events=events))
    assert Hdf5Source(path).event_size == size
    assert Hdf5Source(path, size=(2_000, 1_000)).event_size == (2_000, 1_000)


def test_what_the_file_says_goes_before_the_option(make: Callable[..., Path]) -> None:
    assert Hdf5Source(make(metavision), size=(640, 480)).event_size == SIZE


def test_texts_of_variable_length_are_left_alone(make: Callable[..., Path]) -> None:
    def fill(file: Any) -> None:
        metavision(file)
        file.attrs["geometry"] = "1280x720"  # where their heap is damaged, the library searches it for ever

    assert Hdf5Source(make(fill)).event_size == SIZE


def test_events_that_cannot_be_are_dropped_and_counted(make: Callable[..., Path]) -> None:
    places = EVENTS["x"].astype(np.int32)
    places[:5] = -1
    places[10:12] = 70_000
    times = EVENTS["t"] / 1e6
    times[20:24] = np.nan, np.inf, -np.inf, -5.0

    def fill(file: Any) -> None:
        file["x"], file["y"], file["t"], file["p"] = places, EVENTS["y"], times, EVENTS["p"][:-3]

    source = Hdf5Source(make(fill), size=SIZE)
    assert source.counts == {"incomplete events, dropped": 3}
    kept = np.delete(EVENTS[:-3], [0, 1, 2, 3, 4, 10, 11, 20, 21, 22, 23])
    assert np.array_equal(all_events(source), kept)
    assert source.counts["events of impossible times or places, dropped"] == 11


# --- strangers' files ---------------------------------------------------------------------------------------------


def other_file(make: Callable[..., Path], tmp_path: Path) -> Path:
    return make(plain).rename(tmp_path / "other.h5")


@pytest.mark.parametrize("name", ["events", "events/t"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(make: Callable[..., Path], tmp_path: Path, name: str, kind: str) -> None:
    other = other_file(make, tmp_path)

    def fill(file: Any) -> None:
        plain(file)
        file.move(name, "elsewhere")
        file[name] = h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink(str(other), name)
        del file["elsewhere"]

    with pytest.raises(RecordingError, match="holds no events"):
        Hdf5Source(make(fill))


def test_virtual_datasets_are_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    other = other_file(make, tmp_path)

    def fill(file: Any) -> None:
        plain(file)
        del file["events/t"]
        layout = h5py.VirtualLayout((150_000,), np.int64)
        layout[:] = h5py.VirtualSource(str(other), "events/t", (150_000,))
        file["events"].create_virtual_dataset("t", layout)

    with pytest.raises(RecordingError, match="keeps its events in other files"):
        Hdf5Source(make(fill))


def test_external_storage_is_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(8_000))

    def fill(file: Any) -> None:
        columns(file, "x y elsewhere p")
        file.create_dataset("t", (1_000,), np.int64, external=[(str(tmp_path / "secret"), 0, 8_000)])

    with pytest.raises(RecordingError, match="keeps its events in other files"):
        Hdf5Source(make(fill))


@pytest.mark.parametrize(
    "times, says",
    [
        ({"data": np.array([b"a", b"bc"], object), "dtype": "object"}, "no plain numbers"),
        ({"shape": (9,), "dtype": np.dtype((np.int64, (3,)))}, "no plain numbers"),
        ({"shape": (9,), "dtype": "c16"}, "no plain numbers"),
        ({"shape": (1 << 40,), "dtype": "i8", "chunks": (1 << 23,)}, "in pieces of more than 32 MB"),
        ({"shape": (1 << 40,), "dtype": "i8", "chunks": (1 << 10,)}, "says that it holds"),
        ({"shape": (9,), "dtype": "i8", "chunks": (9,), "scaleoffset": 3}, "is packed in an unusual way"),
        ({"shape": (0,), "dtype": "i8"}, "holds no events that can be read"),
    ],
    ids=["text", "arrays", "complex", "huge chunks", "hollow", "codec", "none"],
)
def test_odd_datasets_are_refused(make: Callable[..., Path], times: dict[str, Any], says: str) -> None:
    def fill(file: Any) -> None:
        columns(file, "x y _ p")
        how = dict(times)
        if how.get("dtype") == "object":
            how["dtype"] = h5py.string_dtype()
        file.create_dataset("t", **how)

    with pytest.raises(RecordingError, match=says) as caught:
        Hdf5Source(make(fill))
    assert "\n" not in str(caught.value)


def test_a_chunk_that_inflates_beyond_its_size_is_not_unpacked(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "_MAX_UNPACKED_BYTES", 1 << 20)

    def fill(file: Any) -> None:
        plain(file)
        del file["events/p"]
        packed = file.create_dataset("events/p", (150_000,), "u1", chunks=(75_000,), compression="gzip")
        packed[75_000:] = 1
        packed.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 22)))

    source = Hdf5Source(make(fill), size=SIZE)
    assert len(all_events(source)) == 150_000 - 2 * 65_536
    assert source.counts == {"corrupt packets skipped": 2}


@pytest.mark.parametrize("number, says", [(0x8ECF, "Prophesee's ECF"), (32_001, "pip install hdf5plugin")])
def test_a_codec_that_is_missing_is_named(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256)

    def fill(file: Any) -> None:
        columns(file, "x y _ p")
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1_000,))
        made.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"t", h5py.h5t.NATIVE_INT64, h5py.h5s.create_simple((150_000,)), made)

    with pytest.raises(RecordingError, match=says):
        Hdf5Source(make(fill))


def test_without_the_library_one_line_says_what_to_install(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(plain)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RecordingError, match=r"are read by h5py: pip install 'velora-rgbe\[formats\]'$"):
        Hdf5Source(path)


# --- damage -------------------------------------------------------------------------------------------------------


def test_a_damaged_chunk_costs_its_blocks(make: Callable[..., Path]) -> None:
    path = make(lambda file: columns(file, chunks=(10_000,), compression="gzip"))
    with h5py.File(path) as file:
        place = file["y"].id.get_chunk_info_by_coord((70_000,))
    data = bytearray(path.read_bytes())
    data[place.byte_offset : place.byte_offset + 50] = b"\xff" * 50
    path.write_bytes(data)
    source = Hdf5Source(path, size=SIZE)
    assert np.array_equal(all_events(source), np.concatenate([EVENTS[:65_536], EVENTS[131_072:]]))
    assert source.counts == {"corrupt packets skipped": 1}


@pytest.mark.parametrize("cut", [0, 8, 100, 3_000, 1_000_000])
def test_a_cut_file_is_named_in_one_line(make: Callable[..., Path], cut: int) -> None:
    path = make(plain)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RecordingError, match="copy the file again") as caught:
        Hdf5Source(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_holds_no_events_is_named_in_one_line(make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no events"):
        Hdf5Source(make(lambda file: file.create_dataset("images", (3, 4, 4), "u1")))
    with pytest.raises(RecordingError, match="no such file"):
        Hdf5Source(tmp_path / "gone.h5")


def test_a_group_that_holds_itself_is_not_walked_for_ever(make: Callable[..., Path]) -> None:
    def fill(file: Any) -> None:
        file["a/b"] = 3
        file["a/again"] = file["/"]

    with pytest.raises(RecordingError, match="holds no events"):
        Hdf5Source(make(fill))


@pytest.mark.parametrize("seed", range(10))
def test_flipped_bytes_never_end_a_program(make: Callable[..., Path], seed: int) -> None:
    path = make(lambda file: columns(file.create_group("events"), events=EVENTS[:3_000], compression="gzip"))
    rng = np.random.default_rng(seed)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[rng.integers(0, len(data) if seed % 2 else 4_000, 4)] ^= rng.integers(1, 256, 4, np.uint8)
    path.write_bytes(data.tobytes())
    try:
        source = Hdf5Source(path)
    except RecordingError as error:
        assert "\n" not in str(error)
    else:
        assert all(events.dtype == EVENT_DTYPE for events in source.stored(None))
