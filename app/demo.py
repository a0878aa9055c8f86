"""`velora demo`: the page, playing the bundled recordings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from app.page import serve
from recordings import bundled

if TYPE_CHECKING:
    from velora import Recognizer


def demo(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""

    def load() -> Recognizer:
        from app.model import load_model

        return load_model(arguments)

    serve(load, bundled(), host=arguments.host, port=arguments.port)
    return 0
