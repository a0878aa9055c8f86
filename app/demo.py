"""`velora demo`: the page, playing the bundled recordings."""

from __future__ import annotations

import argparse

from app.model import load_model
from app.page import serve
from recordings import bundled


def demo(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    serve(lambda: load_model(arguments), bundled(), host=arguments.host, port=arguments.port)
    return 0
