"""What the page asks of the server beside Gradio's own routes; page.js is the other end.

GET  frames/TOKEN?after=N&panes=rgb,events&width=640&change=C&setup=S&painted=M&ago=MS
     200 one line of JSON, the state, and the newest picture after number N, if there is one; 404 no such tab
POST act/TOKEN/NAME          a control, with its arguments as a JSON object: {"done": true, "message": "…"}
POST upload/TOKEN?name=NAME  a recording to watch: {"done": true, "message": ""}
GET  snapshot/TOKEN          the panes as a PNG, with label and time
GET  export/TOKEN.csv        the predictions so far; also .jsonl
GET  labels/TOKEN.csv        the labels by hand of the recording
GET  folder/TOKEN?out=DIR&order=doubt&text=WORD&first=N    a labelled folder, see folders.py
GET  metrics                 the figures of the status line, as Prometheus reads them
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.actions import SLOW, Actions, Gone
from app.channel import one_line
from app.metrics import exposition
from app.predictions import HEADINGS
from app.setup import make_setup
from app.snapshot import snapshot
from app.strip import PANES, Moment, Picture, View
from app.uploads import Uploads
from app.viewer import Viewer
from app.viewers import Viewers
from streams import StreamError
from streams.text import storable

_HOLD_S = 0.4  # longer would fill the browser's six connections and delay clicks
_IDLE_S = 60.0
_BLOCK = 1_000  # lines
_MOST_BYTES = 10_000  # of an action's arguments
_GONE = "this tab is not known (any more): load the page again"
_FRESH = {"Cache-Control": "no-store"}


def routes(
    viewers: Viewers, actions: Actions, uploads: Uploads, pictures: Executor, setups: Executor, slow: Executor
) -> list[Route]:
    """The routes, for Gradio's server. `pictures` makes them, and nothing slow, which has threads of its own."""

    async def frames(request: Request) -> Response:
        viewer = viewers.get(request.path_params["token"])
        if viewer is None:
            return Response(status_code=404, headers=_FRESH)
        asked = request.query_params
        viewer.painted(_number(asked.get("painted")), _number(asked.get("ago")))
        moment = await viewer.moment_after(_number(asked.get("after")), _HOLD_S)
        view = _view(asked)
        token = request.path_params["token"]
        try:
            setup = await viewer.setup.newest(
                lambda: make_setup(token, viewer, actions, request.headers), setups, _HOLD_S
            )
            told = pictures.submit(_told, viewer, actions, request, moment, view, setup)
            state, picture = await asyncio.wrap_future(told)
        except Gone:  # while it waited
            return Response(status_code=404, headers=_FRESH)
        if moment is not None and picture is not None:
            state |= {"number": moment.number, "panes": view.panes, "widths": picture.widths, "height": picture.height}
        # Named, the encoding keeps Gradio's compressing middleware off: a JPEG does not get smaller.
        headers = {**_FRESH, "Content-Encoding": "identity"}
        body = _encoded(state) + b"\n" + (picture.jpeg if picture else b"")
        return Response(body, media_type="application/octet-stream", headers=headers)

    async def act(request: Request) -> Response:
        try:
            body = await _body(request)
            arguments = json.loads(body or b"{}")
            if not isinstance(arguments, dict):
                raise ValueError("the arguments are a JSON object")
            token, name = request.path_params["token"], request.path_params["name"]
            job = partial(actions.act, name, request.headers, token, **arguments)
            line = await asyncio.get_running_loop().run_in_executor(slow if name in SLOW else None, job)
        except Gone as gone:
            return _json({"message": str(gone)}, 404)
        except (ValueError, TypeError, RecursionError) as error:
            return _json({"done": False, "message": str(error)})
        return _json({"done": True, "message": line})

    async def upload(request: Request) -> Response:
        token, recording = request.path_params["token"], Path(request.query_params.get("name", ""))
        viewer = viewers.get(token)
        if viewer is None:
            return _json({"message": _GONE}, 404)
        try:
            size = int(request.headers.get("content-length") or 0)
            recording = await uploads.receive(recording.name, _while_watched(request, viewers), size)
            await asyncio.to_thread(viewers.play_upload, token, recording)
        except TimeoutError:
            line = "the upload was given up: nothing came for a minute"
        except (ValueError, StreamError, OSError) as error:
            line = one_line(error, recording)
        else:
            return _json({"done": True, "message": ""})
        viewer.say(line)
        return _json({"done": False, "message": line})

    async def picture(request: Request) -> Response:
        viewer = viewers.get(request.path_params["token"])
        if viewer is None or viewer.moment is None:
            return PlainTextResponse("there is no picture yet", 404, headers=_FRESH)
        png = await asyncio.to_thread(snapshot, viewer)
        return Response(png, media_type="image/png", headers=_FRESH | _named(viewer, "png"))

    async def export(request: Request) -> Response:
        viewer, kind = viewers.get(request.path_params["token"]), request.path_params["kind"]
        if viewer is None or kind not in ("csv", "jsonl"):
            return PlainTextResponse("there are no predictions of this name", 404, headers=_FRESH)
        own = (found.as_csv(name) if kind == "csv" else found.as_jsonl(name) for name, found in viewer.predictions())
        lines = itertools.chain([HEADINGS] if kind == "csv" else [], *own)
        media = "text/csv" if kind == "csv" else "application/jsonl"
        return StreamingResponse(_in_blocks(lines), media_type=media, headers=_FRESH | _named(viewer, kind))

    async def labels(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        try:
            path = await loop.run_in_executor(slow, actions.label_file, request.path_params["token"])
        except (Gone, ValueError, StreamError, OSError) as error:
            return PlainTextResponse(storable(str(error)), 404, headers=_FRESH)
        return FileResponse(path, media_type="text/csv", filename=storable(path.name), headers=_FRESH)

    async def folder(request: Request) -> Response:
        asked = request.query_params
        out, order, text = asked.get("out", ""), asked.get("order", "name"), asked.get("text", "")
        try:
            if viewers.get(request.path_params["token"]) is None:
                raise ValueError(_GONE)
            first = _number(asked.get("first"))
            job = partial(actions.folder, request.headers, out, order, text, first)
            told = await asyncio.get_running_loop().run_in_executor(slow, job)
        except (ValueError, StreamError, OSError) as error:
            return _json({"message": one_line(error, Path(out))})
        return _json(told)

    async def metrics(request: Request) -> Response:
        named = actions.allows(request.headers)["operates"]
        return PlainTextResponse(await asyncio.to_thread(exposition, viewers.counted(), named=named), headers=_FRESH)

    return [
        Route("/frames/{token}", frames),
        Route("/act/{token}/{name}", act, methods=["POST"]),
        Route("/upload/{token}", upload, methods=["POST"]),
        Route("/snapshot/{token}", picture),
        Route("/export/{token}.{kind}", export),
        Route("/labels/{token}.csv", labels),
        Route("/folder/{token}", folder),
        Route("/metrics", metrics),
    ]


def _told(
    viewer: Viewer,
    actions: Actions,
    request: Request,
    moment: Moment | None,
    view: View,
    setup: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], Picture | None]:
    picture = moment.picture(view) if moment is not None and view.panes else None
    return viewer.state() | _news(viewer, actions, request, setup), picture


