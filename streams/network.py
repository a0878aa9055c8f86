"""A live feed over TCP, by the DV network protocol: `tcp://host:port[,frames_port]`.

One socket a feed (see `streams.link`), which are put together here to one stream of items.
"""

from __future__ import annotations

import re
import selectors
import threading
import time
from collections import Counter, deque
from collections.abc import Container, Iterator, Sequence

import numpy as np

from streams.aedat4 import EVENTS, FRAMES
from streams.clock import Unroller
from streams.errors import StreamError
from streams.items import EventPacket, Gap, Item, RgbFrame, no_events, size_of
from streams.link import Arrived, Link
from streams.source import DEFAULT_PERIOD_US, JUMP_US, Source

STALL_S = 3.0  # without data: said
SILENT_S = 10.0  # without data: the connection is given up; as long as a jump in time that is a gap anyway
_LEARN_S, _LEARN_FRAMES = 0.5, 4  # how long the time between frames is looked for
_RETRY_S = (0.1, 1.0)  # the first wait and the longest one
_APART_S = 0.1  # how long at least one feed waits for the other's clock to begin anew
_MAX_HELD_BYTES, _MAX_HELD = 1 << 26, 1 << 14
_ROUND_S = 0.02


class TcpSource(Source):
    """Events and frames of a server, for ever; a lost connection is retried, and followed by a Gap.

    One over which nothing comes for long counts as lost: the other side may be gone without a word.
    Times are the server's; where they go back, because it plays a recording again or was started anew, they are
    continued.

    Raises StreamError where nobody listens, or something else than this protocol is spoken.
    """

    schemes = ("tcp",)
    live = True

    def __init__(self, address: str) -> None:
        super().__init__()
        self.name = address
        self._host, self._ports = _parse(address)
        self._closed = threading.Event()
        self._links: list[Link] = []
        self._lost_at: float | None = None
        self._silent_since: float | None = None  # where connections were given up since then for saying nothing
        try:
            self._connect()
            self.event_size = self._size(EVENTS)
            self.frame_size = self._size(FRAMES)
            if self.event_size is None and self.frame_size is None:
                raise StreamError(f"{address}: that server shares neither events nor frames")
            self.sample_period_us = self._learn_period()
        except BaseException:
            self.close()
            raise

    @property
    def warning(self) -> str:
        """What is wrong with the feed now, for people; empty where all is well."""
        lost_at, now = self._lost_at, time.monotonic()
        if lost_at is not None:
            return f"connection lost {now - lost_at:.0f} s ago, trying again"
        silent = [now - link.heard_at for link in self._links]
        quiet_s = now - self._quiet_since()
        if quiet_s > STALL_S:
            return f"no data for {quiet_s:.0f} s"
        for link, seconds in zip(self._links, silent, strict=False):
            if seconds > STALL_S and link.streams(FRAMES):  # no events alone is a scene in which nothing moves
                return f"no frames for {seconds:.0f} s"
        return ""

    def _learn_period(self) -> int:
        """The median time between the first frames, which are not used otherwise; what else comes meanwhile is not."""
        times: list[int] = []
        until = time.monotonic() + _LEARN_S
        while self.frame_size is not None and len(times) < _LEARN_FRAMES and time.monotonic() < until:
            for link in self._links:
                link.receive()
                times += [item.t_start_us for item in link.items() if isinstance(item, RgbFrame)]
            time.sleep(_ROUND_S)
        steps = np.diff(times)
        steps = steps[(steps > 0) & (steps < JUMP_US)]
        return int(np.median(steps)) if len(steps) else DEFAULT_PERIOD_US

    def close(self) -> None:
        """End the iteration within a moment, from any thread, and close the sockets."""
        self._closed.set()
        self._hang_up()

    def __iter__(self) -> Iterator[Item]:
        unroller = Unroller()
        for item in self._connected():
            if isinstance(item, Gap):
                unroller.begin_anew()
                yield item
            else:
                yield unroller.unrolled(item)

    def _connected(self) -> Iterator[Arrived | Gap]:
        """What comes over one connection after the other, in the device's time."""
        broken = False
        while not self._closed.is_set():
            for item in self._follow():
                if broken:
                    yield Gap("reconnected")
                broken, self._silent_since = False, None
                yield item
            if self._closed.is_set():
                return
            broken = True
            if all(link.open for link in self._links):
                self._silent_since = self._quiet_since()
            self._lost_at = self._silent_since or time.monotonic()
            self._reconnect()
            self._lost_at = None

    def _quiet_since(self) -> float:
        """When something last came, or the connection was made."""
        heard_at = max((link.heard_at for link in self._links), default=time.monotonic())
        return heard_at if self._silent_since is None else self._silent_since

    # --- connections --------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """To both ports; only where the second one was not asked for by name may nobody listen there."""
        self._hang_up()
        self._links = [Link(self._host, self._ports[0], self.name, self.counts, self._closed)]
        try:
            second = Link(self._host, self._ports[1], self.name, self.counts, self._closed)
        except StreamError:
            if self._frames_wanted:
                raise
            return
        if not any(second.streams(kind) and self._links[0].streams(kind) for kind in (EVENTS, FRAMES)):
            self._links.append(second)
            return
        second.close()
        if self._frames_wanted:
            raise StreamError(f"{self.name}: both ports share the same; give that of events, then that of frames")

    @property
    def _frames_wanted(self) -> bool:
        return "," in self.name

    def _hang_up(self) -> None:
        for link in self._links:
            link.close()

    def _reconnect(self) -> None:
        """Try until it works, or the source is closed."""
        wait, longest = _RETRY_S
        while not self._closed.wait(wait):
            try:
                self._connect()
            except StreamError:
                wait = min(2 * wait, longest)
                continue
            if self._closed.is_set():
                self._hang_up()
                return
            sizes = {EVENTS: self.event_size, FRAMES: self.frame_size}
            known = {kind: size for kind, size in sizes.items() if size is not None}
            found = {kind: self._size(kind) for kind in known}
            if any(size not in (None, known[kind]) for kind, size in found.items()):
                self._hang_up()
                raise StreamError(f"{self.name}: the server came back with another sensor; start again")
            if found == known:
                self._leave_out_all_but(known)
                return
            self._hang_up()  # a feed of it is yet to come
            wait = min(2 * wait, longest)

    def _leave_out_all_but(self, kinds: Container[str]) -> None:
        """A feed that was not there at first is not followed: what was opened is without it."""
        for link in self._links:
            if not any(link.streams(kind) for kind in (EVENTS, FRAMES) if kind in kinds):
                link.close()
        self._links = [link for link in self._links if link.open]

    def _size(self, kind: str) -> tuple[int, int] | None:
        sizes = ((stream.width, stream.height) for link in self._links for stream in link.streams(kind))
        return next(sizes, None)

    # --- items --------------------------------------------------------------------------------------------------------

    def _follow(self) -> Iterator[Arrived | Gap]:
        """What comes until a connection is lost or the source is closed."""
        order = _Order(self.counts, self._links, events=self.event_size is not None, frames=self.frame_size is not None)
        with selectors.DefaultSelector() as selector:
            for link in self._links:
                if link.open:
                    selector.register(link.socket, selectors.EVENT_READ, link)
            while not self._closed.is_set():
                for key, _ in selector.select(_ROUND_S):
                    key.data.receive()
                for link in self._links:
                    for item in link.items():
                        yield from order.push(link, item)
                yield from order.wait()
                silent_s = time.monotonic() - max(link.heard_at for link in self._links)
                if silent_s > SILENT_S or not all(link.open for link in self._links):
                    return


