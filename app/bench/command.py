"""`velora bench`: runs the groups one after the other, and prints what they found.

    {"machine": {…}, "date": …, "versions": {…}, "quick": …, "models": […], "push_ms": …, "groups":
     {"push": {"status": "done", "seconds": …, "rows": [{"model": …, "push_ms": …, "spread": {"push_ms": […, …]}}],
               "left_out": {…: why}}}}

The figures beside "groups" are those of the first row that has them: that of the first model.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from app.bench import GROUPS
from app.bench.asked import Asked
from app.bench.book import Book, Stopped
from app.bench.machine import machine, versions
from app.bench.models import DEMO, USUAL, check_models
from app.bench.plots import check_plots
from app.bench.show import show
from app.bench.timing import timed
from app.feed import stopping

#: the figures that stand beside "groups", and whose they are
HEADLINES: Mapping[str, Sequence[str]] = {
    "push": ("push_ms", "window_ms", "released_ms", "push_vs_window", "push_vs_released"),
    "floor": ("floor_ms", "gemm_floor_ms", "push_vs_floor"),
    "road": ("road_mevs", "road_vs_decode", "road_vs_aedat", "road_vs_dv", "road_vs_add_at"),
}
_LONGEST = 400  # characters of a reason


def bench(arguments: argparse.Namespace) -> int:
    """Measure and print. Exit code 1 where a group failed, 130 where it was interrupted: what there is, is printed.

    Raises ValueError for options that do not fit.
    """
    names = list(dict.fromkeys(arguments.only or GROUPS))
    books = {name: Book() for name in names}
    halt = threading.Event()
    with tempfile.TemporaryDirectory(prefix="velora-bench-") as folder:
        asked = _asked(arguments, Path(folder))
        found_on = machine()
        with stopping(halt.set):
            run(asked, books, halt.is_set)
    if arguments.json:
        print(json.dumps(as_json(asked, found_on, books), ensure_ascii=False, allow_nan=False), flush=True)
    else:
        show(found_on, books)
    if halt.is_set():
        return 130
    return 1 if any(book.status == "failed" for book in books.values()) else 0


def _asked(arguments: argparse.Namespace, folder: Path) -> Asked:
    from velora.devices import choose_device, choose_dtype

    models = tuple(dict.fromkeys(arguments.model or ((DEMO,) if arguments.quick else USUAL)))
    check_models(models)
    choose_dtype(arguments.dtype, choose_device(arguments.device))
    if arguments.plots is not None:
        check_plots()
    if arguments.recording is not None and not arguments.recording.is_file():
        raise ValueError(f"{arguments.recording}: no such file; --recording names a recording for the road")
    return Asked(
        models=models,
        folder=folder,
        device=arguments.device,
        dtype=arguments.dtype,
        quick=arguments.quick,
        pairs=arguments.pairs,
        clips=arguments.clips,
        recording=arguments.recording,
        plots=arguments.plots,
    )


def run(asked: Asked, books: Mapping[str, Book], asked_to_stop: Callable[[], bool] = lambda: False) -> None:
    """Fill the books of the groups that they are named after; a group that fails says why, and the next one begins."""
    for name, book in books.items():
        with _telling(name) as tell:
            book.told, book.asked_to_stop = tell, asked_to_stop
            book.seconds = timed(lambda name=name, book=book: _measure(asked, name, book))  # type: ignore[misc]
        print(f"velora: {name}: {book.status} in {book.seconds:.1f} s", file=sys.stderr, flush=True)


def _measure(asked: Asked, name: str, book: Book) -> None:
    folder = asked.folder / name
    folder.mkdir()
    try:
        book.heed()
        importlib.import_module(f"app.bench.{name}").measure(replace(asked, folder=folder), book)
        book.heed()  # stopped in its last turns, it made do with fewer
        if not any(row.figures for row in book.rows):
            book.status = "left out"
    except (Stopped, KeyboardInterrupt):
        book.status, book.reason = "interrupted", "it was stopped"
    except Exception as error:
        text = " ".join(str(error).split())[:_LONGEST]
        book.status, book.reason = "failed", f"{type(error).__name__}: {text}"


@contextmanager
def _telling(name: str) -> Iterator[Callable[[str], object]]:
    """What goes on, on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(name) as status:
        yield lambda text: status.update(f"{name}: {text}")


def as_json(asked: Asked, found_on: Mapping[str, Any], books: Mapping[str, Book]) -> dict[str, Any]:
    """All of it."""
    return {
        "machine": dict(found_on),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "quick": asked.quick,
        "models": list(asked.models),
        **_headlines(books),
        "groups": {name: book.as_json() for name, book in books.items()},
    }


def _headlines(books: Mapping[str, Book]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, figures in HEADLINES.items():
        rows = books[name].rows if name in books else []
        first = next((row.figures for row in rows if row.figures), {})
        found |= {figure: first[figure] for figure in figures if figure in first}
    return found
