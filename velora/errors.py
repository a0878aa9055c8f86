"""What goes wrong with models: weights that are missing, checkpoints that are broken."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velora.prediction import Prediction


class ModelError(Exception):
    """A model cannot be loaded or run. The message is one line that names the file and what to do."""


class NotFiniteError(ModelError):
    """What a model said of some streams of a step is no number; `predictions` [pairs] are those of the others."""

    def __init__(self, message: str, predictions: Sequence[Prediction | None], failed: Collection[int]) -> None:
        super().__init__(message)
        self.predictions, self.failed = predictions, failed
