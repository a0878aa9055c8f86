"""Folders as `velora label` writes them, made without a model."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.cli import main
from app.label_file import LabelRow, write_label_rows
from app.labelling.notes import DONE, FAILED, Note, Place, digest_of, state_of, write_note
from tests.app.conftest import write_square

START_US = 1_005_000  # of the first sample of `write_square`
PERIOD_US = 33_333
LABELS = ("walk", "sit", "fall")

Span = tuple[int, int, str, float | None]


def at(sample: int) -> int:
    """When a sample of `write_square` begins, microseconds."""
    return START_US + sample * PERIOD_US


SPANS: Sequence[Span] = ((at(0), at(5), "walk", 0.9), (at(5), at(12), "sit", 0.55), (at(14), at(20), "walk", 0.7))


def write_note_of(out: Path, source: Path, name: str, spans: Sequence[Span] | None, frames: int = 20) -> Place:
    """What is kept of one recording; without spans, it failed."""
    place = Place(out, name)
    if spans is None:
        write_note(place, Note(name, str(source), FAILED, reason="the file is empty; record or copy it again"))
        return place
    place.labels.parent.mkdir(parents=True, exist_ok=True)
    write_label_rows(place.labels, (LabelRow(Path(name).name, *span) for span in spans))
    ends = (START_US, at(7)), (at(8), at(frames - 1) + 10_000)
    windows = [json.dumps({"recording": name, "start_us": start, "end_us": end}) for start, end in ends]
    place.windows("jsonl").write_text("".join(f"{line}\n" for line in windows))
    note = Note(
        recording=name,
        source=str(source),
        status=DONE,
        state=state_of(source),
        windows=2,
        spans=len(spans),
        seconds=frames * PERIOD_US / 1e6,
        windows_file=f"{name}.windows.jsonl",
        labels_file=f"{name}.labels.csv",
        labels_digest=digest_of(place.labels),
    )
    write_note(place, note)
    return place


def write_outputs(folder: Path, recordings: Mapping[str, Sequence[Span] | None], frames: int = 20) -> Path:
    """Recordings in `folder`/in, and what labelling them wrote to `folder`/out."""
    out = folder / "out"
    for name, spans in recordings.items():
        source = write_square(folder / "in" / name, frames)
        write_note_of(out, source, name, spans, frames)
    write_run(out)
    return out


def write_run(out: Path) -> None:
    """A run.json with what is read of it."""
    run = {
        "state": "finished",
        "written": "2026-11-21T20:58:00+00:00",
        "command": ["velora", "label", "<in>"],
        "model": {"name": "demo", "digest": "3122fd32", "labels": LABELS, "device": "cpu", "dtype": "bfloat16"},
        "settings": {"feed": {"size": None, "roi": None, "denoise": False, "rotate": 0}},
        "throughput": {"real_time_factor": 3.25},
    }
    (out / "run.json").write_text(json.dumps(run))


def run(*arguments: object) -> tuple[int, str, str]:
    """A command in this process: its exit code, what it says on stdout, and on stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main([str(argument) for argument in arguments])
    return code, stdout.getvalue(), stderr.getvalue()
