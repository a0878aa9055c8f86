"""HDF5 files of events, as data sets of many kinds have them, read by the library h5py (the extra `formats`).

There is no one layout. What is looked for, in the groups of a file from the outermost inwards, is the first of

    x, y, t, p          four datasets by these names or such as xs, polarity, timestamps: DSEC, TUM-VIE (events/), M3ED
                        (prophesee/left/), E2VID, Monash
    events {x, y, t, p} one dataset of records with fields of such names: Prophesee's Metavision (CD/)
    events [N, 4]       one array: x, y, t, p (MVSEC, davis/left/), or t, x, y, p (v2e) where its third column goes back

Times that are whole numbers are microseconds, above 1e17 nanoseconds; others are seconds. `t_offset`, where there is
one, is added (DSEC). p is ON above 0. y counts from the top.

Files come from strangers, and HDF5 can point anywhere: links and data in other files are not followed, and nothing is
unpacked that grows beyond what it says.
"""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.aedat4 import MAX_PIXELS, MAX_SIDE
from streams.errors import RecordingError
from streams.event_file import EventFile
from streams.files import open_recording
from streams.items import EVENT_DTYPE, MAX_TIME_US, Events

MAGIC = b"\x89HDF\r\n\x1a\n"
_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "timestamp", "timestamps", "time"),
    "p": ("p", "ps", "polarity", "polarities", "pol"),
}
#: Of cameras with events. A file that does not tell its sensor is of the smallest that its events fit on.
_SENSORS: tuple[tuple[int, int], ...] = ((128, 128), (240, 180), (304, 240), (320, 240), (320, 320), (346, 260))
_SENSORS += ((480, 320), (640, 480), (768, 640), (1280, 720), (1280, 800), (1280, 960))
_BLOCK = 1 << 16  # events read at once
_LOOKED_AT = 64  # blocks, for the largest place and the first time that can be read
_MAX_GROUPS, _MAX_MEMBERS = 1000, 100  # groups looked into, and members of each
_MAX_CHUNK_BYTES, _MAX_RECORD_BYTES = 1 << 25, 256
_MAX_UNPACKED_BYTES = 1 << 28
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_DEFLATE_RATIO = 1032  # the most that it can do
_MISSING = {0x8ECF: "is packed with Prophesee's ECF; install its plugin hdf5_ecf, or export the recording as RAW"}
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError, OverflowError)


