"""`velora render`: recordings as videos for people to look at, RGB and events side by side.

velora render walk.aedat4 --out walk.mp4
velora render recordings/ --out videos/

The labels in NAME.labels.csv beside a recording are burnt in. When a video's pictures are, on the recording's clock, is
told in NAME.video.json beside it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.feed import stopping
from app.film.drawing import check_panes
from app.film.make import FEED, Job, Look
from app.film.studio import Outcome, make_films
from app.label_file import LabelRow, read_label_rows
from app.labelling.inputs import Recording, find
from app.labelling.storage import is_far
from streams.record import labels_of
from streams.text import printable, storable

_OTHERS = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".webm"}  # videos, but none that are made here


def render(arguments: argparse.Namespace) -> int:
    """Make what is not there yet. Raises ValueError and StreamError for what concerns all of it."""
    look = Look(
        panes=None if arguments.panes is None else check_panes(arguments.panes),
        fps=arguments.fps,
        feed={name: getattr(arguments, name) for name in FEED},
    )
    recordings = find(arguments.inputs, None, arguments.out).recordings
    if not recordings:
        raise ValueError("there is no recording among the inputs: give files, or folders that hold some")
    if far := next((recording.path for recording in recordings if is_far(recording.path)), None):
        raise ValueError(f"{far}: videos are made of recordings on this machine: copy it here first")
    jobs = list(_jobs(recordings, arguments))
    done: list[Outcome] = []
    asked = threading.Event()
    with stopping(asked.set) as interrupt:
        for outcome in make_films(jobs, look, stopped=asked.is_set, force=arguments.force):
            done.append(outcome)
            _tell(outcome)
    failed = sum(bool(outcome.failure) for outcome in done)
    if interrupt.asked:
        return 130
    if len(jobs) > 1:
        made = sum(outcome.made for outcome in done)
        print(
            f"{arguments.out}: {made:,} rendered, {len(done) - made - failed:,} were there, {failed:,} failed",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _jobs(recordings: Sequence[Recording], arguments: argparse.Namespace) -> Iterator[Job]:
    """What is to be made of each recording, and where. Raises ValueError for labels that cannot be understood."""
    out: Path = arguments.out
    alone = out.suffix.lower() == ".mp4" and not out.is_dir()
    if out.suffix.lower() in _OTHERS and not out.is_dir():
        raise ValueError(f"{out}: videos are .mp4 files; let --out name one, or a folder")
    if alone and len(recordings) > 1:
        raise ValueError(f"{out} is for one recording, not for {len(recordings)}: let --out name a folder")
    if not alone and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder, or an .mp4")
    for recording in recordings:
        name = storable(recording.name)
        video = out if alone else out / f"{name}.mp4"
        yield Job(recording.path, name, video, None if arguments.no_labels else _rows(recording, arguments.labels))


def _rows(recording: Recording, given: Path | None) -> tuple[LabelRow, ...] | None:
    """The labels of a recording: in a file for all, or beside it; None where there are none."""
    own = recording.path.name
    files = [given] if given is not None else _beside(recording.path)
    for file in files:
        if given is None and not file.exists():
            continue
        try:
            rows = read_label_rows(file)
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror}): check the path") from None
        place = f"/{storable(recording.path.as_posix())}"  # a row may name folders, too: others have such files
        found = tuple(row for row in rows if place.endswith(f"/{row.recording.removeprefix('./')}"))
        if rows and not found:
            print(f"velora: {file} holds no labels of {storable(own)}, but of others", file=sys.stderr)
        return found
    return None


def _beside(recording: Path) -> list[Path]:
    """As `velora record` and the page name them, and as `velora label` does."""
    return [labels_of(recording), recording.with_name(f"{recording.name}.labels.csv")]


def _tell(outcome: Outcome) -> None:
    job, film = outcome.job, outcome.film
    if film is None:
        told = f"{job.name}: {outcome.failure}" if str(job.recording) not in outcome.failure else outcome.failure
    elif outcome.made:
        clock = film.clock
        told = f"{job.video}: {clock.seconds:.1f} s, {clock.pictures:,} picture{'' if clock.pictures == 1 else 's'}, "
        told += f"{clock.rate:.4g} a second"
        told = "; ".join([told, *film.remarks])
    else:
        told = f"{job.video}: is there already, and made of the same"
    print(printable(told), file=sys.stderr)
