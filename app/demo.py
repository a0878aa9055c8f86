"""`velora demo`: the page, playing recordings, by default the bundled ones; `velora live`: on a live source."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.feed import open_feed
from app.page import serve
from recordings import bundled

if TYPE_CHECKING:
    from streams import Source
    from velora import Recognizer


def demo(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted. Raises StreamError for a source that cannot be opened."""
    return _serve(arguments, arguments.sources)


def watch(arguments: argparse.Namespace) -> int:
    """The same on a live source."""
    more = {"stride": arguments.stride, "max_lag_ms": arguments.max_lag_ms, "record_to": recordings_of(arguments)}
    return _serve(arguments, [arguments.source], **more)


def _serve(arguments: argparse.Namespace, sources: Sequence[str], **more: Any) -> int:
    offered: dict[str, Path | str] = {}
    kept: dict[Path | str, Source] = {}  # live ones that are open already, for the first who watches
    for address in sources:  # what is wrong with one is said before the page is there
        path = Path(address)
        uri = path if path.exists() else address
        offered[path.name if path.exists() else address] = uri
        source = open_feed(arguments, uri)
        if source.live:
            kept[uri] = source
        else:
            source.close()

    def opened(uri: Path | str) -> Source:
        own = uri in offered.values()
        return kept.pop(uri, None) or open_feed(arguments if own else _for_others(arguments), uri)

    recordings = {**offered, **bundled()}
    try:
        serve(_loader(arguments), recordings, host=arguments.host, port=arguments.port, opened=opened, **more)
    finally:
        for source in kept.values():
            source.close()
    return 0


def _for_others(arguments: argparse.Namespace) -> argparse.Namespace:
    """Of the options for the sources that are named, those that fit any recording."""
    fitting = {name: getattr(arguments, name) for name in ("denoise", "flip", "rotate")}
    return argparse.Namespace(**fitting, roi=None)


def recordings_of(arguments: argparse.Namespace) -> Path | None:
    """Where the page may record to; visitors from other machines may not, unless told otherwise."""
    if arguments.record_to is None:
        return Path.cwd() if _is_this_machine(arguments.host) else None
    folder: Path = arguments.record_to
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def _loader(arguments: argparse.Namespace) -> Callable[[], Recognizer]:
    def load() -> Recognizer:
        from app.model import load_model

        return load_model(arguments)

    return load
