"""`velora report`: what `velora label` has found, as one page to open in a browser, or to send.

velora report labels/            writes labels/report.html
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from app.export.places import Places
from app.export.results import Results, read_results
from app.feed import stopping
from app.film.make import Look
from app.label_report.page import Content, page_of
from app.label_report.thumbnails import thumbnails
from app.label_report.tracks import doubts_of, tracks_of
from streams.files import replaced_when_whole
from streams.text import storable

REPORT = "report.html"


def report(arguments: argparse.Namespace) -> int:
    """Write the page. Raises ValueError for a folder that is no output of `velora label`, and OSError."""
    results = read_results(arguments.folder, strict=False)
    places = Places(arguments.recordings)
    out: Path = arguments.out or arguments.folder / REPORT
    if out.is_dir():
        raise ValueError(f"{out} is a folder: --out names a file")
    tracks = tracks_of(results)
    doubts = doubts_of(tracks, arguments.doubts)
    asked = threading.Event()
    with stopping(asked.set) as interrupt:
        pictures = thumbnails(doubts, places, Look(feed=results.feed), asked.is_set)
    if interrupt.asked:
        return 130
    failures = list(_failures(results))
    page = page_of(Content(results, tracks, doubts, pictures, failures))
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(out) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    spans = sum(len(track.rows) for track in tracks)
    failed = f"; {len(failures):,} could not be labelled or read" if failures else ""
    print(f"{out}: {len(tracks):,} recordings, {spans:,} spans{failed}", file=sys.stderr)
    return 0


def _failures(results: Results) -> Iterator[tuple[str, str]]:
    yield from ((storable(note.recording), note.reason) for note in results.failed)
    yield from ((own.name, own.trouble) for own in results.labelled if own.trouble)
    yield from (("", told) for told in results.strangers)
