"""What is to be measured, and how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """The options of the command."""

    models: tuple[str, ...]
    folder: Path  # for temporary files
    device: str = "auto"
    dtype: str = "auto"
    quick: bool = False
    pairs: int | None = None  # turns that works take; None: as each group likes it
    clips: int | None = None  # of simulated scenes to test on; None: a few dozen, or a few in a hurry
    recording: Path | None = None  # for the road; None: one that is made for it
    plots: Path | None = None  # a folder

    def turns(self, usual: int, quick: int) -> int:
        """How often works alternate."""
        return self.pairs or (quick if self.quick else usual)
