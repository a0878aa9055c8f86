"""`velora label`: labels of every recording below a folder, as files that mirror it.

    velora label recordings/ --out labels/

    labels/walk/a.aedat4.windows.jsonl   every window: its time, its likeliest labels
    labels/walk/a.aedat4.labels.csv      spans, to correct and to train on
    labels/index.csv, labels/run.json    all recordings; how the run went

What is finished is not done again, so an interrupted run goes on. Where recordings and labels lie may be a URL such as
s3://bucket/folder, and who labels a cluster: see `app.labelling.storage` and `app.labelling.cluster`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from app.feed import Interrupt, stopping
from app.labelling.engine import Engine, engine_for
from app.labelling.inputs import Recording, check_no_way_out, find, within
from app.labelling.ledger import LOCK, Ledger
from app.labelling.lock import locked
from app.labelling.notes import named_as_before, why_again
from app.labelling.progress import Display, Weights, display
from app.labelling.settings import Settings, settings_of
from app.labelling.shards import has_shards, remove_shards, write_shards
from app.labelling.storage import is_far, place
from app.labelling.windows import check_format
from app.output import let_go_of_stdout
from streams.text import printable, storable

_LOOKERS = 16  # of which each waits for a disk, or for far storage
_PART = re.compile(  # names of `PartFile`, of what is written here
    r"\.(.+\.(windows\.\w+|labels\.csv)|index\.csv|run\.json|windows-\d+\.parquet|[0-9a-f]{24}\.json)\.\d+\.part"
)


def label(arguments: argparse.Namespace) -> int:
    """Label what is not labelled yet. Raises ValueError, StreamError and ModelError for what concerns all of it."""
    settings = settings_of(arguments)
    out = settings.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder")
    check_format(settings.format)
    found = find(arguments.inputs, place(arguments.list) if arguments.list else None, out)
    if arguments.within:
        found = within(found, arguments.within)
        check_no_way_out(out, arguments.within)
    found = named_as_before(found, out)
    if found.others:
        print(f"velora: {found.others:,} other files in the folders are left alone", file=sys.stderr)
    if not found.recordings and out.resolve() in (Path(given).resolve() for given in arguments.inputs):
        raise ValueError(f"{out} is both an input and --out, in which nothing is looked for: choose another --out")
    if not found.recordings:
        raise ValueError("there is no recording among the inputs: give files, or folders that hold some")
    if arguments.dry_run:
        with engine_for(arguments, settings) as engine:
            return _tell_plan(_plan(engine, found.recordings, arguments.force), arguments.json)
    with locked(out / LOCK):
        try:
            return _run(arguments, settings, found.recordings)
        except BrokenPipeError:
            let_go_of_stdout()
            raise ValueError("it was stopped: nobody reads its output any more; the same command goes on") from None
        finally:
            if arguments.engine != "local":  # whose labellers may have been killed
                _clear_parts(out)


def _plan(engine: Engine, recordings: Sequence[Recording], force: bool) -> dict[Recording, str]:
    """Why each recording has to be labelled; an empty text for those that are skipped."""
    if force:
        return dict.fromkeys(recordings, "--force")
    out, digests = engine.settings.out, engine.facts.digests
    console = Console(stderr=True)
    with ThreadPoolExecutor(_LOOKERS) as lookers:
        whys = lookers.map(partial(why_again, out=out, model=digests.model, settings=digests.settings), recordings)
        looked = track(
            zip(recordings, whys, strict=True),
            "looking",
            len(recordings),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        return dict(looked)


def _tell_plan(plan: dict[Recording, str], as_json: bool) -> int:
    for recording, why in plan.items():
        name = storable(recording.name)
        if as_json:
            print(json.dumps({"recording": name, "skip": not why, "why": why or "finished"}))
        else:
            shown = printable(name)
            print(f"label  {shown} ({why})" if why else f"skip   {shown} (finished)")
    return 0


def _run(arguments: argparse.Namespace, settings: Settings, recordings: Sequence[Recording]) -> int:
    with engine_for(arguments, settings) as engine:
        plan = _plan(engine, recordings, arguments.force)
        todo = [recording for recording, why in plan.items() if why]
        skipped = len(plan) - len(todo)
        _clear(settings.out, todo)
        ledger = Ledger(settings.out, engine, total=len(plan), skipped=skipped)
        shown = display(arguments.json, ledger)
        if skipped:
            print(f"velora: {skipped:,} of {len(plan):,} recordings are finished, and skipped", file=sys.stderr)
        state = "stopped"
        try:
            with stopping(engine.stop) as interrupt, shown:
                shown.begin(len(todo), skipped)
                whole = _label_all(engine, todo, ledger, shown, arguments.strict, interrupt)
                if whole and settings.format == "parquet" and (todo or not has_shards(settings.out)):
                    write_shards(settings.out)
                state = "finished" if whole else "interrupted" if interrupt.asked else "stopped"
        finally:
            ledger.write(state)
        shown.end(state)
        return _close(ledger, state, settings.out)


def _label_all(
    engine: Engine,
    todo: Sequence[Recording],
    ledger: Ledger,
    shown: Display,
    strict: bool,
    interrupt: Interrupt,
) -> bool:
    """Whether all of it was done."""
    weights = Weights(todo)
    for note in engine.label_all(todo, told=lambda: shown.moved(weights.share(engine.headway.shares))):
        ledger.add(note)
        weights.finish(note.recording)
        shown.finished(note)
        if strict and note.failed:
            return False
    return not interrupt.asked


def _clear(out: Path, todo: Sequence[Recording]) -> None:
    """Remove what is not to be seen while other recordings are labelled."""
    _clear_parts(out)
    if todo:
        remove_shards(out)


def _clear_parts(out: Path) -> None:
    """Remove what killed processes have left half written; the lock is held, so nobody else is at it."""
    for part in out.rglob(".*.part") if not is_far(out) else ():
        if _PART.fullmatch(part.name):
            part.unlink(missing_ok=True)


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
        told = f"  {storable(note.recording)}: {note.reason}"
        print(printable(told), file=sys.stderr)
    if state == "interrupted":
        return 130
    return 1 if ledger.failed else 0
