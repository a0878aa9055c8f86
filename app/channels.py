"""The channels that are on: a live source has one, however many watch it; each viewer of a recording has its own.

Its packets are decoded once for all viewers of it, as far as there is room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.channel import Channel, Settings
from app.shared_step import SharedStep
from streams.packet_cache import PacketCache

if TYPE_CHECKING:
    from velora import Recognizer

CACHE_BYTES = 128 << 20  # of decoded packets of recordings


class Channels:
    """Opens channels for who watches, and closes each with the last one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._shared, self._cache = SharedStep(), PacketCache(CACHE_BYTES)
        self._lock = threading.Lock()
        self._live: dict[Path | str, Channel] = {}

    def join(
        self, address: Path | str, recognizer: Recognizer, wake: Callable[[], None], *, operator: bool = True
    ) -> Channel:
        """The channel of an address, to be left by `leave`. A live one that is on stays with its own recogniser."""
        with self._lock:  # two tabs that open a live source at once get the same channel
            channel = self._live.get(address)
            if channel is not None and channel.ended:
                channel.end()  # so that it can be opened again
                channel = None
            if channel is None:
                channel = Channel(address, recognizer, self._shared, self.settings, self._cache)
                if channel.is_live:
                    self._live[address] = channel
            channel.watch(wake, operator=operator)
            return channel

    def leave(self, channel: Channel, wake: Callable[[], None]) -> None:
        """One fewer watches; the last one closes it."""
        with self._lock:
            if channel.leave(wake):
                return
            if self._live.get(channel.address) is channel:
                del self._live[channel.address]
            channel.stop()
            if channel.is_live:
                channel.end()  # before the lock is free: who opens it next would find it in use
        channel.close()
