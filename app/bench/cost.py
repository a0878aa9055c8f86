"""What grows with what: a label with T, image size and classes; a step with sessions; the page with its viewers.

A row a value, and how much it costs beside the first value, in the same run. The model is the first one that is asked
for; the page's is the demo.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.bench.asked import Asked
from app.bench.book import Book, Row
from app.bench.client import watch
from app.bench.fabricated import Feed
from app.bench.models import load, of_image_size, varied
from app.bench.page import running
from app.bench.plots import draw
from app.bench.push import from_scratch, pushing
from app.bench.timing import Work, alternate, finished
from app.bench.worker import Worker
from recordings import bundled
from streams import open_source
from streams.server import Server
from velora import Recognizer

FRAMES, QUICK_FRAMES = (1, 2, 4, 8, 16), (1, 8)
SHARES, QUICK_SHARES = (0.5, 1.0, 1.5, 2.0), (0.5, 1.0)  # of the backbone's own image size
CLASSES, QUICK_CLASSES = (14, 100, 1000, 10_000), (14, 1000)
SESSIONS, QUICK_SESSIONS = (1, 2, 4, 8, 16), (1, 4)
VIEWERS, QUICK_VIEWERS = (1, 2, 4, 8), (1, 2)
_WATCHED_S, _QUICK_WATCHED_S = 4.0, 1.5
_MOST_S = 60.0


def measure(asked: Asked, book: Book) -> None:
    """Rows of each kind; pictures of them, where a folder for them is given."""
    recognizer = load(asked, asked.models[0])
    if asked.quick:
        book.leave_out("most values of each", "--quick")
    try:
        for kind, values in _grown(asked, book, recognizer).items():
            book.doing(kind)
            _growing(asked, book, kind, recognizer, values)
        book.doing("windows by T")
        _windows(asked, book, recognizer)
        _viewers(asked, book)
    finally:  # also what there is when it was stopped
        if asked.plots is not None:
            draw(asked.plots, [row for row in book.rows if row.figures])


def _grown(asked: Asked, book: Book, recognizer: Recognizer) -> Mapping[str, Mapping[int, Work]]:
    """Works by what grows, and how much of it there is."""
    quick, vit = asked.quick, recognizer.model.tower.backbone
    sizes = [
        round(share * vit.image_size / vit.patch_size) * vit.patch_size for share in (QUICK_SHARES if quick else SHARES)
    ]
    labels = {n: tuple(f"label {k}" for k in range(n)) for n in (QUICK_CLASSES if quick else CLASSES)}
    return {
        "T": {t: _push(book, varied(recognizer, frames=t)) for t in (QUICK_FRAMES if quick else FRAMES)},
        "image size": {size: _push(book, of_image_size(recognizer, size)) for size in sizes},
        "classes": {n: _push(book, varied(recognizer, labels=own)) for n, own in labels.items()},
        "sessions": {n: _step(book, recognizer, n) for n in (QUICK_SESSIONS if quick else SESSIONS)},
    }


def _push(book: Book, recognizer: Recognizer) -> Work:
    book.heed()
    return pushing(recognizer, Feed(recognizer.config.frames))


def _step(book: Book, recognizer: Recognizer, count: int) -> Work:
    """A sample for each of some sessions, in one step."""
    sessions = [(recognizer.open(), Feed(recognizer.config.frames)) for _ in range(count)]

    def step() -> None:
        recognizer.step([(session, feed.next()) for session, feed in sessions])

    for _ in range(recognizer.config.frames):
        book.heed()
        step()
    return step


def _growing(asked: Asked, book: Book, kind: str, recognizer: Recognizer, works: Mapping[int, Work]) -> None:
    random = kind != "sessions" or bool(recognizer.random_parts)  # what varies has adapters of its own
    seconds = alternate({str(value): work for value, work in works.items()}, asked.turns(7, 3), book)
    first = list(seconds.values())[0]
    for value, own in zip(works, seconds.values(), strict=True):
        row = book.row(model=recognizer.name, what=kind, value=value, random_weights=random)
        row.milliseconds("ms", own)
        _beside(row, "ms", first)
        if kind == "sessions":
            row.figures["labels_per_s"] = 1e3 * value / row.figures["ms"]


def _beside(row: Row, name: str, first: list[float]) -> None:
    row.milliseconds(f"first_{name}", first)
    row.ratio("vs_first", name, f"first_{name}")


def _windows(asked: Asked, book: Book, recognizer: Recognizer) -> None:
    """Whole windows from scratch."""
    works: dict[int, Work] = {}
    for t in QUICK_FRAMES if asked.quick else FRAMES:
        own, window = varied(recognizer, frames=t), Feed(t).fill()
        works[t] = finished(own.device, lambda own=own, window=window: from_scratch(own, window))  # type: ignore[misc]
    _growing(asked, book, "T, whole window", recognizer, works)


def _viewers(asked: Asked, book: Book) -> None:
    """Tabs that watch one feed, each of which asks for picture after picture."""
    seconds = _QUICK_WATCHED_S if asked.quick else _WATCHED_S
    book.doing("starting the page")
    with (
        shared_feed(bundled()["cards"]) as feed,
        running(asked, {"feed": feed}) as page,
        Worker(watch, book, timeout_s=_MOST_S) as client,
    ):
        first: list[float] = []
        for count in QUICK_VIEWERS if asked.quick else VIEWERS:
            book.doing(f"{count} viewers")
            tokens = [page.viewers.open(f"bench {k}", feed) for k in range(count)]
            urls = [f"{page.url}frames/{token}" for token in tokens]
            client.ask(urls, 0.5)
            began = time.process_time()
            pictures: list[int] = client.ask(urls, seconds)
            used = time.process_time() - began
            if not sum(pictures):
                book.leave_out(f"{count} viewers", "no picture came")
                continue
            row = book.row(model="demo", what="viewers", value=count)
            cpu_s = used / sum(pictures)  # of the server, the model and the feed
            first = first or [cpu_s]
            row.milliseconds("cpu_ms_a_picture", [cpu_s])
            _beside(row, "cpu_ms_a_picture", first)
            row.add("pictures_per_s", [n / seconds for n in pictures])


@contextmanager
def shared_feed(recording: Path) -> Iterator[str]:
    """A recording, again and again, over TCP; its address."""
    with open_source(recording) as source, Server(source, loop=True) as server:
        thread = threading.Thread(target=server.run, name="feed", daemon=True)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{','.join(map(str, server.ports))}"
        finally:
            server.stop()
            thread.join(_MOST_S)
