"""The predictions of a session, to be saved: the last 50,000, each moment of a recording once."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.cells import safe
from velora import Prediction
from velora.prediction import TOP

MOST = 50_000
_ROW = np.dtype(
    [
        ("t_start_us", np.int64),
        ("t_end_us", np.int64),
        ("model", np.uint16),
        ("unsure", np.bool_),
        ("labels", np.uint16, (TOP,)),
        ("shares", np.float32, (TOP,)),
    ]
)
_NONE = 65_535
HEADINGS = "recording,start_us,end_us,label,confidence,unsure,model\r\n"


class Predictions:
    """Takes predictions in one thread; any may read what there is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = np.zeros(64, _ROW)
        self._count = 0  # of all that ever came
        self._names: dict[str, int] = {}
        self._models: dict[str, int] = {}

    def add(self, prediction: Prediction) -> None:
        """One more; beyond MOST it takes the place of the oldest."""
        with self._lock:
            if self._count == len(self._rows) < MOST:
                self._rows = np.concatenate([self._rows, np.zeros(min(self._count, MOST - self._count), _ROW)])
            row = self._rows[self._count % len(self._rows)]
            self._count += 1
            row["t_start_us"], row["t_end_us"] = prediction.t_start_us, prediction.t_end_us
            row["model"] = self._models.setdefault(prediction.model, len(self._models))
            row["unsure"] = prediction.unsure
            row["labels"], row["shares"] = _NONE, 0
            for k, (label, share) in enumerate(prediction.topk[:TOP]):
                row["labels"][k] = self._names.setdefault(label, len(self._names)) % _NONE
                row["shares"][k] = share

    def as_jsonl(self, recording: str) -> Iterator[str]:
        """A JSON object a line: recording, t_start_us, t_end_us, label, confidence, topk, unsure, model."""
        for row in self._found():
            yield json.dumps({"recording": recording, **row}, ensure_ascii=False) + "\n"

    def as_csv(self, recording: str) -> Iterator[str]:
        """A row of HEADINGS each; the label of an unsure one is as it came."""
        line = io.StringIO()
        writer = csv.writer(line)
        for row in self._found():
            line.seek(0)
            line.truncate()
            name, label, model = (safe(text) for text in (recording, row["label"], row["model"]))
            span = (row["t_start_us"], row["t_end_us"])
            writer.writerow([name, *span, label, row["confidence"], int(row["unsure"]), model])
            yield line.getvalue()

    def _found(self) -> Iterator[dict[str, Any]]:
        rows, names, models = self._newest()
        for row in rows:
            pairs = zip(row["labels"].tolist(), row["shares"].tolist(), strict=True)
            topk = [[names[label], round(share, 6)] for label, share in pairs if label != _NONE]
            yield {
                "t_start_us": int(row["t_start_us"]),
                "t_end_us": int(row["t_end_us"]),
                "label": topk[0][0],
                "confidence": topk[0][1],
                "topk": topk,
                "unsure": bool(row["unsure"]),
                "model": models[int(row["model"])],
            }

    def _newest(self) -> tuple[NDArray[np.void], list[str], list[str]]:
        """In order of time; of one moment that was played again, what was said last."""
        with self._lock:
            length = min(self._count, len(self._rows))
            oldest = self._count % length if self._count > length else 0
            rows, names, models = np.roll(self._rows[:length], -oldest), list(self._names), list(self._models)
        _, last = np.unique(rows["t_end_us"][::-1], return_index=True)
        return rows[::-1][last], names, models
