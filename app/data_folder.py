"""Where a person's own labels, clips and models are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "VELORA_DATA"


def user_data_folder() -> Path:
    """The folder for what a person makes, as the system has it, or as VELORA_DATA says; it may not be there yet."""
    if own := os.environ.get(VARIABLE):
        return Path(own).absolute()
    if sys.platform == "win32":
        base = _named("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = _named("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return base / "velora"


def _named(variable: str) -> Path | None:
    """A folder that the environment names; relative ones do not count, as the XDG specification has it."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None
