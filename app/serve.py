"""`velora serve`: a recording or a live source for others, over TCP."""

from __future__ import annotations

import argparse
import sys
import threading
import time

from rich.console import Console
from rich.live import Live as Display
from rich.text import Text

from app.feed import losses, open_feed, stopping, telling
from streams.server import Server

_ROUND_S = 0.5


def serve_source(arguments: argparse.Namespace) -> int:
    """Share a source until it ends, or until interrupted. Raises StreamError."""
    with (
        open_feed(arguments, arguments.source) as source,
        Server(source, host=arguments.host, port=arguments.port, loop=arguments.loop) as server,
    ):
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        address = f"tcp://{host}:{','.join(map(str, server.ports))}"
        print(address, flush=True)
        print(f"velora: {source.name} is at {address} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        try:
            with telling(source), stopping(server.stop) as interrupt:
                _play(server)
        finally:
            server.stop()
            for line in losses(source.counts) + losses(server.counts):
                print(line, file=sys.stderr)
    return 130 if interrupt.asked else 0


def _play(server: Server) -> None:
    """Play in a thread, and tell on a terminal who listens. Raises what reading the source raises."""
    failures: list[BaseException] = []

    def play() -> None:
        try:
            server.run()
        except BaseException as error:
            failures.append(error)

    thread, began = threading.Thread(target=play, name="player", daemon=True), time.monotonic()
    thread.start()
    console = Console(stderr=True)
    with Display(console=console, auto_refresh=False, transient=True) as display:
        while thread.is_alive():
            thread.join(_ROUND_S)
            if console.is_terminal:
                left_out = server.counts.total()
                told = f"{time.monotonic() - began:.0f} s · {server.clients} clients · {left_out:,} packets left out"
                display.update(Text(told), refresh=True)
    if failures:
        raise failures[0]
