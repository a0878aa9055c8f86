"""What a picture of the page costs: to encode as JPEG, and to bring by the page's own route to another process."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from app.bench.asked import Asked
from app.bench.book import Book
from app.bench.client import pull
from app.bench.fabricated import SIZE, bundled_samples
from app.bench.models import DEMO, load
from app.bench.timing import Work, alternate
from app.bench.worker import Worker
from app.page import Page
from app.school import School
from app.strip import GAP, JPEG_QUALITY, encode_strip
from recordings import bundled
from streams.items import Image
from streams.render import motion_image

_LARGE = (1280, 720)
_REQUESTS, _QUICK_REQUESTS = 20, 8  # of a turn
_WAIT_S = 20.0


def measure(asked: Asked, book: Book) -> None:
    """Rows of encoders by size of the panes, and one of the transport."""
    panes = sample_panes()
    for size in (SIZE,) if asked.quick else (SIZE, _LARGE):
        book.doing(f"JPEG at {size[0]} x {size[1]}")
        _encoders(asked, book, [np.asarray(cv2.resize(pane, size), np.uint8) for pane in panes])
    if asked.quick:
        book.leave_out(f"JPEG at {_LARGE[0]} x {_LARGE[1]}", "--quick")
    book.leave_out("pictures a second in a browser", "it needs Chromium: python benchmarks/page.py in a checkout")
    _transport(asked, book)


def sample_panes() -> list[Image]:
    """RGB, events and motion of a moment of the bundled recording."""
    before, now = [(sample.rgb, sample.event_image) for sample in bundled_samples()[:2]]
    return [*now, motion_image(before, now)]


def _encoders(asked: Asked, book: Book, panes: list[Image]) -> None:
    """The page's own way is OpenCV's; the others get the same pixels, quality, and full resolution of colours."""
    height, width = panes[0].shape[:2]
    gap = np.zeros((height, GAP, 3), np.uint8)
    strip = np.hstack([panes[0], gap, panes[1], gap, panes[2]])
    works: dict[str, Work] = {"opencv": lambda: encode_strip(panes), "pillow": lambda: _pillow(strip)}
    if importlib.util.find_spec("simplejpeg") is None:
        book.leave_out("simplejpeg", "it is not installed: pip install simplejpeg")
    else:
        works["simplejpeg"] = lambda: _simplejpeg(strip)
    row = book.row(what="JPEG of three panes", width=width, height=height, kilobytes=_kilobytes(panes))
    for name, seconds in alternate(works, asked.turns(30, 10), book).items():
        row.milliseconds(f"{name}_ms", seconds)
    for name in works:
        if name != "opencv":
            row.ratio(f"opencv_vs_{name}", "opencv_ms", f"{name}_ms")


def _pillow(strip: Image) -> bytes:
    from PIL import Image as Pillow

    out = io.BytesIO()
    Pillow.fromarray(strip).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def _simplejpeg(strip: Image) -> bytes:
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(strip, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"))


def _kilobytes(panes: list[Image]) -> float:
    return round(len(encode_strip(panes).jpeg) / 1e3, 1)


def _transport(asked: Asked, book: Book) -> None:
    """A picture that is there already, asked for by another process, against the same bytes from a bare server."""
    book.doing("starting the page")
    with running(asked) as page, Worker(pull, book, timeout_s=_WAIT_S) as client:
        token = page.viewers.open("bench", bundled()["cards"])
        viewer = page.viewers.get(token)
        assert viewer is not None
        last = time.monotonic() + _WAIT_S
        while viewer.moment is None and time.monotonic() < last:
            time.sleep(0.02)
        viewer.pause()
        url = f"{page.url}frames/{token}?after=0"
        body: bytes = client.ask(url, 1)[1]
        known = news_of(body)
        requests = _QUICK_REQUESTS if asked.quick else _REQUESTS
        with bare_server(body) as bare:
            book.doing("bringing pictures")
            works: dict[str, Work] = {
                "transport": lambda: client.ask(url + known, requests),
                "state": lambda: client.ask(f"{url}{known}&panes=none", requests),
                "bare": lambda: client.ask(bare, requests),
            }
            seconds = alternate(works, asked.turns(9, 3), book)
    row = book.row(what="a picture over HTTP", kilobytes=round(len(body) / 1e3, 1), requests=requests)
    for name, own in seconds.items():
        row.milliseconds(f"{name}_ms", [s / requests for s in own])
    row.ratio("transport_vs_bare", "transport_ms", "bare_ms")


def news_of(body: bytes) -> str:
    """What a page says in its next request, so that it is not told again what it knows."""
    state = json.loads(body.partition(b"\n")[0])
    change = (state["timeline"] or {}).get("change", 0)
    return f"&setup={state['setup']['version']}&channel={state['channel']}&change={change}"


@contextlib.contextmanager
def running(asked: Asked, recordings: dict[str, Any] | None = None) -> Iterator[Page]:
    """The page with the demo's model; afterwards torch has its threads again, of which a page takes one away."""
    import torch

    threads = torch.get_num_threads()
    school = School(asked.folder / "school")
    try:
        with Page(lambda: load(asked, DEMO), recordings or dict(bundled()), school=school) as page:
            yield page
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def bare_server(body: bytes) -> Iterator[str]:
    """The same bytes, from the same web server, by a route that does nothing else; its address."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(_: Request) -> Response:
        return Response(body, media_type="application/octet-stream")

    # With its protocol named, else asyncio leaves TCP_NODELAY off, and each answer waits for 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", answer)]), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="bare", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(_WAIT_S)
