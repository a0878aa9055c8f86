"""The folder that `velora label` wrote, as it is now: people correct spans, move recordings and merge label files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from app.export.run_note import RunNote, read_run
from app.label_file import LabelRow, read_label_rows
from app.labelling.ledger import RUN
from app.labelling.notes import BOOKS, Note, digest_of, read_notes
from streams.files import is_within
from streams.text import storable

_LIKE_A_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")


@dataclass(eq=False)
class Labelled:
    """A recording that was labelled, and its spans in order of time; these may overlap, or be outside of it."""

    note: Note
    rows: list[LabelRow] = field(default_factory=list)
    corrected: bool = False  # since they were written
    trouble: str = ""  # why there are no rows

    @property
    def name(self) -> str:
        """What the recording is called below the folder."""
        return storable(self.note.recording)


@dataclass
class Results:
    """All of a folder."""

    folder: Path
    run: RunNote
    labelled: list[Labelled]  # in order of their names
    failed: list[Note]
    strangers: list[str]  # rows of recordings that are not of this folder

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels: the model's in its order, then those that people have added."""
        known = self.run.model.labels
        others = {row.label for own in self.labelled for row in own.rows} - set(known)
        return (*known, *sorted(others))

    @property
    def otherwise(self) -> int:
        """How many recordings were labelled with other settings than in the last run."""
        last = self.run.settings.digest
        return sum(own.note.settings != last for own in self.labelled) if last else 0

    @property
    def feed(self) -> dict[str, Any]:
        """The options of `open_feed` that were in force when it was last labelled."""
        return self.run.settings.feed.model_dump()


def read_results(folder: Path, *, strict: bool, within: Sequence[Path] = ()) -> Results:
    """What `velora label` wrote to a folder. Raises ValueError, one line, where it is none.

    With `strict`, also for a label file that cannot be understood; otherwise that is its recording's trouble, as is
    one that is a link out of all folders `within`, where there are any.
    """
    notes = list(read_notes(folder)) if folder.is_dir() else []
    if not notes and _LIKE_A_URL.match(str(folder)) and not folder.exists():
        raise ValueError(f"{folder}: labels are read from this machine: copy their folder here first")
    if not notes:
        raise ValueError(f"{folder}: holds nothing that `velora label --out` wrote ({BOOKS}/notes); check the path")
    labelled = {note.recording: Labelled(note) for note in sorted(notes, key=lambda note: note.recording)}
    results = Results(folder, read_run(folder / RUN), [], [], [])
    by_name = {storable(name): found for name, found in labelled.items()}
    for own in labelled.values():
        if not own.note.failed:
            _add_rows(own, folder, by_name, results.strangers, strict, within)
    for own in labelled.values():
        own.rows.sort(key=lambda row: (row.start_us, row.end_us, row.label))
        if own.note.failed and not own.rows:
            results.failed.append(own.note)
        else:
            results.labelled.append(own)
    return results


def _add_rows(
    own: Labelled,
    folder: Path,
    by_name: Mapping[str, Labelled],
    strangers: list[str],
    strict: bool,
    within: Sequence[Path],
) -> None:
    """Deal out the rows of a label file: to its recording, or to the others that it names."""
    path = folder / own.note.labels_file
    try:
        if within and not is_within(path, within):
            raise ValueError(f"{path} is a link to elsewhere")
        rows = read_label_rows(path)
        own.corrected = digest_of(path) != own.note.labels_digest
    except FileNotFoundError:
        own.trouble = f"{path} is gone: label the recording again"
        return
    except OSError as error:
        own.trouble = f"{path} cannot be read ({error.strerror}): check its permissions"
    except ValueError as error:
        own.trouble = f"{error}; correct it, or delete the file and label the recording again"
    if own.trouble:
        if strict:
            raise ValueError(own.trouble)
        return
    for row in rows:
        meant = _meant(own, row.recording, by_name)
        if meant is None:
            strangers.append(f"{path}, line {row.line}: {row.recording!r} is no recording of {folder}")
        else:
            meant.rows.append(row)


def _meant(own: Labelled, named: str, labelled: Mapping[str, Labelled]) -> Labelled | None:
    """Which recording a row is of: by its name in the same folder, or by that below all."""
    here = PurePosixPath(own.name)
    if named == here.name:
        return own
    return labelled.get(posixpath.normpath(here.parent / named)) or labelled.get(named)


def troubles(results: Results) -> Iterator[str]:
    """What is not there to be shown, a line each."""
    yield from (f"{storable(note.recording)}: was not labelled: {note.reason}" for note in results.failed)
    yield from (own.trouble for own in results.labelled if own.trouble)
    yield from results.strangers
