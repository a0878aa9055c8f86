"""What a tab may choose from, told to it whenever that changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from app.actions import Actions
from app.channel import SPEEDS
from app.model import random_note
from app.viewer import Viewer


def setup_of(token: str, viewer: Viewer, actions: Actions, headers: Mapping[str, str]) -> dict[str, Any]:
    """Sources, models, the model in use with its labels, and what is allowed; `version` tells when it has changed."""
    recognizer = viewer.channel.recognizer
    setup: dict[str, Any] = {
        "sources": actions.offers(),
        "models": actions.models(),
        "model": recognizer.name,
        "device": str(recognizer.device),
        "dtype": str(recognizer.dtype).removeprefix("torch."),
        "labels": list(recognizer.config.labels),
        "random": random_note(recognizer) or "",
        "speeds": SPEEDS,
        **actions.allows(headers),
        **actions.taught(token),
    }
    return {"version": hashlib.sha256(json.dumps(setup).encode()).hexdigest()[:12], **setup}
