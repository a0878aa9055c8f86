"""The files of one recording: its windows as they are recognised, its spans at the end; whole, or not there."""

from __future__ import annotations

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.labelling.engine import Digests
from app.labelling.notes import FORMATS, Place, digest, digest_of, read_note
from app.labelling.settings import Settings
from app.labelling.storage import copy, make_folder, named, part_of, replaced_when_whole
from app.labelling.windows import window_writer
from app.replay import as_json
from streams import Sink
from streams.record import HEADINGS, label_row
from streams.spans import LabelSpan, Said, spans_of
from streams.text import storable
from velora import Prediction
from velora.prediction import top_labels


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of a recording."""

    windows: int
    spans: int
    labels_digest: str
    remarks: tuple[str, ...]


class Outputs(Sink):
    """Writes what is recognised in one recording. `finish` or `drop` it. Raises OSError where there is no place."""

    def __init__(self, place: Place, settings: Settings, digests: Digests, labels: tuple[str, ...]) -> None:
        self._place, self._settings, self._digests, self._labels = place, settings, digests, labels
        self._said: list[Said] = []
        self._failure: OSError | None = None
        self._path = place.windows(settings.format)
        make_folder(self._path.parent)
        self._part = part_of(self._path)
        try:
            self._windows = window_writer(settings.format, self._part.path)
        except BaseException:
            self._part.drop()
            raise

    @property
    def windows(self) -> int:
        """How many so far."""
        return len(self._said)

    def on_prediction(self, prediction: Prediction) -> None:
        row = self._row(prediction)
        if self._failure is None:
            try:
                self._windows.add(row)
            except OSError as error:
                self._failure = error
        self._said.append(Said(row["start_us"], row["end_us"], prediction.label, prediction.confidence, row["unsure"]))

    def _row(self, prediction: Prediction) -> dict[str, Any]:
        """A window's row: as `replay` has it, with what it was made with."""
        least = self._settings.min_confidence
        likely = top_labels(prediction.probabilities, self._labels, self._settings.topk)
        told = as_json(prediction)
        return {
            "recording": storable(self._place.name),
            "start_us": told["t_start_us"],
            "end_us": told["t_end_us"],
            "label": told["label"],
            "confidence": told["confidence"],
            "unsure": prediction.unsure if least is None else prediction.confidence < least,
            "topk": [[label, round(p, 6)] for label, p in likely],
            "model": self._digests.model,
            "settings": self._digests.settings,
        }

    def finish(self) -> Written:
        """Put the files in their places. A note of before goes first: files are never of another one than the note's.

        Raises OSError where they cannot be written.
        """
        with named(self._path, self._part):
            if self._failure is not None:
                raise self._failure
            self._windows.close()
        spans = spans_of(self._said, self._settings.rules)
        labels = labels_as_text(Path(self._place.name).name, spans)
        remarks = _kept_corrections(self._place, labels)
        self._place.note.unlink(missing_ok=True)
        self._part.keep()
        for kind in FORMATS:
            if kind != self._settings.format:
                self._place.windows(kind).unlink(missing_ok=True)
        with replaced_when_whole(self._place.labels) as part:
            part.write_text(labels, encoding="utf-8", newline="")
        return Written(self.windows, len(spans), digest(labels.encode()), remarks)

    def drop(self) -> None:
        """Leave nothing behind. Does nothing once it is finished."""
        with contextlib.suppress(OSError):  # a full disk: nothing of it is wanted
            self._windows.close()
        self._part.drop()


def labels_as_text(recording: str, spans: list[LabelSpan]) -> str:
    """A file of spans, in the one label format."""
    text = io.StringIO()
    rows = [label_row(storable(recording), s.start_us, s.end_us, s.label, s.confidence) for s in spans]
    csv.writer(text).writerows([HEADINGS, *rows])
    return text.getvalue()


def _kept_corrections(place: Place, labels: str) -> tuple[str, ...]:
    """Spans that somebody has corrected since they were written are kept beside the new ones.

    Where no note tells what was written, whatever is not the new `labels` may be somebody's.
    """
    note = read_note(place.note)
    written = digest(labels.encode()) if note is None else note.labels_digest
    if not place.labels.is_file() or digest_of(place.labels) == written:
        return ()
    number = 1
    while (kept := place.labels.with_name(f"{place.labels.name}.corrected-{number}")).exists():
        number += 1
    copy(place.labels, kept)
    return (f"its labels had been corrected: they are kept in {kept.name}",)
