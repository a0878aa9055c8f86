"""One socket of a live feed by the DV network protocol: bytes in, items out.

The server sends a size-prefixed IOHE, as at the beginning of a file but without the version line, and then packets as
in a file (see `streams.aedat4`). Every length is checked, buffers are bounded: where events come faster than they are
taken, whole packets are left out and counted.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from streams.aedat4 import (
    DECODE_ERRORS,
    EVENTS,
    FRAMES,
    PACKET_HEADER,
    Header,
    StreamInfo,
    decode_events,
    decode_frame,
    decompress,
    parse_header,
)
from streams.aedat4_source import Spans
from streams.errors import StreamError
from streams.items import MAX_TIME_US, EventPacket, Events, RgbFrame
from streams.source import JUMP_US
from streams.text import printable

CONNECT_S = 3.0
_SLICE_S = 0.1  # in which it is looked whether the source was closed meanwhile
_UNDER_WAY = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN}
_HEADER_BYTES = 1 << 20
_PACKET_BYTES = 1 << 26
_READ_BYTES = 1 << 24  # at a time
_BACKLOG_PACKETS, _BACKLOG_BYTES = 64, 1 << 23  # of events that wait to be decoded; beyond, every other one is left out
_FEW = 16  # events that alone tell nothing of the time
_RESET_US = 100_000  # a step back of more is a clock that began anew
_APART_US = 500_000  # two sockets that differ by less are of one time

Arrived = EventPacket | RgbFrame


class Link:
    """One socket: bytes in, items out."""

    def __init__(self, host: str, port: int, name: str, counts: Counter[str], gone: threading.Event) -> None:
        """Connect. `gone`, set from any thread, ends that. Raises StreamError where the protocol is not spoken."""
        self.name, self.counts, self._gone = name, counts, gone
        self.heard_at = time.monotonic()  # a whole packet: what merely claims to be one may never end
        self.epoch, self._reached = 0, -MAX_TIME_US  # how often the clock began anew, and where it is
        self._before: int | None = None  # where it was, while it is only known from elsewhere that it began anew
        self._spans = Spans(counts)
        self._bytes, self._arrived_ns = bytearray(), time.monotonic_ns()
        self._lost = False  # where the next packet begins
        try:
            self.socket = _connected(host, port, gone)
        except (OSError, UnicodeError, OverflowError) as error:
            raise StreamError(f"{name}: nobody answers at port {port} ({_reason(error)}); start the server") from None
        try:
            _keep_alive(self.socket)
            self._header = self._read_header()
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise

    @property
    def _sensor(self) -> tuple[int, int] | None:
        """Of the frames."""
        return next(((stream.width, stream.height) for stream in self.streams(FRAMES)), None)

    @property
    def open(self) -> bool:
        """Whether the connection stands."""
        return self.socket.fileno() >= 0

    def streams(self, kind: str) -> list[StreamInfo]:
        """Those of a kind that the server announced, with the size of their sensor."""
        return [s for s in self._header.streams if s.kind == kind and min(s.width, s.height) > 0]

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def epoch_of(self, item: Arrived) -> int:
        """How often the clock had begun anew when an item was made."""
        if self._before is not None:
            if abs(item.t_start_us - self._before) < abs(item.t_start_us - self._reached):
                return self.epoch - 1
            self._before = None
        if item.t_end_us < self._reached - _RESET_US:  # not its start: an exposure may be long
            self.epoch, self._reached = self.epoch + 1, item.t_end_us
        self._reached = max(self._reached, item.t_end_us)
        return self.epoch

    def begin_anew(self, epoch: int, near_us: int) -> None:
        """The clock began anew near a time; what still comes from before is told by being nearer to the old time."""
        if epoch <= self.epoch:
            return
        if abs(near_us - self._reached) > _APART_US:
            self._before, self._reached = self._reached, near_us
        self.epoch = epoch  # else we joined where it had begun anew already

    def flush(self) -> Iterator[EventPacket]:
        """The newest events, which wait for more of their microsecond."""
        for packet in self._spans.flush():
            yield replace(packet, arrival_ns=self._arrived_ns)

    def _read_header(self) -> Header:
        """Within the time to connect. Raises StreamError for anything else than the protocol."""
        until = time.monotonic() + CONNECT_S
        try:
            size = int.from_bytes(self._exactly(4, until), "little")
            if not 0 < size <= _HEADER_BYTES:
                raise ValueError("no header")
            return parse_header(size.to_bytes(4, "little") + self._exactly(size, until), 0)
        except TimeoutError:
            raise StreamError(f"{self.name}: the server says nothing; is it a DV network server?") from None
        except (ValueError, OSError, ElementTree.ParseError) as error:
            raise StreamError(f"{self.name}: what answers is no DV network server ({_reason(error)})") from None

    def _exactly(self, count: int, until: float) -> bytes:
        data = bytearray()
        self.socket.settimeout(_SLICE_S)
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except TimeoutError:
                if time.monotonic() < until and not self._gone.is_set():
                    continue
                raise
            if not part:
                raise ValueError("it hung up")
            data += part
        return bytes(data)

    def receive(self) -> None:
        """Take what has come, a bounded amount; hangs up where the other side did."""
        got = 0
        while got < _READ_BYTES and self.open:
            try:
                part = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                part = b""
            if not part:
                self.close()
                break
            self._bytes += part
            got += len(part)
        if got:
            self._arrived_ns = time.monotonic_ns()

    def items(self) -> Iterator[Arrived]:
        """Those of the whole packets that have come. Raises StreamError after them, where the rest is no packet."""
        packets = list(self._packets())
        if packets:
            self.heard_at = time.monotonic()
        for kind, payload in self._thinned(packets):
            try:
                data = decompress(payload, self._header.compression)
                decoded = decode_events(data) if kind == EVENTS else decode_frame(data, self._sensor)
            except DECODE_ERRORS:
                self.counts["corrupt packets skipped"] += 1
                continue
            if isinstance(decoded, RgbFrame):
                yield replace(decoded, arrival_ns=self._arrived_ns)
                continue
            for part in self._without_resets(decoded):
                for packet in self._spans.push(part):
                    yield replace(packet, arrival_ns=self._arrived_ns)
        if self._lost:
            raise StreamError(f"{self.name}: the server sends what is no packet; start it again")

    def _without_resets(self, events: Events) -> Iterator[Events]:
        """A packet in which the clock begins anew, in pieces in which it does not; a few stray times are damage."""
        if not len(events):
            return
        reached = self._reached if self._reached > -MAX_TIME_US else int(events["t"][0])
        steps = np.diff(events["t"], prepend=reached)
        if not ((steps < -_RESET_US) | (steps > JUMP_US)).any():
            yield events
            return
        kept = []
        pieces = np.split(events, np.flatnonzero(abs(steps[1:]) > _RESET_US) + 1)
        for piece in pieces:
            if len(piece) >= _FEW or -_RESET_US <= int(piece["t"][0]) - reached <= JUMP_US:
                reached = int(piece["t"][-1])
                kept.append(piece)
        kept = kept or [events]  # a few events, and nothing else to go by
        if dropped := len(events) - sum(map(len, kept)):
            self.counts["events scattered in time, dropped"] += dropped
        yield from kept

    def _packets(self) -> Iterator[tuple[str, bytes]]:
        """Kind and payload of the packets that are here as a whole."""
        kinds = {stream.id: stream.kind for stream in self._header.streams}
        wanted = {stream.id for kind in (EVENTS, FRAMES) for stream in self.streams(kind)}
        position = 0
        while position + PACKET_HEADER.size <= len(self._bytes):
            stream, size = PACKET_HEADER.unpack_from(self._bytes, position)
            if stream not in kinds or not 0 < size <= _PACKET_BYTES:
                self._lost = True
                break
            start, end = position + PACKET_HEADER.size, position + PACKET_HEADER.size + size
            if end > len(self._bytes):
                break
            if stream in wanted:
                yield kinds[stream], bytes(memoryview(self._bytes)[start:end])
            position = end
        del self._bytes[:position]

    def _thinned(self, packets: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
        """Not more events than can be decoded in time: of too many packets every other one, and so on."""
        while True:
            events = [k for k, (kind, _) in enumerate(packets) if kind == EVENTS]
            if len(events) <= _BACKLOG_PACKETS or sum(len(packets[k][1]) for k in events) <= _BACKLOG_BYTES:
                return packets
            odd = set(events[1::2])
            self.counts["packets of events left out, since too many came"] += len(odd)
            packets = [packet for k, packet in enumerate(packets) if k not in odd]


def _connected(host: str, port: int, gone: threading.Event) -> socket.socket:
    """A connection to any address of a host, made within CONNECT_S. Raises OSError, within a moment of `gone` too."""
    found, failure = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), OSError("it has no address")
    for family, kind, protocol, _, address in found:
        until = time.monotonic() + CONNECT_S / len(found)  # one that never answers leaves the others their time
        own = socket.socket(family, kind, protocol)
        try:
            _connect(own, address, until, gone)
            return own
        except OSError as error:
            own.close()
            failure = error
    raise failure


def _connect(own: socket.socket, address: Any, until: float, gone: threading.Event) -> None:
    own.setblocking(False)
    error = own.connect_ex(address)
    while error in _UNDER_WAY:
        if gone.is_set() or time.monotonic() > until:
            raise TimeoutError(f"no answer within {CONNECT_S:g} s")
        if select.select([], [own], [own], _SLICE_S)[1:] != ([], []):
            error = own.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _keep_alive(own: socket.socket) -> None:
    """Notice within seconds that the other machine has gone without a word."""
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(str(text))[:120]
