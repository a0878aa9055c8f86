"""Decoded packets of recordings, kept for all who read the same file, and for one who reads it again.

    cache = PacketCache(256 << 20)
    source.share(cache)          # any number of sources, each in any thread

Nothing is decoded under its lock, so two that miss the same packet at once both decode it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from streams.items import Events, RgbFrame

_EACH_BYTES = 1 << 10  # what Python takes for an array, its key and its place here, about

Packet = Events | RgbFrame
Decoded = TypeVar("Decoded", bound=Packet)


class PacketCache:
    """Holds `most_bytes` of packets at most; what was not asked for in the longest time goes first."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[Packet, int]] = OrderedDict()  # with their bytes; the oldest first

    def get(self, key: Hashable, decode: Callable[[], tuple[Decoded, int]]) -> Decoded:
        """The packet of a key; where it is not held, what `decode` gives with the bytes that it takes in memory.

        It may be in use elsewhere, so its array is read-only. What `decode` raises is passed on, and nothing is held.
        """
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return cast(Decoded, self._held[key][0])
        packet, size = decode()
        pixels_or_events = packet.image if isinstance(packet, RgbFrame) else packet
        pixels_or_events.setflags(write=False)
        with self._lock:
            self._hold(key, packet, size + _EACH_BYTES)
        return packet

    def _hold(self, key: Hashable, packet: Packet, size: int) -> None:
        if key in self._held or size > self.most_bytes:
            return
        self._held[key] = packet, size
        self.held_bytes += size
        while self.held_bytes > self.most_bytes:
            _, (_, freed) = self._held.popitem(last=False)
            self.held_bytes -= freed
