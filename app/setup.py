"""What a tab may choose from, told to it whenever that changes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from app.channel import SPEEDS
from app.model import random_note

if TYPE_CHECKING:
    from app.actions import Actions
    from app.viewer import Viewer

_FRESH_S = 1.0


class Setup:
    """What a tab was told last, made anew once a second, and after each action of the tab.

    Label files, models and recordings may lie on a disk that hangs: it is made in a thread, and not waited for long.
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._made_at = 0.0
        self._coming: Future[dict[str, Any]] | None = None

    def forget(self) -> None:
        """Something has changed."""
        self._known = self._coming = None

    async def newest(
        self, make: Callable[[], dict[str, Any]], threads: Executor, wait_s: float
    ) -> dict[str, Any] | None:
        """What is known; None where nothing is, and making it takes longer."""
        if self._coming is None and (self._known is None or time.monotonic() - self._made_at > _FRESH_S):
            self._coming = threads.submit(make)
        coming = self._coming
        if coming is not None and self._known is None:
            await asyncio.wait([asyncio.wrap_future(coming)], timeout=wait_s)
        if coming is not None and coming.done() and coming is self._coming:
            self._coming, self._made_at = None, time.monotonic()
            self._known = coming.result()
        return self._known


def make_setup(token: str, viewer: Viewer, actions: Actions, headers: Mapping[str, str]) -> dict[str, Any]:
    """Sources, models, the model in use with its labels, and what is allowed; `version` tells when it has changed."""
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
