"""Sample recordings that ship with the program; README.md beside this file says how they were made."""

from pathlib import Path


def bundled() -> dict[str, Path]:
    """The recordings of this package by name, in order."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.aedat4"))}
