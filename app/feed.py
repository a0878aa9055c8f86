"""What all commands do with a feed: open it with its filters, say what is wrong with it, and what was lost of it."""

from __future__ import annotations

import _thread
import argparse
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams import Source, open_source
from streams.endings import heeded
from streams.filters import filtered
from streams.homography import load_homography
from streams.reconstruct import Reconstructed
from streams.source import kind_of

_LOOK_S = 0.5
SOURCE_OPTIONS = ("size", "chip", "exposure_us", "frame_rate", "contrast")  # that some sources take
RGB_OPTIONS = ("rgb_offset_ms", "rgb_fps", "rgb_homography")


_UNTOLD = ("size", "chip")  # options of kinds that do not tell it


def options_of(feed: Mapping[str, Any], recording: str | Path) -> argparse.Namespace:
    """Those of one recording of many: what is said for where it does not tell is nothing to one that does.

    Raises StreamError for what is no recording.
    """
    known = kind_of(recording).options
    return argparse.Namespace(**{k: None if k in _UNTOLD and k not in known else v for k, v in feed.items()})


def open_feed(arguments: argparse.Namespace, address: str | Path) -> Source:
    """A source with the frames and filters asked for.

    Raises StreamError, and ValueError for options that do not fit it or one another.
    """
    given = {name: getattr(arguments, name, None) for name in ("rgb", *SOURCE_OPTIONS, *RGB_OPTIONS)}
    if given["rgb_homography"] is not None:
        given["rgb_homography"] = load_homography(given["rgb_homography"])
    source = open_source(address, **given)
    if source.settings:
        told = ", ".join(f"{name} {value}" for name, value in source.settings.items())
        print(f"velora: {source.name}: {told}", file=sys.stderr, flush=True)
    try:
        feed = filtered(
            source,
            denoise=arguments.denoise,
            roi=arguments.roi,
            flip=arguments.flip,
            rotate=arguments.rotate,
        )
        return Reconstructed(feed) if getattr(arguments, "rgb_from", None) == "events" else feed
    except BaseException:
        source.close()
        raise


@contextmanager
def telling(source: Source) -> Iterator[None]:
    """Say on stderr when something is wrong with a live feed, and when it is well again."""
    ended = threading.Event()

    def watch() -> None:
        before = ""
        while not ended.wait(_LOOK_S):
            now = source.warning
            if bool(now) != bool(before):
                print(f"velora: {source.name}: {now or 'it goes on'}", file=sys.stderr, flush=True)
            before = now

    if source.live:
        threading.Thread(target=watch, name="warnings", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@dataclass
class Interrupt:
    """Whether somebody wants it to end."""

    asked: bool = False


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[Interrupt]:
    """Ctrl-C, or a request to end, calls `stop` in a thread of its own; the second one raises KeyboardInterrupt.

    Raised anywhere, as Python does, it can leave a lock locked for ever in whoever was just taking it.
    """
    interrupt = Interrupt()

    def heed(*_: object) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True
        _thread.start_new_thread(stop, ())  # which takes no lock that the one who was interrupted may hold

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # signals reach no other
        before = {number: signal.signal(number, heed) for number in heeded()}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def losses(counts: Counter[str]) -> list[str]:
    """What was skipped, and why."""
    return [f"{reason}: {count:,}" for reason, count in sorted(counts.items()) if count]
