"""Prophesee RAW (EVT 2, EVT 3) and DAT recordings, and Event Stream files (.es), decoded by the library faery.

    RAW, DAT   lines "% key value" of text, among them format, sensor and size of it; then words of 2, 4 or 8 bytes
    .es        "Event Stream", version, kind of events, width, height; then events of some bytes, times as differences

faery is asked for with the extra `formats` and imported only when such a file is opened. RAW and DAT count y from the
top, .es from the bottom; events leave here with the origin at the top left. None of these formats has an index: a
place is sought by reading on from the start.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streams.aedat4 import MAX_PIXELS, MAX_SIDE
from streams.errors import RecordingError
from streams.event_file import EventFile
from streams.files import open_recording
from streams.items import EVENT_DTYPE, MAX_TIME_US, Events

_ES_MAGIC = b"Event Stream"
_KEYS = {"evt", "format", "geometry", "plugin_name", "Data", "Version"}  # of which a text header has one at least
_MAX_HEADER_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 24  # faery reads the first line of the data as if it were one more of the header
_SCANNED_BYTES = 1 << 28  # larger files are not read through to find where they end
_FORMATS = {"2": "evt2", "2.0": "evt2", "3": "evt3", "3.0": "evt3"}
_WORD_BYTES = {"evt2": 4, "evt3": 2, "dat": 8, "es": 1}
#: The largest places that can be written. Where the header leaves it open, faery is told these instead of the sensor's
#: size, for it drops 64 KB of the file for one event outside of that; such events are dropped later, one by one.
_LARGEST = {"evt2": (1 << 11, 1 << 11), "evt3": (1 << 11, 1 << 11), "dat": (1 << 14, 1 << 14)}
#: Sensors of recordings from the years before headers told the size, by what their driver is called.
_SENSORS = (("gen3", (640, 480)), ("gen4", (1280, 720)), ("imx636", (1280, 720)), ("genx320", (320, 320)))
_POLARITIES = ("on", "payload", "polarity")  # what faery calls it in EVT and .es, in DAT, and in .es of an ATIS


class FaerySource(EventFile):
    """A RAW, DAT or .es recording. `size` is the sensor's (width, height), for a header that does not say it.

    What faery cannot decode, 64 KB of the file at a time, is skipped and counted. `span_us` takes one pass over the
    file, which is a second or two for 256 MB; of larger files it stays unknown, and a player starts them anew instead
    of seeking. The header's word goes before `size`.

    Raises RecordingError where the file cannot be read, holds no events or tells no size, or faery is not installed.
    """

    format = "Prophesee or Event Stream"
    options = frozenset({"size"})

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        if head.startswith(_ES_MAGIC):
            return True
        header = text_header(head)[0]
        return bool(_KEYS & header.keys()) or (bool(header) and path.suffix.lower() in (".raw", ".dat"))

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None) -> None:
        super().__init__(path)
        head, self._bytes = _beginning(self.path)
        self._header, data_start = text_header(head)
        self._format = "es" if head.startswith(_ES_MAGIC) else self._format_of_text()
        self._size = None if self._format == "es" else size_in(self._header) or size or sensor_in(self._header)
        self._why = ""  # what faery said last of a packet that it could not decode
        self.event_size = self._checked_size()
        self.span_us = self._span()
        start = data_start + 2 * (self._format == "dat")  # the kind of events and their size
        if missing := (start - self._bytes) % _WORD_BYTES[self._format]:
            self.counts["bytes missing at the end"] = missing

    def close(self) -> None:
        """Nothing to do: each pass opens the file and closes it."""

    def stored(self, from_us: int | None) -> Iterator[Events]:
        before: Events | None = None
        for found in self._found(self.counts):
            events = self._converted(found)
            if not len(events):
                continue
            if from_us is not None and events["t"][-1] < from_us:
                before = events
                continue
            if before is not None:
                yield before
            before = from_us = None
            yield events
        if before is not None:
            yield before

    # --- what the file is -----------------------------------------------------------------------------------------

    def _format_of_text(self) -> str:
        """evt2, evt3 or dat; a RAW that does not say it is from the years when there was EVT 2 alone."""
        if not self._header:
            raise RecordingError(f"{self.path}: not a Prophesee RAW, DAT or .es recording; check the file")
        said = self._header.get("evt") or self._header.get("format", "").upper().removeprefix("EVT").split(";")[0]
        if said in _FORMATS:
            return _FORMATS[said]
        if said:
            said = self._header.get("format", f"EVT {said}").split(";")[0]
            raise RecordingError(f"{self.path}: {said[:40]!r} is not read here; export it as EVT 3, DAT or HDF5")
        named_dat = not _KEYS & self._header.keys() and self.path.suffix.lower() == ".dat"
        return "dat" if named_dat or {"Data", "Version"} & self._header.keys() else "evt2"

    def _checked_size(self) -> tuple[int, int]:
        if self._format != "es" and self._size is None:
            raise RecordingError(f"{self.path}: its header gives no sensor size; say it, as in --size 640x480")
        with self._decoder() as decoder:
            kind = getattr(decoder, "event_type", "dvs")
            width, height = self._size or decoder.dimensions or (0, 0)
        if kind not in ("dvs", "atis", "cd", "2d"):
            raise RecordingError(f"{self.path}: holds {kind} events, not those of a camera; choose another file")
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
            raise RecordingError(f"{self.path}: {width} x {height} cannot be its sensor's size; copy the file again")
        return width, height

    def _span(self) -> tuple[int, int] | None:
        span: tuple[int, int] | None = None
        for found in self._found(Counter()):
            if self._bytes > _SCANNED_BYTES:
                return None
            span = int(found["t"][0]) if span is None else span[0], int(found["t"][-1])
        if span is None:
            because = f"no events can be read ({self._why})" if self._why else "holds no events"
            raise RecordingError(f"{self.path}: {because}; copy the file or record again")
        return span

    # --- what it holds ----------------------------------------------------------------------------------------------

    def _decoder(self) -> Any:
        """faery's decoder of the file, a context manager."""
        try:
            import faery
        except ImportError:
            raise RecordingError(
                f"{self.path}: Prophesee and .es files are read by faery: pip install 'velora-rgbe[formats]'"
            ) from None
        try:
            if self._format == "es":
                return faery.es.Decoder(self.path, 0)
            if self._format == "dat":
                return faery.dat.Decoder(self.path, _LARGEST["dat"], "dat2")
            return faery.evt.Decoder(self.path, _LARGEST[self._format], self._format)
        except BaseException as error:
            raise RecordingError(f"{self.path}: cannot be read ({_said(error)}); copy the file again") from None

    def _found(self, counts: Counter[str]) -> Iterator[Any]:
        """Events as faery gives them: structured arrays, none of them empty. After an error it goes on behind it."""
        left = 1 + self._bytes // 4096  # errors that do not get on, as of a failing disk, come to an end
        with self._decoder() as decoder:
            while left:
                try:
                    packet = next(decoder, None)
                except BaseException as error:
                    self._why = _said(error)
                    counts["corrupt packets skipped"] += 1
                    left = left - 1 if isinstance(error, Exception) else 0
                    continue
                if packet is None:
                    return
                found = packet.get("events") if isinstance(packet, dict) else packet
                if found is None or not len(found):
                    continue
                if found["t"].max() > MAX_TIME_US:
                    counts["corrupt packets skipped"] += 1
                else:
                    yield found

    def _converted(self, found: Any) -> Events:
        if "exposure" in found.dtype.names:  # of an ATIS, beside changes
            found = found[~found["exposure"]]
        events = np.zeros(len(found), EVENT_DTYPE)
        events["t"], events["x"], events["y"] = found["t"], found["x"], found["y"]
        if self._format == "es" and self.event_size is not None:
            events["y"] = self.event_size[1] - 1 - events["y"]
        events["p"] = found[next(name for name in _POLARITIES if name in found.dtype.names)] != 0
        return events


