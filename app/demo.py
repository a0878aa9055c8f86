"""`velora demo`: the page, playing the bundled recordings; `velora live`: the page on a live source."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.feed import open_feed
from app.page import serve
from recordings import bundled

if TYPE_CHECKING:
    from velora import Recognizer


def demo(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    serve(_loader(arguments), bundled(), host=arguments.host, port=arguments.port)
    return 0


def watch(arguments: argparse.Namespace) -> int:
    """Serve the page on a live source, until it is interrupted. Raises StreamError where the source is not there."""
    opened = partial(open_feed, arguments)
    opened(arguments.source).close()
    recordings = {arguments.source: arguments.source, **bundled()}
    serve(
        _loader(arguments),
        recordings,
        host=arguments.host,
        port=arguments.port,
        stride=arguments.stride,
        max_lag_ms=arguments.max_lag_ms,
        record_to=recordings_of(arguments),
        opened=opened,
    )
    return 0


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