class _Order:
    """Items of two sockets, each in order, as one stream.

    A clock that begins anew does so for both at once; a frame whose exposure was under way when we joined is left out;
    where no events come, a packet without any says so, lest frames wait for them.
    """

    def __init__(self, counts: Counter[str], links: Sequence[Link], *, events: bool, frames: bool) -> None:
        self._counts, self._links, self._has_events = counts, links, events
        self._epoch = 0
        self._ahead = _Held(counts)  # of a clock that begins anew on one socket alone, as yet
        self._ahead_since = 0.0
        self._watermark: int | None = None
        self._joined = not (events and frames)  # whether it is known where the events begin
        self._early = _Held(counts)  # frames, until it is
        self._waiting: deque[tuple[float, int]] = deque()  # when frames came whose events are not all here, their ends
        self._patience = _Patience()

    def push(self, link: Link, item: Arrived) -> Iterator[Arrived | Gap]:
        """What may be passed on now that an item has come."""
        epoch = link.epoch_of(item)
        if epoch == self._epoch:
            yield from self._pass_on(item)
        elif epoch > self._epoch:
            self._ahead_since = self._ahead_since if self._ahead else time.monotonic()
            self._ahead.add(epoch, item)
            yield from self._begin_anew()
        else:
            self._counts["items from before the clock began anew, dropped"] += 1

    def wait(self) -> Iterator[Arrived | Gap]:
        """What may be passed on because time has passed."""
        now = time.monotonic()
        silent_s = self._patience.seconds
        if self._ahead and now - self._ahead_since > max(silent_s, _APART_S):
            for link in self._links:
                link.begin_anew(self._epoch + 1, self._ahead.newest.t_end_us)
            yield from self._begin_anew()
        if self._waiting and now - self._waiting[0][0] > silent_s:
            for link in self._links:
                for packet in link.flush():
                    yield from self.push(link, packet)
        while self._waiting and now - self._waiting[0][0] > silent_s:
            _, end = self._waiting.popleft()
            start = end if self._watermark is None else min(self._watermark, end)
            yield from self._advance(EventPacket(start, end, no_events(), time.monotonic_ns()))

    def _begin_anew(self) -> Iterator[Arrived | Gap]:
        while self._ahead and all(link.epoch > self._epoch for link in self._links):
            self._epoch += 1
            self._watermark, self._joined = None, True
            self._waiting.clear()
            self._early.taken()
            yield Gap("the clock began anew")
            for epoch, item in self._ahead.taken():
                if epoch == self._epoch:
                    yield from self._pass_on(item)
                else:
                    self._ahead.add(epoch, item)

    def _pass_on(self, item: Arrived) -> Iterator[Arrived | Gap]:
        if isinstance(item, EventPacket):
            if self._watermark is not None and item.t_start_us < self._watermark:
                self._patience.was_short()
            while self._waiting and self._waiting[0][1] <= item.t_end_us:
                came, end = self._waiting.popleft()
                if item.t_start_us <= end:  # else it was silence that the frame waited in
                    self._patience.was_enough(time.monotonic() - came)
            yield from self._advance(item)
            return
        if self._has_events and (self._watermark is None or item.t_end_us > self._watermark):
            self._waiting.append((time.monotonic(), item.t_end_us))
        if self._joined:
            yield item
        else:
            self._early.add(0, item)

    def _advance(self, packet: EventPacket) -> Iterator[Arrived | Gap]:
        self._watermark = max(packet.t_end_us, self._watermark or packet.t_end_us)
        yield packet
        yield from self._join(packet.t_start_us)

    def _join(self, start_us: int) -> Iterator[Arrived | Gap]:
        """The frames that came before it was known where the events begin, those that have all of theirs."""
        early, self._joined = [frame for _, frame in self._early.taken()], True
        whole = [frame for frame in early if frame.t_start_us >= start_us]
        if len(whole) < len(early):
            self._counts["frames from before we joined, left out"] += len(early) - len(whole)
        yield from whole


