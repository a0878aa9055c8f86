"""Shares a feed over TCP, by the DV network protocol: events on one port, frames on the next.

    with Server(source, loop=True) as server:
        print(server.ports)
        server.run()                     # until the source ends, or `stop` from any thread

A recording is played at its own pace, a live source as it comes. Each client has a bounded queue of its own: one that
reads too slowly has whole packets left out, which are counted, one that reads nothing for long is hung up on, and
nobody else notices.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field

from streams.aedat4_writer import encode_packets, encode_stream_header
from streams.errors import StreamError
from streams.items import EventImage, EventPacket, Gap, RgbFrame
from streams.player import Clock
from streams.source import JUMP_US, Source
from streams.text import plain_name

QUEUE_BYTES = 8 << 20  # of one client
PATIENCE_S = 30.0  # with a client that takes nothing: it may be gone without a word
_MAX_CLIENTS = 64  # of one port
_ROUND_S = 0.5
_DRAIN_S = 2.0
_COMPRESSION = "lz4"


@dataclass(eq=False)
class _Client:
    """One connection, and what is yet to be sent to it."""

    socket: socket.socket
    name: str
    queue: deque[memoryview] = field(default_factory=deque)
    queued: int = 0  # bytes
    took_at: float = 0.0  # when it last took something, or had nothing to take

    @property
    def stuck(self) -> bool:
        """Whether it has taken nothing for long, although there is something for it."""
        return bool(self.queue) and time.monotonic() - self.took_at > PATIENCE_S

    def offer(self, packet: bytes) -> bool:
        """Queue a whole packet; False where there is no room for it."""
        if self.queued and self.queued + len(packet) > QUEUE_BYTES:
            return False
        if not self.queue:
            self.took_at = time.monotonic()
        self.queue.append(memoryview(packet))
        self.queued += len(packet)
        return True

    def send(self) -> None:
        """Send what the other side takes now. Raises OSError where it has hung up."""
        try:
            while self.queue:
                sent = self.socket.send(self.queue[0])
                self.queued, self.took_at = self.queued - sent, time.monotonic()
                self.queue[0] = self.queue[0][sent:]
                if not self.queue[0]:
                    self.queue.popleft()
        except BlockingIOError:
            pass


@dataclass(eq=False)
class _Port:
    """A listening socket and its clients."""

    listener: socket.socket
    header: bytes
    clients: list[_Client] = field(default_factory=list)


class Server:
    """A source for clients of the DV network protocol. Raises StreamError where a port is taken.

    `port` is that of the events, and the next one that of frames; 0 takes two that are free. A source without events
    has its frames on the first one.
    """

    def __init__(self, source: Source, *, host: str = "127.0.0.1", port: int = 0, loop: bool = False) -> None:
        self.source, self.loop = source, loop
        self.counts: Counter[str] = Counter()  # packets that were left out, by client
        self._stopped, self._changed = threading.Event(), threading.Lock()
        sizes = {EventPacket: source.event_size, RgbFrame: source.frame_size}
        headers = {
            kind: encode_stream_header(kind, size, _COMPRESSION, plain_name(source.name))
            for kind, size in sizes.items()
            if size is not None
        }
        listeners = _listen(host, port, len(headers))
        self._ports = {kind: _Port(own, headers[kind]) for kind, own in zip(headers, listeners, strict=True)}
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for own in (self._woken, self._waker):
            own.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        for ported in self._ports.values():
            self._selector.register(ported.listener, selectors.EVENT_READ, ported)
        self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self._thread.start()

    @property
    def ports(self) -> tuple[int, ...]:
        """Those that are listened at: of events, and of frames."""
        return tuple(int(port.listener.getsockname()[1]) for port in self._ports.values())

    @property
    def clients(self) -> int:
        """How many are connected, to the port that has most."""
        return max(len(port.clients) for port in self._ports.values())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """Let `run` return, from any thread."""
        self._stopped.set()
        if self.source.live:
            self.source.close()

    def close(self) -> None:
        """Hang up on all clients, and free the ports. Closing twice does nothing."""
        self.stop()
        self._wake()
        self._thread.join()
        self._selector.close()
        sockets = [self._woken, self._waker]
        for port in self._ports.values():
            sockets += [port.listener, *(client.socket for client in port.clients)]
        for own in sockets:
            own.close()

    def run(self) -> None:
        """Play the source to its end, or for ever. Raises StreamError as reading it does."""
        while not self._stopped.is_set():
            clock = Clock(None if self.source.live else 1.0)
            count, reached = 0, None
            for item in self.source:
                if isinstance(item, Gap):
                    clock.forget()
                    self._hang_up()
                    continue
                if reached is not None and abs(item.t_end_us - reached) > JUMP_US:
                    clock.forget()
                reached = item.t_end_us
                if self._stopped.wait(max(0.0, clock.until(item.t_end_us))):
                    return
                if isinstance(item, EventImage):
                    self.counts["images of events, which the protocol cannot carry"] += 1
                else:
                    self._share(item)
                count += 1
            if self.source.live or not self.loop or not count:
                self._drain()
                return
            self._stopped.wait(self.source.sample_period_us / 1e6)

    def _share(self, item: EventPacket | RgbFrame) -> None:
        """Put an item into the queues of those who listen."""
        port = self._ports[type(item)]
        if not port.clients:
            return
        for packet in encode_packets(item, _COMPRESSION):
            with self._changed:
                for client in list(port.clients):
                    if client.stuck:
                        self._forget(client)
                        self.counts[f"clients hung up on, that had taken nothing for {PATIENCE_S:g} s"] += 1
                        continue
                    if not client.offer(packet):
                        self.counts[f"packets left out, since {client.name} reads too slowly"] += 1
                    self._selector.modify(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        self._wake()

    def _drain(self) -> None:
        """Let clients have what is queued for them, as far as they take it within a moment."""
        until = time.monotonic() + _DRAIN_S
        while self._waiting() and time.monotonic() < until and not self._stopped.wait(0.02):
            self._wake()
        if waiting := self._waiting():
            self.counts["packets left out, since the end came first"] += waiting

    def _waiting(self) -> int:
        """Packets that are queued."""
        with self._changed:
            return sum(len(client.queue) for port in self._ports.values() for client in port.clients)

    def _hang_up(self) -> None:
        """After a gap clients have to begin anew, which a new connection tells them."""
        with self._changed:
            for port in self._ports.values():
                for client in list(port.clients):
                    self._forget(client)

    # --- the thread that talks to clients -----------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._stopped.is_set():
            for key, ready in self._selector.select(_ROUND_S):
                match key.data:
                    case _Port():
                        self._accept(key.data)
                    case _Client():
                        self._talk(key.data, ready)
                    case _:
                        self._woken.recv(4096)

    def _wake(self) -> None:
        with suppress(OSError):  # it has not been read for long, or is closed: both are well
            self._waker.send(b"!")

    def _accept(self, port: _Port) -> None:
        try:
            connection, address = port.listener.accept()
        except OSError:  # it hung up already, or there are too many files open
            time.sleep(0.05)
            return
        if len(port.clients) >= _MAX_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection, f"{address[0]}:{address[1]}")
        client.offer(port.header)
        with self._changed:
            port.clients.append(client)
            self._selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, client)

    def _talk(self, client: _Client, ready: int) -> None:
        """Send what waits; a client has nothing to say, but it hangs up."""
        with self._changed:
            if client.socket.fileno() < 0:
                return
            try:
                if ready & selectors.EVENT_READ and not client.socket.recv(4096):
                    raise ConnectionResetError
                client.send()
                if not client.queue:
                    self._selector.modify(client.socket, selectors.EVENT_READ, client)
            except BlockingIOError:
                pass
            except OSError:
                self._forget(client)

    def _forget(self, client: _Client) -> None:
        for port in self._ports.values():
            if client in port.clients:
                port.clients.remove(client)
                self._selector.unregister(client.socket)
                client.socket.close()


def _listen(host: str, port: int, count: int) -> list[socket.socket]:
    """Listening sockets at `count` ports in a row, from `port` on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(1 if port else 20):
        opened: list[socket.socket] = []
        try:
            for k in range(count):
                first = port or (opened[0].getsockname()[1] if opened else 0)
                opened.append(socket.create_server((host, first + k if first else 0), family=family, backlog=16))
        except (OSError, OverflowError) as error:
            for own in opened:
                own.close()
            if isinstance(error, socket.gaierror):
                raise StreamError(f"{host} is no address of this machine ({error.strerror})") from None
            if port:
                raise StreamError(
                    f"port {port + len(opened)} of {host} is not to be had ({error}): --port takes another"
                ) from None
            continue
        for own in opened:
            own.setblocking(False)
        return opened
    raise StreamError(f"no two ports in a row are free at {host}: --port chooses one")