def _news(viewer: Viewer, actions: Actions, request: Request, setup: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the page does not know yet of the timeline and of what can be chosen."""
    asked = request.query_params
    timeline = viewer.channel.timeline
    known = _number(asked.get("change")) if asked.get("channel") == str(viewer.channel.number) else 0
    operates = actions.allows(request.headers)["operates"]
    return {
        "channel": viewer.channel.number,
        "timeline": timeline.since(known) if timeline else None,
        "teaching": actions.teaching() if operates else None,
        "recording_example": actions.recording_example() if operates else None,
        "batch": actions.batch() if operates else None,  # which name folders of this machine
        "setup": setup if setup is not None and asked.get("setup") != setup["version"] else None,
    }


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(_encoded(content), status, headers=_FRESH, media_type="application/json")


def _encoded(content: Mapping[str, Any]) -> bytes:
    """As JSON; of a name that is no UTF-8 its odd bytes as Python has them."""
    return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")


def _in_blocks(lines: Iterator[str]) -> Iterator[str]:
    """Many at a time: each costs a hop between threads."""
    while block := "".join(itertools.islice(lines, _BLOCK)):
        yield storable(block)


async def _body(request: Request) -> bytes:
    """What was sent. Raises ValueError where that is more than any action takes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise ValueError("too much to take")
    return body


async def _while_watched(request: Request, viewers: Viewers) -> AsyncIterator[bytes]:
    """What is sent. Raises ValueError once its tab has been closed."""
    async for part in request.stream():
        if viewers.find(request.path_params["token"]) is None:
            raise ValueError(_GONE)
        yield part


def _view(asked: Mapping[str, str]) -> View:
    given = asked.get("panes", ",".join(PANES)).split(",")
    panes = tuple(dict.fromkeys(pane for pane in given if pane in PANES))
    return View(panes, max(16, min(_number(asked.get("width")) or 4096, 4096)))


def _number(text: str | None) -> int:
    """Digits as a number; anything else is 0."""
    return int(text) if text and len(text) < 20 and text.isascii() and text.isdecimal() else 0


def _named(viewer: Viewer, suffix: str) -> dict[str, str]:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", viewer.channel.name).strip("-.") or "velora"
    return {"Content-Disposition": f'attachment; filename="{stem}.{suffix}"'}


def freeing_idle(viewers: Viewers) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for Gradio's server: while it runs, the viewers whose tabs have vanished without a word are freed."""

    async def free() -> None:
        while True:
            await asyncio.sleep(_IDLE_S / 10)
            with contextlib.suppress(Exception):  # the next time comes whatever happens
                await asyncio.to_thread(viewers.free_idle, _IDLE_S)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(free())
        yield
        task.cancel()

    return lifespan