class _Held:
    """Items that wait, each with its epoch; the oldest are left out where they are too much, and counted."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._items: deque[tuple[int, Arrived]] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def newest(self) -> Arrived:
        """Which there has to be."""
        return self._items[-1][1]

    def add(self, epoch: int, item: Arrived) -> None:
        """At the end."""
        self._items.append((epoch, item))
        self._bytes += size_of(item)
        while len(self._items) > 1 and (self._bytes > _MAX_HELD_BYTES or len(self._items) > _MAX_HELD):
            self._bytes -= size_of(self._items.popleft()[1])
            self._counts["items that waited too long for others, dropped"] += 1

    def taken(self) -> list[tuple[int, Arrived]]:
        """All of them; none is left."""
        found = list(self._items)
        self._items.clear()
        self._bytes = 0
        return found


class _Patience:
    """How long a frame waits for events that may not come: some times as long as the last ones had to, within bounds.

    Waiting longer than needed would bunch the frames of a scene in which nothing moves; less would lose late events.
    """

    _FIRST_S, _LEAST_S, _MOST_S = 0.2, 0.1, 0.5
    _TIMES, _REMEMBERED = 4, 64

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=self._REMEMBERED)

    @property
    def seconds(self) -> float:
        """For the next frame."""
        if len(self._waits) < self._REMEMBERED // 4:
            return self._FIRST_S
        return min(max(self._TIMES * max(self._waits), self._LEAST_S), self._MOST_S)

    def was_enough(self, waited_s: float) -> None:
        """The events of a frame have come after so long."""
        self._waits.append(waited_s)

    def was_short(self) -> None:
        """Events have come that it was no longer waited for."""
        self._waits.append(2 * self.seconds / self._TIMES)


def _parse(address: str) -> tuple[str, tuple[int, int]]:
    """Host, and the ports of events and frames."""
    found = re.fullmatch(r"tcp://(\[[0-9a-fA-F:.]+\]|[^\s:/,\[\]]+):(\d{1,5})(?:,(\d{1,5}))?/?", address)
    ports = [int(port) for port in (found[2], found[3]) if port] if found else []
    if found is None or not all(0 < port < 65_536 for port in ports):
        raise StreamError(f"{address}: write it as tcp://HOST:PORT or tcp://HOST:PORT,PORT_OF_FRAMES")
    return found[1].strip("[]"), (ports[0], ports[1] if len(ports) > 1 else ports[0] + 1)
