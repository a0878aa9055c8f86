"""What a tab may choose from, told to it whenever that changes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from app.actions import Actions
from app.channel import SPEEDS
from app.model import random_note
from app.viewer import Viewer

_FRESH_S = 1.0


def setup_of(token: str, viewer: Viewer, actions: Actions, headers: Mapping[str, str]) -> dict[str, Any]:
    """Sources, models, the model in use with its labels, and what is allowed; `version` tells when it has changed.

    It is made anew once a second, and after each action of the tab.
    """
    made_at, setup = viewer.setup or (0.0, {})
    if time.monotonic() - made_at > _FRESH_S:
        setup = _made(token, viewer, actions, headers)
        viewer.setup = time.monotonic(), setup
    return setup


def _made(token: str, viewer: Viewer, actions: Actions, headers: Mapping[str, str]) -> dict[str, Any]:
    recognizer = viewer.channel.recognizer
    allowed = actions.allows(headers)
    setup: dict[str, Any] = {
        "sources": actions.offers(operator=allowed["operates"]),
        "watching": actions.called(viewer.address),
        "models": actions.models(),
        "model": recognizer.name,
        "device": str(recognizer.device),
        "dtype": str(recognizer.dtype).removeprefix("torch."),
        "labels": list(recognizer.config.labels),
        "random": random_note(recognizer) or "",
        "speeds": SPEEDS,
        **allowed,
        **actions.taught(token, headers),
    }
    return {"version": hashlib.sha256(json.dumps(setup).encode()).hexdigest()[:12], **setup}
