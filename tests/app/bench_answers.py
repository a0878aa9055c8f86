"""What a worker of `velora bench` does in its tests; a process that imports it starts at once."""

from __future__ import annotations

import os


def answers(question: str) -> int:
    """The length of a question; some make it fail, or end its process."""
    if question == "fails":
        raise ValueError("no such thing")
    if question == "dies":
        os._exit(7)
    return len(question)
