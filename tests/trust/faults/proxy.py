"""A network that does harm: a proxy between a server and its clients, whose faults are switched while it runs.

with Proxy(server.ports[0]) as proxy:
    client = open_source(f"tcp://127.0.0.1:{proxy.port}")
    proxy.freeze()                                      # it holds the sockets, and nothing passes
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

_LOOK_S = 0.02
_CHUNK = 1 << 16
Cut = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    """In one piece."""
    return [data]


def crumbs(seed: int) -> Cut:
    """In pieces of one to seven bytes."""
    drawn = random.Random(seed)

    def cut(data: bytes) -> list[bytes]:
        pieces, at = [], 0
        while at < len(data):
            size = drawn.randint(1, 7)
            pieces.append(data[at : at + size])
            at += size
        return pieces

    return cut


class Proxy:
    """Listens at `port`, and passes on what the server at `target` says.

    Each piece is late by `delay_s` and up to `jitter_s` more, in order; what comes within `merge_s` goes as one.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_s = self.jitter_s = self.merge_s = 0.0
        self.cut: Cut = whole
        self.connected = 0  # connections that were ever made through it
        self._flows = threading.Event()
        self._flows.set()
        self._ended = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._injected: deque[bytes] = deque()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_S)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._flows.set()
        self.hang_up()
        self._thread.join(5)
        self._listener.close()

    def freeze(self) -> None:
        """Nothing passes any more over the connections that there are, and none of them is closed."""
        self._flows.clear()

    def thaw(self) -> None:
        """It goes on where it stopped."""
        self._flows.set()

    def forget(self) -> None:
        """The connections that there are stay frozen for ever; new ones work."""
        frozen, self._flows = self._flows, threading.Event()
        frozen.clear()
        self._flows.set()

    def inject(self, data: bytes) -> None:
        """Something that the server has not said, before what it says next."""
        self._injected.append(data)

    def hang_up(self) -> None:
        """Close all connections."""
        pairs, self._pairs = self._pairs, []
        for own in (own for pair in pairs for own in pair):
            with suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
            own.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=2)
            except OSError:  # it is not there just now
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connected += 1
            self._pairs.append((server, client))
            flows = self._flows
            threading.Thread(target=self._pass_on, args=(server, client, flows), name="proxied", daemon=True).start()

    def _pass_on(self, server: socket.socket, client: socket.socket, flows: threading.Event) -> None:
        drawn, due_at = random.Random(self.connected), 0.0
        with suppress(OSError), server, client:
            server.settimeout(_LOOK_S)
            while not self._ended.is_set():
                try:
                    data = server.recv(_CHUNK)
                except TimeoutError:
                    if client.fileno() < 0:
                        return
                    continue
                if not data:
                    return
                if self.merge_s:
                    data += self._rest(server)
                due_at = max(due_at, time.monotonic() + self.delay_s + drawn.uniform(0, self.jitter_s))
                self._ended.wait(max(0.0, due_at - time.monotonic()))
                while not flows.wait(_LOOK_S) and not self._ended.is_set() and client.fileno() >= 0:
                    pass
                if self._injected:
                    client.sendall(self._injected.popleft())
                for piece in self.cut(data):
                    client.sendall(piece)

    def _rest(self, server: socket.socket) -> bytes:
        """What comes in `merge_s`."""
        until, parts = time.monotonic() + self.merge_s, []
        while time.monotonic() < until:
            with suppress(TimeoutError):
                part = server.recv(_CHUNK)
                if not part:
                    break
                parts.append(part)
        return b"".join(parts)


@contextmanager
def between(ports: Sequence[int]) -> Iterator[tuple[str, list[Proxy]]]:
    """A proxy before each port of a server, and the address of the feed behind them."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(port)) for port in ports]
        yield f"tcp://127.0.0.1:{','.join(str(proxy.port) for proxy in proxies)}", proxies
