"""The model: vision tower, adapters, fusion, recogniser and checkpoints.

Names are imported when they are first used, so that ``import velora`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velora.config import VELoRAConfig
    from velora.errors import ModelError
    from velora.loading import load_recognizer
    from velora.model import VELoRA
    from velora.prediction import Prediction
    from velora.recognizer import Recognizer
    from velora.session import Session

_HOMES = {
    "ModelError": "errors",
    "Prediction": "prediction",
    "Recognizer": "recognizer",
    "Session": "session",
    "VELoRA": "model",
    "VELoRAConfig": "config",
    "load_recognizer": "loading",
}

__all__ = ["ModelError", "Prediction", "Recognizer", "Session", "VELoRA", "VELoRAConfig", "load_recognizer"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