def _said(error: BaseException) -> str:
    """What an error of faery's says, in one line. A panic of its Rust is no Exception; what else is none goes on."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(error).split()))


def _beginning(path: Path) -> tuple[bytes, int]:
    """The first bytes of a file, all of a text header among them, and how many it has."""
    try:
        with open_recording(path, buffering=1 << 16) as file:
            head = file.read(_MAX_HEADER_BYTES)
            file.seek(text_header(head)[1])
            if head.startswith(b"% ") and len(file.readline(_MAX_LINE_BYTES)) == _MAX_LINE_BYTES:
                raise RecordingError(f"{path}: has no end of its header; copy the file again")
            return head, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def text_header(head: bytes) -> tuple[dict[str, str], int]:
    """The keys and values of a text header, and its length in bytes; nothing and 0 where there is none."""
    header: dict[str, str] = {}
    position = 0
    while head.startswith(b"% ", position) and (end := head.find(b"\n", position)) >= 0:
        key, _, value = head[position + 2 : end].decode("latin-1").strip().partition(" ")
        header[key], position = value.strip(), end + 1
    return header, position


def size_in(header: Mapping[str, str]) -> tuple[int, int] | None:
    """The sensor's (width, height), where a text header says it in one of three ways."""
    found = re.match(r"(\d{1,5})x(\d{1,5})$", header.get("geometry", ""))
    if found:
        return int(found[1]), int(found[2])
    pairs = dict(re.findall(r"(width|height)=(\d{1,5})\b", header.get("format", "")))
    width, height = (str(pairs.get(name) or header.get(name.title(), "")) for name in ("width", "height"))
    return (int(width), int(height)) if re.fullmatch(r"\d{1,5} \d{1,5}", f"{width} {height}") else None


def sensor_in(header: Mapping[str, str]) -> tuple[int, int] | None:
    """The size of the sensor that a text header names by its driver."""
    return next((size for name, size in _SENSORS if name in header.get("plugin_name", "")), None)
