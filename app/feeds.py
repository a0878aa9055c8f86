"""The live sources that tabs of the page follow: each is opened once, however many watch it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.recorder import Recorder
from streams import Live, RenderConfig, Source
from streams.record import Tee


@dataclass(eq=False)
class Feed:
    """A live source that is open, and its recorder."""

    source: Source
    live: Live
    recorder: Recorder
    count: int = 0  # of those who follow it


class Feeds:
    """Opens live sources by address for the first who wants one, and closes them with the last."""

    def __init__(self, opened: Callable[[Path | str], Source], render: RenderConfig) -> None:
        self._opened, self._render = opened, render
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}

    def join(self, address: str) -> Feed:
        """The feed of an address, to be left by `leave`. Raises StreamError where it cannot be opened."""
        with self._lock:  # two tabs that open it at once get the same one
            feed = self._feeds.get(address)
            if feed is not None and feed.live.ended:
                feed.live.stop()  # so that it can be opened again
                feed = None
            if feed is None:
                tee = Tee(self._opened(address))
                feed = self._feeds[address] = Feed(tee, Live(tee, render=self._render), Recorder(tee))
            feed.count += 1
            return feed

    def leave(self, address: str, feed: Feed) -> None:
        """One fewer follows it; the last one closes it."""
        with self._lock:
            feed.count -= 1
            if feed.count:
                return
            if self._feeds.get(address) is feed:
                del self._feeds[address]
            feed.recorder.stop()
            feed.live.stop()  # before the lock is free: who opens it next would find it in use
