"""What is known of a recording that was labelled, beside its outputs; it is written last, and its outputs are whole.

A recording is done when it has such a note, of the same model, settings and source.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from app.labelling.inputs import Found, Recording
from app.labelling.storage import (
    contents_below,
    fingerprint,
    folder_fingerprint,
    is_far,
    make_folder,
    place,
    replaced_when_whole,
)
from streams.files import small_file
from streams.image_folder import image_pairs

BOOKS = ".velora"  # the folder in the output folder that holds notes and the lock
DONE, FAILED = "done", "failed"
_LARGEST, _LONGEST_S = 1 << 22, 1e12  # bytes of a note, seconds in it
_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "tuple": tuple, "Mapping": Mapping}
FORMATS = ("jsonl", "csv", "parquet")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the outputs of a recording are."""

    out: Path
    name: str

    def windows(self, kind: str) -> Path:
        """The file of its windows, in one of FORMATS."""
        return self._beside(f".windows.{kind}")

    @property
    def labels(self) -> Path:
        """Its spans. After the whole name of the recording: a.aedat4 and a.raw may lie side by side."""
        return self._beside(".labels.csv")

    @property
    def note(self) -> Path:
        """By a digest: names may be as long as a system allows."""
        digest = hashlib.sha256(self.name.encode(errors="surrogateescape")).hexdigest()[:24]
        return self.out / BOOKS / "notes" / digest[:2] / f"{digest}.json"

    def _beside(self, suffix: str) -> Path:
        path = self.out / self.name
        return path.with_name(path.name + suffix)


@dataclass(frozen=True)
class Note:
    """How labelling a recording went. Times in microseconds of the recording's clock, or seconds."""

    recording: str
    source: str  # its path
    status: str  # DONE or FAILED
    reason: str = ""  # why it failed
    remarks: tuple[str, ...] = ()  # what was damaged, and what else one should know
    state: Mapping[str, Any] = field(default_factory=dict)  # of the source before it was read: see `state_of`
    model: str = ""  # digests
    settings: str = ""
    stride: int = 0
    samples: int = 0
    windows: int = 0
    spans: int = 0
    events: int = 0
    seconds: float = 0.0  # recorded
    read_s: float = 0.0  # that decoding, rendering and resizing took
    windows_file: str = ""  # below the output folder
    labels_file: str = ""
    labels_digest: str = ""  # of that file, as it was written
    finished: str = ""  # when

    @property
    def failed(self) -> bool:
        return self.status == FAILED


def write_note(place: Place, note: Note) -> None:
    """Write it whole."""
    make_folder(place.note.parent)
    with replaced_when_whole(place.note) as part:
        part.write_text(json.dumps(dataclasses.asdict(note), indent=1), encoding="utf-8")


def read_note(file: Path) -> Note | None:
    """A note, or None where there is none that can be read."""
    try:
        return _note_in(small_file(file, _LARGEST) or b"")
    except OSError:
        return None


def _note_in(text: bytes) -> Note | None:
    try:
        told = json.loads(text)
        note = Note(**{**told, "remarks": tuple(told["remarks"])})
        stays = all(map(_stays, (note.recording, note.windows_file, note.labels_file)))
        return note if stays and all(_fits(own, getattr(note, own.name)) for own in dataclasses.fields(note)) else None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def _fits(own: dataclasses.Field[Any], value: object) -> bool:
    """Whether somebody else's note has a value of a field's kind."""
    if isinstance(value, tuple) and not all(isinstance(part, str) for part in value):
        return False
    if own.type == "float" and isinstance(value, (int, float)) and not abs(value) < _LONGEST_S:
        return False
    return isinstance(value, _KINDS[str(own.type).partition("[")[0]])


def _stays(name: str) -> bool:
    """Whether a path stays below the folder that it is relative to: somebody else may have written the note."""
    return ".." not in re.split(r"[/\\]", name) and not PurePath(name).anchor and not name.startswith("\\\\")


def failed_note(recording: Recording, model: str, settings: str, reason: str) -> Note:
    """Of a recording that nobody could even begin to read to its end."""
    return Note(
        recording.name,
        str(recording.path),
        FAILED,
        reason=reason,
        model=model,
        settings=settings,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def is_done(place: Place) -> bool:
    """Whether a recording of that name has been labelled, by whatever model."""
    note = read_note(place.note)
    return note is not None and not note.failed


def digest_of(path: Path) -> str:
    """Of a small file."""
    return digest(path.read_bytes())


def digest(content: bytes) -> str:
    """Of what a small file holds."""
    return hashlib.sha256(content).hexdigest()[:16]


def read_notes(out: Path) -> Iterator[Note]:
    """All notes below an output folder."""
    for text in contents_below(out / BOOKS / "notes", ".json", _LARGEST):
        if (note := _note_in(text)) is not None:
            yield note


def state_of(path: Path) -> dict[str, Any]:
    """What changes when a recording does: size, time of change, beginning; of a folder those of its images.

    Raises OSError where it is not there.
    """
    if not path.is_dir():
        return fingerprint(path)
    if is_far(path):
        return folder_fingerprint(path)
    files = [file for pair in image_pairs(path).values() for file in pair]
    states = [(str(file.relative_to(path)), file.stat()) for file in files]
    listed = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    size = sum(state.st_size for _, state in states)
    return {"size": size, "files": hashlib.sha256(listed.encode()).hexdigest()}


def why_again(recording: Recording, out: Path, model: str, settings: str) -> str:
    """Why a recording has to be labelled; an empty text where it has been, and nothing has changed since."""
    place = Place(out, recording.name)
    note = read_note(place.note)
    if note is None:
        return "new"
    if note.failed:
        return "it failed before"
    if not ((out / note.windows_file).is_file() and (out / note.labels_file).is_file()):
        return "its files are missing"
    if note.model != model:
        return "another model"
    if note.settings != settings:
        return "other settings"
    try:
        return "" if state_of(recording.path) == note.state else "it has changed"
    except OSError:
        return "it cannot be read"


def named_as_before(found: Found, out: Path) -> Found:
    """With the names that a run into `out` before gave to the same files: other inputs beside them may change names."""
    if is_far(out):
        return found
    before = {note.source: note.recording for note in read_notes(out)}
    names = {own: before.get(str(own.path), own.name) for own in found.recordings}
    counts = Counter(names.values())
    kept = (Recording(own.path, name if counts[name] == 1 else own.name) for own, name in names.items())
    return Found(tuple(sorted(kept, key=lambda own: own.name)), found.others)


def check_is_its_own(recording: Recording, own: Place) -> None:
    """Raise ValueError where the outputs of that name are of another recording, which is still there."""
    note = read_note(own.note)
    if note is None or note.failed or note.source == str(recording.path):
        return
    with suppress(OSError, ValueError):
        if not is_far(recording.path) and os.path.samefile(note.source, recording.path):
            return  # by another path
    if _state_or_none(note.source) == note.state:
        raise ValueError(
            f"{recording.path}: {own.labels} is of {note.source}; choose another --out, or label both in one run"
        )


def _state_or_none(source: str) -> dict[str, Any] | None:
    """The state of a source; None where it is not there."""
    try:
        return state_of(place(source))
    except (OSError, ValueError):
        return None