class Hdf5Source(EventFile):
    """The events of the first camera in an HDF5 file.

    The sensor's size is what the file says (attributes or small datasets: geometry, sensor_resolution, resolution,
    width and height), else `size` (width, height), else that of the smallest known sensor that takes the events of some
    blocks from all over the file. Blocks that cannot be read are skipped and counted. A place is sought by halving, so
    times should be in order.

    Raises RecordingError where the file holds no such events or cannot be read safely, or a library is missing.
    """

    format = "HDF5"
    options = frozenset({"size"})

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        return head.startswith(MAGIC)

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None) -> None:
        super().__init__(path)
        self._file = _open(self.path)
        try:
            group, self._columns = self._find()
            lengths = [len(column.rows) for column in self._columns.values()]
            self._length = min(lengths)
            offset_us = (_numbers(group, "t_offset") or _numbers(self._file, "t_offset") or [0])[0]
            self._offset_us = offset_us if abs(offset_us) <= MAX_TIME_US else 0
            self._unit_us = self._learn_unit()
            self.span_us = self._span()
            self.event_size = size_in(group) or size_in(self._file) or size or self._smallest_sensor()
        except _DAMAGE as error:
            self._file.close()
            reason = " ".join(str(error).split())
            raise RecordingError(f"{self.path}: is damaged ({reason}); copy the file again") from None
        except BaseException:
            self._file.close()
            raise
        self.counts.clear()  # of what was only looked at
        if max(lengths) > self._length:
            self.counts["incomplete events, dropped"] = max(lengths) - self._length

    def close(self) -> None:
        self._file.close()

    def stored(self, from_us: int | None) -> Iterator[Events]:
        start = 0
        if from_us is not None:  # the block of the last event before
            place = bisect_left(range(self._length), from_us, key=lambda k: self._time(k, MAX_TIME_US))
            start = max(0, place - 1) // _BLOCK * _BLOCK
        yield from map(self._events, self._raw(range(start, self._length, _BLOCK)))

    # --- what the file is -----------------------------------------------------------------------------------------

    def _find(self) -> tuple[Any, dict[str, Column]]:
        """The first group with events, and where they are."""
        groups = [self._file]
        for group in groups:  # which grows
            if columns := _columns(group, self.path):
                return group, columns
            members = (_member(group, name) for name in islice(group, _MAX_MEMBERS))
            groups += islice((one for one in members if _is(one, "Group")), _MAX_GROUPS - len(groups))
        raise RecordingError(f"{self.path}: holds no events (datasets x, y, t and p in one group; links do not count)")

    def _learn_unit(self) -> float:
        """How many microseconds the file's unit of time is."""
        times = next((raw["t"] for raw in self._raw(self._spread())), np.zeros(0))
        times = times[np.isfinite(times)]
        if (times != np.rint(times)).any():
            return 1e6
        return 1e-3 if len(times) and times.max() > 1e17 else 1

    def _span(self) -> tuple[int, int]:
        """The first moment that can be read, and the last."""
        ends = (range(self._length), range(self._length - 1, -1, -1))
        times = [next((t for k in end[::_BLOCK][:_LOOKED_AT] if (t := self._time(k, -1)) >= 0), -1) for end in ends]
        if min(times) < 0:
            raise RecordingError(f"{self.path}: holds no events that can be read; record again, or choose another file")
        return min(times), max(times)

    def _smallest_sensor(self) -> tuple[int, int]:
        """The smallest sensor that takes the events of some blocks."""
        found = [events for events in map(self._events, self._raw(self._spread())) if len(events)]
        width, height = (1 + max((int(events[name].max()) for events in found), default=0) for name in "xy")
        width, height = next((size for size in _SENSORS if size[0] >= width and size[1] >= height), (width, height))
        if not _is_size(width, height):
            raise RecordingError(f"{self.path}: does not tell its sensor's size; say it, as in --size 640x480")
        return width, height

    # --- what it holds ----------------------------------------------------------------------------------------------

    def _spread(self) -> range:
        """Where some blocks from all over the file begin."""
        blocks = -(-self._length // _BLOCK)
        return range(0, self._length, _BLOCK * max(1, -(-blocks // _LOOKED_AT)))

    def _raw(self, begins: range) -> Iterator[dict[str, NDArray[Any]]]:
        """The columns of blocks, as they are stored; damaged ones are skipped and counted."""
        for begin in begins:
            if not self._file:  # closed
                return
            end = min(begin + _BLOCK, self._length)
            try:
                blocks = {id(rows): rows.read(begin, end) for rows, _ in self._columns.values()}
            except _DAMAGE:
                self.counts["corrupt packets skipped"] += 1
                continue
            yield {name: column.of(blocks[id(column.rows)]) for name, column in self._columns.items()}

    def _events(self, raw: dict[str, NDArray[Any]]) -> Events:
        """The events of a block, less those that cannot be, which are counted."""
        raw["t"] = self._microseconds(raw["t"])
        possible = raw["t"] >= 0
        for name in "xy":
            possible &= (raw[name] >= 0) & (raw[name] < 1 << 16)
        if not possible.all():
            self.counts["events of impossible times or places, dropped"] += int(len(possible) - possible.sum())
            raw = {name: column[possible] for name, column in raw.items()}
        events = np.zeros(len(raw["t"]), EVENT_DTYPE)
        events["t"], events["x"], events["y"], events["p"] = raw["t"], raw["x"], raw["y"], raw["p"] > 0
        return events

    def _microseconds(self, times: NDArray[Any]) -> NDArray[np.int64]:
        """Times of the file in microseconds; -1 for those that cannot be."""
        if times.dtype.kind == "f":
            with np.errstate(over="ignore"):
                exact = np.nan_to_num(np.rint(times.astype(np.float64) * self._unit_us), nan=-1.0)
            whole = np.clip(exact, -1, 2.0 * MAX_TIME_US).astype(np.int64)
        else:
            whole = times.astype(np.int64) // (1 if self._unit_us == 1 else 1000)
        possible = (whole >= 0) & (whole <= MAX_TIME_US)
        whole += self._offset_us
        return np.where(possible & (whole >= 0) & (whole <= MAX_TIME_US), whole, -1)

    def _time(self, k: int, otherwise: int) -> int:
        """When an event was; `otherwise` where that cannot be read."""
        column = self._columns["t"]
        with suppress(*_DAMAGE):
            if (time_us := int(self._microseconds(column.of(column.rows.read(k, k + 1)))[0])) >= 0:
                return time_us
        return otherwise


class Rows:
    """A dataset, read by ranges of its rows; nothing in it takes more memory than it says.

    Raises RecordingError where it is kept elsewhere, holds no numbers, or is packed in a way that cannot be read here.
    """

    def __init__(self, dataset: Any, path: Path) -> None:
        self._dataset, self._chunk_bytes = dataset, math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        self._heavy: set[tuple[int, ...]] = set()  # chunks that may grow too large: looked at before they are read
        if fault := self._fault() or self._packing_fault():
            raise RecordingError(f"{path}: {fault}")
        stored = min(dataset.id.get_storage_size(), path.stat().st_size)
        if dataset.nbytes > _MAX_UNPACKED_BYTES + _DEFLATE_RATIO * stored:
            raise RecordingError(f"{path}: says that it holds {len(self):,} events, and does not; copy the file again")

    def __len__(self) -> int:
        return int(self._dataset.shape[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to before `stop`. Raises OSError, among others, where they are damaged."""
        chunk = self._dataset.chunks
        for place in [one for one in self._heavy if one[0] < stop and one[0] + chunk[0] > start]:
            if not _inflates_within(self._dataset.id.read_direct_chunk(place)[1], self._chunk_bytes):
                raise OSError("a chunk grows beyond what it says")
            self._heavy.discard(place)
        return np.asarray(self._dataset[start:stop])

    def _fault(self) -> str:
        """What keeps it from being read, and the fix."""
        dataset, kind = self._dataset, self._dataset.dtype
        if dataset.is_virtual or dataset.external:
            return "keeps its events in other files, which are not opened; copy them into one"
        if any(one.kind not in "iufb" for one in ([kind[n] for n in kind.names] if kind.names else [kind])):
            return "its events are no plain numbers; write them as datasets x, y, t and p"
        if max(self._chunk_bytes, kind.itemsize * _BLOCK) > _MAX_CHUNK_BYTES:
            return f"is stored in pieces of more than {_MAX_CHUNK_BYTES >> 20} MB; rewrite it with h5repack"
        return ""

    def _packing_fault(self) -> str:
        """The same for how it is packed. Chunks that inflate to too much are noted."""
        import h5py

        made = self._dataset.id.get_create_plist()
        codes = [made.get_filter(k)[0] for k in range(made.get_nfilters())]
        packers = [code for code in codes if code not in (_SHUFFLE, _FLETCHER32)]
        if len(packers) > 1 or any(code < 256 and code != _DEFLATE for code in packers):
            return "is packed in an unusual way; rewrite it with h5repack"
        if packers == [_DEFLATE]:
            self._dataset.id.chunk_iter(partial(self._note_heavy, 1 << codes.index(_DEFLATE)))
        elif packers and not h5py.h5z.filter_avail(packers[0]):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401  (brings the codecs with it)
            if not h5py.h5z.filter_avail(packers[0]):
                return _MISSING.get(packers[0], "is packed with a codec that is missing: pip install hdf5plugin")
        return ""

    def _note_heavy(self, left_out: int, chunk: Any) -> None:
        if chunk.size * _DEFLATE_RATIO > _MAX_UNPACKED_BYTES and not chunk.filter_mask & left_out:
            self._heavy.add(tuple(chunk.chunk_offset))


class Column(NamedTuple):
    """Where one of x, y, t and p is."""

    rows: Rows
    part: str | int | None  # the field of a record, or the column of an array; None: all of it

    def of(self, block: NDArray[Any]) -> NDArray[Any]:
        """This column of rows that were read."""
        if self.part is None:
            return block
        return np.asarray(block[self.part] if isinstance(self.part, str) else block[:, self.part])


def _columns(group: Any, path: Path) -> dict[str, Column] | None:
    """Where x, y, t and p are, if they are in this group."""
    found = {key: _dataset(group, names, dimensions=1) for key, names in _NAMES.items()}
    if None not in found.values():
        return {key: Column(Rows(one, path), None) for key, one in found.items()}
    table = _dataset(group, ("events",), dimensions=1)
    if table is not None and table.dtype.names:
        fields = {key: next((name for name in names if name in table.dtype.names), "") for key, names in _NAMES.items()}
        if all(fields.values()):
            rows = Rows(table, path)
            return {key: Column(rows, field) for key, field in fields.items()}
    table = _dataset(group, ("events",), dimensions=2)
    if table is not None and table.shape[1] == 4:
        rows = Rows(table, path)
        third = rows.read(0, min(_BLOCK, len(rows)))[:, 2]
        order = "txyp" if (third[1:] < third[:-1]).any() else "xytp"
        return {key: Column(rows, order.index(key)) for key in _NAMES}
    return None


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise RecordingError(f"{path}: HDF5 files are read by h5py: pip install 'velora-rgbe[formats]'") from None
    open_recording(path).close()
    try:
        return h5py.File(path, "r", rdcc_nbytes=_MAX_CHUNK_BYTES, locking="best-effort")
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise RecordingError(f"{path}: cannot be read ({reason}); copy the file again") from None


def _is(member: Any, kind: str) -> bool:
    """Whether something in a file, or a link to it, is of one of h5py's classes."""
    return type(member).__name__ == kind


def _member(group: Any, name: str) -> Any:
    """What is in a group by a name; None where nothing is, or a link to elsewhere."""
    with suppress(*_DAMAGE):
        return group[name] if _is(group.get(name, getlink=True), "HardLink") else None
    return None


def _dataset(group: Any, names: tuple[str, ...], dimensions: int) -> Any:
    members = (_member(group, name) for name in names)
    return next((one for one in members if _is(one, "Dataset") and one.ndim == dimensions), None)


def _numbers(group: Any, name: str) -> list[int]:
    """The whole numbers in a small attribute or dataset of a group, also those in a text such as 640x480.

    Not in texts of variable length: those stand in a heap, and the HDF5 library may read a damaged heap for ever.
    """
    with suppress(*_DAMAGE):
        if name in group.attrs:
            kept = group.attrs.get_id(name)
            small = kept.dtype.kind in "iufS" and kept.get_storage_size() <= _MAX_RECORD_BYTES
            return [int(number) for number in re.findall(r"-?\d{1,18}", str(group.attrs[name]))] if small else []
        found = _member(group, name)
        if _is(found, "Dataset") and found.dtype.kind in "iuf" and found.nbytes <= _MAX_RECORD_BYTES:
            plain = not (found.is_virtual or found.external or found.chunks)
            return [int(number) for number in np.ravel(found[()])] if plain else []
    return []


def size_in(group: Any) -> tuple[int, int] | None:
    """The sensor's (width, height) as a group tells it. Of a pair the larger is the width: their order varies."""
    calibration = _member(group, "calib")
    tellers = [group, calibration] if _is(calibration, "Group") else [group]
    pairs = [_numbers(one, name) for one in tellers for name in ("geometry", "sensor_resolution", "resolution")]
    pairs.append(_numbers(group, "width")[:1] + _numbers(group, "height")[:1])
    sizes = ((max(pair[:2]), min(pair[:2])) for pair in pairs if len(pair) >= 2)
    return next((size for size in sizes if _is_size(*size)), None)


def _is_size(width: int, height: int) -> bool:
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


def _inflates_within(packed: bytes, most: int) -> bool:
    """Whether deflated bytes are no more than `most` when inflated; they are not kept."""
    unpacker, size = zlib.decompressobj(), 0
    with suppress(zlib.error):
        while packed and not unpacker.eof and size <= most:
            size += len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
        return size <= most
    return False
