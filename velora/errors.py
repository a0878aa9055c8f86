"""What goes wrong with models: weights that are missing, checkpoints that are broken."""

from __future__ import annotations


class ModelError(Exception):
    """A model cannot be loaded or run. The message is one line that names the file and what to do."""
