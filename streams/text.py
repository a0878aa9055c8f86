"""A stranger's words, made fit to be shown and to be stored."""

from __future__ import annotations


def printable(text: str, instead: str = "?") -> str:
    """A text without what would break a line or steer a terminal; `instead` stands where that was."""
    return "".join(char if char.isprintable() else instead for char in text)


def shortened(text: str, longest: int) -> str:
    """A text of at most so many characters; "…" stands for the rest."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def on_one_line(text: str, longest: int) -> str:
    """A text on one line of at most so many characters."""
    return shortened(" ".join(text.split()), longest)


def storable(name: str) -> str:
    """A name of a file as a text that can be stored: bytes that are no UTF-8 are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


def plain_name(name: str) -> str:
    """A name of a file as a header takes it, in which a camera's name stands."""
    return printable(storable(name))
