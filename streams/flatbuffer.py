"""Reading flatbuffers from strangers: every offset and length is checked against what is there.

The flatbuffers runtime trusts its input; a recording does not deserve that. This reads the little that AEDAT 4 uses
(tables, scalars, strings, vectors), following the flatbuffers binary format ("FlatBuffer Internals").
"""

from __future__ import annotations

import struct
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | memoryview
_SCALARS = {name: struct.Struct("<" + code) for name, code in {"i8": "b", "i16": "h", "i32": "i", "i64": "q"}.items()}
_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")

Scalar = Literal["i8", "i16", "i32", "i64"]


class CorruptBufferError(ValueError):
    """An offset or a length of the buffer points outside of it."""


def _unpack(form: struct.Struct, data: Buffer, position: int) -> int:
    if not 0 <= position <= len(data) - form.size:
        raise CorruptBufferError(f"offset {position} lies outside of {len(data)} bytes")
    return cast(int, form.unpack_from(data, position)[0])


class Table:
    """One table of a flatbuffer; fields are addressed by their slot, counted from 0 as in the schema."""

    def __init__(self, data: Buffer, position: int) -> None:
        self.data, self.position = data, position
        self.vtable = position - _unpack(_I32, data, position)
        self.vtable_size = _unpack(_U16, data, self.vtable)

    @classmethod
    def root(cls, data: Buffer, identifier: bytes) -> Table:
        """The root table of a size-prefixed buffer with this four-byte identifier."""
        if bytes(data[8:12]) != identifier:
            raise CorruptBufferError(f"expected {identifier.decode()}, found {bytes(data[8:12])!r}")
        return cls(data, 4 + _unpack(_U32, data, 4))

    def field(self, slot: int) -> int:
        """Where the field's inline value stands, 0 where it is left at its default."""
        entry = 4 + 2 * slot
        if entry + 2 > self.vtable_size:
            return 0
        offset = _unpack(_U16, self.data, self.vtable + entry)
        return self.position + offset if offset else 0

    def scalar(self, slot: int, kind: Scalar, default: int = 0) -> int:
        """An integer field."""
        place = self.field(slot)
        return _unpack(_SCALARS[kind], self.data, place) if place else default

    def vector(self, slot: int, item_size: int) -> tuple[int, int]:
        """Where a vector's items start, and how many there are; (0, 0) where it is absent."""
        place = self.field(slot)
        if not place:
            return 0, 0
        start = place + _unpack(_U32, self.data, place)
        count = _unpack(_U32, self.data, start)
        if start + 4 + count * item_size > len(self.data):
            raise CorruptBufferError(f"a vector of {count} items leaves its buffer of {len(self.data)} bytes")
        return start + 4, count

    def string(self, slot: int) -> str:
        """A string field, empty where absent."""
        start, size = self.vector(slot, 1)
        return bytes(self.data[start : start + size]).decode("utf-8", errors="replace")


class Tables:
    """A vector of tables read by columns: fields of thousands of small tables without a Python loop."""

    def __init__(self, table: Table, slot: int, most: int) -> None:
        start, count = table.vector(slot, 4)
        if count > most:
            raise CorruptBufferError(f"{count} tables where at most {most} can be")
        self.data = np.frombuffer(table.data, np.uint8)
        slots = start + 4 * np.arange(count, dtype=np.int64)
        self.positions = slots + self._gather(slots, "<u4")
        self.vtables = self.positions - self._gather(self.positions, "<i4")
        self.vtable_sizes = self._gather(self.vtables, "<u2")

    def column(self, slot: int, dtype: str, default: int = 0, at: int = 0) -> NDArray[np.int64]:
        """One field of every table, int64; `at` is the byte within an inline struct."""
        entry = 4 + 2 * slot
        present = entry + 2 <= self.vtable_sizes
        offsets = np.zeros(len(self.positions), np.int64)
        offsets[present] = self._gather(self.vtables[present] + entry, "<u2")
        values = np.full(len(self.positions), default, np.int64)
        present = offsets > 0
        values[present] = self._gather(self.positions[present] + offsets[present] + at, dtype)
        return values

    def _gather(self, positions: NDArray[np.int64], dtype: str) -> NDArray[np.int64]:
        size = np.dtype(dtype).itemsize
        if len(positions) and (positions.min() < 0 or positions.max() > len(self.data) - size):
            raise CorruptBufferError(f"a table leaves its buffer of {len(self.data)} bytes")
        windows = self.data[positions[:, None] + np.arange(size)]
        return np.ascontiguousarray(windows).view(dtype)[:, 0].astype(np.int64)
