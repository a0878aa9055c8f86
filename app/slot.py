"""Wakes the coroutines that wait for something new, from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Found = TypeVar("Found")


class Waiters:
    """Who waits for news."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def wake(self) -> None:
        """Let all who wait look again."""
        with self._lock:
            waiters, self._waiters = self._waiters, {}
        for event, loop in waiters.items():
            with suppress(RuntimeError):  # its server has stopped
                loop.call_soon_threadsafe(event.set)

    async def wait_for(self, look: Callable[[], Found | None], timeout_s: float) -> Found | None:
        """What `look` finds now, or after the next wake; None after that or the timeout, where it finds nothing."""
        event = asyncio.Event()
        with self._lock:
            self._waiters[event] = asyncio.get_running_loop()
        if look() is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout_s)
        with self._lock:
            self._waiters.pop(event, None)
        return look()
