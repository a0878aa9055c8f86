"""The source: where items come from. Addressed by a string, opened as a context manager, iterated for items.

with open_source("recordings/cards.aedat4") as source:
    for item in source: ...
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from streams.errors import RecordingError, StreamError
from streams.files import open_recording
from streams.items import Item
from streams.kinds import APART, KINDS
from streams.packet_cache import PacketCache

#: Further apart than this, two moments do not belong to one stream.
JUMP_US = 10_000_000
#: Assumed where a recording has too few frames to tell.
DEFAULT_PERIOD_US = 33_333
#: Of a file, to tell its format by.
HEAD_BYTES = 4096


class Source(ABC):
    """A synchronised feed of events and frames; items come in order of their end, on one clock.

    A recorded source is finite and starts anew with each iteration; a live one is endless, and `close` ends it from any
    thread.
    """

    format = ""  # of a recording, for people
    schemes: tuple[str, ...] = ()  # how the addresses of this kind begin, without the colon
    options: frozenset[str] = frozenset()  # keywords that the class takes beside the address
    hardened = False  # its reader stands files that were made to harm, so that uploads may be of this kind
    settings: Mapping[str, str] = {}  # of a camera, as they were read back
    simulated = False  # its events come from frames, not from an event camera
    reconstructed = False  # its frames come from events, not from a camera
    live = False
    path: Path | None = None  # of a recording
    name: str
    event_size: tuple[int, int] | None  # (width, height); None: no events in this source
    frame_size: tuple[int, int] | None  # (width, height); None: no frames in this source
    sample_period_us: int  # time from one sample to the next, as far as it can be told beforehand
    span_us: tuple[int, int] | None = None  # the first moment of a recording and its last; None: live, or not known

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # what was lost on the way, by reason; later stages add to it
        self.stopping: Callable[[], bool] = _never

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        """Whether a file that begins with `head` (HEAD_BYTES at most), or a folder (nothing), is of this kind."""
        return False

    @property
    def warning(self) -> str:
        """What is wrong with a live feed now, for people; empty where all is well."""
        return ""

    @abstractmethod
    def __iter__(self) -> Iterator[Item]: ...

    def read(self, from_us: int) -> Iterator[Item]:
        """All frames and events that end after `from_us` with the events of these frames, and perhaps earlier ones."""
        return iter(self)

    def share(self, cache: PacketCache) -> None:  # noqa: B027 (most share nothing)
        """Decode no packet from now on that the cache holds: items stay the same, but their arrays are read-only."""

    def stop_when(self, stopping: Callable[[], bool]) -> None:
        """End an iteration soon once this says so, also where no item comes: much of a file may be damaged."""
        self.stopping = stopping

    @abstractmethod
    def close(self) -> None:
        """Free files, sockets and devices. Closing twice does nothing."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Through(Source):
    """A source that passes on what another one yields. Derive and override `_through`."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source, self.counts, self.live = source, source.counts, source.live
        self.name, self.sample_period_us, self.span_us = source.name, source.sample_period_us, source.span_us
        self.event_size, self.frame_size, self.path = source.event_size, source.frame_size, source.path
        self.simulated, self.settings = source.simulated, source.settings
        self.reconstructed = self.reconstructed or source.reconstructed

    @property
    def warning(self) -> str:
        return self.source.warning

    def __iter__(self) -> Iterator[Item]:
        return self._through(iter(self.source))

    def read(self, from_us: int) -> Iterator[Item]:
        return self._through(self.source.read(from_us))

    def share(self, cache: PacketCache) -> None:
        self.source.share(cache)

    def stop_when(self, stopping: Callable[[], bool]) -> None:
        super().stop_when(stopping)
        self.source.stop_when(stopping)

    def close(self) -> None:
        self.source.close()

    @abstractmethod
    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, changed or not."""


def _never() -> bool:
    return False


def open_source(uri: str | Path, *, rgb: str | None = None, **options: Any) -> Source:
    """Open a source by its address; a recording's format is told by its content, not by its name.

    `rgb` is where frames come from instead of its own: see `streams.beside`, whose options are here `rgb_offset_ms`,
    `rgb_fps` and `rgb_homography`. `options` are what cannot be told from the address; None is an option not given.

    Raises StreamError, for recordings RecordingError, with one line that names the file and the fix.
    """
    kind = kind_of(uri)
    given = {name: value for name, value in options.items() if value is not None}
    beside = {name.removeprefix("rgb_"): given.pop(name) for name in list(given) if name.startswith("rgb_")}
    if beside and rgb is None:
        raise StreamError(f"{uri}: rgb_{next(iter(beside))} needs rgb: where the frames come from")
    if odd := given.keys() - kind.options:
        raise StreamError(f"{uri}: {', '.join(sorted(odd))} cannot be chosen for this kind of source")
    source = _opened(kind, uri, given)
    if rgb is None:
        return source
    from streams.beside import Beside

    return Beside(source, rgb, **beside)


def _opened(kind: type[Source], uri: str | Path, options: Mapping[str, Any]) -> Source:
    """An instance, or what stands for one in another process."""
    if f"{kind.__module__}:{kind.__qualname__}" not in APART:
        return cast("Callable[..., Source]", kind)(uri, **options)
    from streams.apart_source import ApartSource

    return ApartSource(kind, uri, **options)


def kind_of(uri: str | Path) -> type[Source]:
    """The class that opens an address. Raises as `open_source`."""
    kinds = [_class(name) for name in KINDS]
    scheme = re.match(r"([a-z]+):", str(uri)) if isinstance(uri, str) else None
    if scheme is not None and not Path(uri).exists():
        for kind in kinds:
            if scheme[1] in kind.schemes:
                return kind
        schemes = ", ".join(f"{name}:" for kind in kinds for name in kind.schemes)
        raise RecordingError(f"{uri}: no such kind of source; give the path of a recording, or one of {schemes}")
    path = Path(uri)
    return kind_of_head(_head(path), path)


def kind_of_head(head: bytes, path: Path) -> type[Source]:
    """The class that opens a file that begins with `head`, HEAD_BYTES of it, or a folder. Raises RecordingError."""
    for kind in map(_class, KINDS):
        if kind.reads(head, path):
            return kind
    if path.is_dir():
        raise RecordingError(f"{path}: is a folder; name one recording in it")
    if not head:
        raise RecordingError(f"{path}: the file is empty; record or copy it again")
    if version := re.match(rb"#!AER-DAT([0-9.]{1,8})", head):
        raise RecordingError(
            f"{path}: AEDAT {version[1].decode()} is not known; convert it with the program that made it"
        )
    raise RecordingError(f"{path}: not a recording of a known format; README.md lists them")


def _class(name: str) -> type[Source]:
    module, _, name = name.partition(":")
    found: type[Source] = getattr(importlib.import_module(module), name)
    return found


def _head(path: Path) -> bytes:
    """How a file begins; nothing for a folder."""
    if path.is_dir():
        return b""
    with open_recording(path) as file:
        return file.read(HEAD_BYTES)
