"""`velora label`: labels of every recording below a folder, as files that mirror it.

    velora label recordings/ --out labels/

    labels/walk/a.aedat4.windows.jsonl   every window: its time, its likeliest labels
    labels/walk/a.aedat4.labels.csv      spans, to correct and to train on
    labels/index.csv, labels/run.json    all recordings; how the run went

What is finished is not done again, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from app.feed import Interrupt, stopping
from app.labelling.inputs import Recording, find
from app.labelling.labeller import Labeller
from app.labelling.ledger import Ledger
from app.labelling.lock import locked
from app.labelling.notes import BOOKS, why_again
from app.labelling.outputs import printable
from app.labelling.progress import Display, Weights, display
from app.labelling.settings import Settings, settings_of
from app.labelling.shards import remove_shards, write_shards
from app.labelling.windows import check_format

_PART = re.compile(  # names of `PartFile`, of what is written here
    r"\.(.+\.(windows\.\w+|labels\.csv)|index\.csv|run\.json|windows-\d+\.parquet|[0-9a-f]{24}\.json)\.\d+\.part"
)


def label(arguments: argparse.Namespace) -> int:
    """Label what is not labelled yet. Raises ValueError, StreamError and ModelError for what concerns all of it."""
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder")
    settings = settings_of(arguments)
    check_format(settings.format)
    found = find(arguments.inputs, arguments.list, out)
    if found.others:
        print(f"velora: {found.others:,} other files in the folders are left alone", file=sys.stderr)
    if not found.recordings:
        raise ValueError("there is no recording among the inputs: give files, or folders that hold some")
    if arguments.dry_run:
        return _tell_plan(_plan(Labeller(settings), found.recordings, arguments.force), arguments.json)
    with locked(out / BOOKS / "lock"):
        return _run(arguments, settings, found.recordings)


def _plan(labeller: Labeller, recordings: Sequence[Recording], force: bool) -> dict[Recording, str]:
    """Why each recording has to be labelled; an empty text for those that are skipped."""
    out, digests = labeller.settings.out, labeller.digests
    console = Console(stderr=True)
    looked = track(recordings, "looking", console=console, transient=True, disable=not console.is_terminal)
    return {r: "--force" if force else why_again(r, out, digests.model, digests.settings) for r in looked}


def _tell_plan(plan: dict[Recording, str], as_json: bool) -> int:
    for recording, why in plan.items():
        name = printable(recording.name)
        if as_json:
            print(json.dumps({"recording": name, "skip": not why, "why": why or "finished"}))
        else:
            shown = "".join(filter(str.isprintable, name))  # a stranger's words must not steer a terminal
            print(f"label  {shown} ({why})" if why else f"skip   {shown} (finished)")
    return 0


def _run(arguments: argparse.Namespace, settings: Settings, recordings: Sequence[Recording]) -> int:
    with Labeller(settings, arguments.jobs) as labeller:
        plan = _plan(labeller, recordings, arguments.force)
        todo = [recording for recording, why in plan.items() if why]
        skipped = len(plan) - len(todo)
        _clear(settings.out, todo)
        ledger = Ledger(settings.out, labeller, total=len(plan), skipped=skipped)
        shown = display(arguments.json, ledger)
        if skipped:
            print(f"velora: {skipped:,} of {len(plan):,} recordings are finished, and skipped", file=sys.stderr)
        state = "stopped"
        try:
            with stopping(labeller.stop) as interrupt, shown:
                shown.begin(len(todo), skipped)
                whole = _label_all(labeller, todo, ledger, shown, arguments.strict, interrupt)
                state = "finished" if whole else "interrupted" if interrupt.asked else "stopped"
            if whole and settings.format == "parquet":
                write_shards(settings.out)
        finally:
            ledger.write(state)
        shown.end(state)
        return _close(ledger, state, settings.out)


def _label_all(
    labeller: Labeller,
    todo: Sequence[Recording],
    ledger: Ledger,
    shown: Display,
    strict: bool,
    interrupt: Interrupt,
) -> bool:
    """Whether all of it was done."""
    weights = Weights(todo)
    for note in labeller.label_all(todo, told=lambda: shown.moved(weights.share(labeller.headway.shares))):
        ledger.add(note)
        weights.finish(note.recording)
        shown.finished(note)
        if strict and note.failed:
            return False
    return not interrupt.asked


def _clear(out: Path, todo: Sequence[Recording]) -> None:
    """Remove what a killed run has left half written; the lock is held, so nobody else is at it."""
    for part in out.rglob(".*.part"):
        if _PART.fullmatch(part.name):
            part.unlink(missing_ok=True)
    if todo:
        remove_shards(out)


def _close(ledger: Ledger, state: str, out: Path) -> int:
    """The summary, and what failed, on stderr; the exit code."""
    rates = ledger.throughput()
    windows, remarks = sum(n.windows for n in ledger.done), sum(bool(n.remarks) for n in ledger.done)
    print(
        f"{out}: {len(ledger.done):,} labelled in {rates['seconds']:.1f} s, {windows:,} windows: "
        f"{rates['events_per_s']:,.0f} events/s, {rates['real_time_factor']:.1f} times real time",
        file=sys.stderr,
    )
    if remarks:
        print(f"{remarks:,} of them with remarks, in index.csv", file=sys.stderr)
    if ledger.failed:
        print(f"{len(ledger.failed):,} failed:", file=sys.stderr)
    for note in ledger.failed:
        told = f"  {printable(note.recording)}: {note.reason}"
        print("".join(filter(str.isprintable, told)), file=sys.stderr)
    if state == "interrupted":
        return 130
    return 1 if ledger.failed else 0
