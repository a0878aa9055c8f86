"""The route from which each tab pulls its pictures; page.js is the other end.

    GET frames/TOKEN?after=N     200 the newest picture after number N, 204 none yet, 404 no such viewer (any more)

The answer carries the state that the page shows (labels, rates, messages) as JSON in a header.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.viewers import Viewers

_HOLD_S = 0.4  # longer would fill the browser's six connections and delay clicks
_IDLE_S = 60.0
_FRESH = {"Cache-Control": "no-store"}


def frame_route(viewers: Viewers) -> Route:
    """The route, for Gradio's server."""

    async def frames(request: Request) -> Response:
        viewer = viewers.get(request.path_params["token"])
        after = request.query_params.get("after", "")
        if viewer is None or not (after.isascii() and after.isdecimal() and len(after) < 20):
            return Response(status_code=404, headers=_FRESH)
        frame = await viewer.frame_after(int(after), _HOLD_S)
        headers = {**_FRESH, "Velora-State": json.dumps(viewer.state())}
        if frame is None:
            return Response(status_code=204, headers=headers)
        # Named, the encoding keeps Gradio's compressing middleware off: a JPEG does not get smaller.
        headers |= {"Velora-Frame": str(frame.number), "Content-Encoding": "identity"}
        return Response(frame.jpeg, media_type="image/jpeg", headers=headers)

    return Route("/frames/{token}", frames)


def freeing_idle(viewers: Viewers) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for Gradio's server: while it runs, the viewers whose tabs have vanished without a word are freed."""

    async def free() -> None:
        while True:
            await asyncio.sleep(_IDLE_S / 10)
            await asyncio.to_thread(viewers.free_idle, _IDLE_S)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(free())
        yield
        task.cancel()

    return lifespan
