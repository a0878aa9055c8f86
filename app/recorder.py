"""A switch that records a live feed and what is recognised of it, in the headless modes and on the page."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from streams import Sink
from streams.record import LabelLog, Recorded, Tee, check_free, labels_of
from velora import Prediction


class Recorder(Sink):
    """Records what passes a tee, and the labels that it is a sink of, from `start` to `stop`, from any thread."""

    def __init__(self, tee: Tee) -> None:
        self._tee = tee
        self._switch = threading.RLock()  # held by who starts or stops; labels do not wait for it
        self._lock = threading.Lock()
        self._log: LabelLog | None = None
        self.failed = False  # whether something is missing in the last recording, or its labels

    def start(self, path: Path, *, replace: bool = False, labels: bool = True) -> None:
        """Record from now on. Raises RecordingError where there is such a file, or it cannot be written."""
        with self._switch:
            self.stop()
            if labels:
                check_free(labels_of(path), replace)
            self._tee.start(path, replace=replace)
            try:
                if replace:  # those of the recording that was here
                    labels_of(path).unlink(missing_ok=True)
                self._log = LabelLog(path) if labels else None
            except BaseException:
                self._tee.stop()
                path.unlink(missing_ok=True)
                raise

    def stop(self) -> list[str]:
        """Finish the files: a line on what is in them, one on what is not. Does nothing where nothing is recorded."""
        with self._switch:
            if self.under_way is None:
                return []
            with self._lock:
                log, self._log = self._log, None
            recorded = self._tee.stop()
            if log is not None:
                log.close()
            lost = recorded is not None and recorded.left_out > 0
            self.failed = lost or any(made is not None and made.failure for made in (recorded, log))
        return [line for line in (str(recorded), log.failure if log is not None else "") if line]

    @property
    def under_way(self) -> Recorded | None:
        """The recording that goes on."""
        return self._tee.recorded if self._tee.recording or self._log is not None else None

    def on_prediction(self, prediction: Prediction) -> None:
        with self._lock:
            if self._log is not None:
                self._log.add(prediction)


def new_file(folder: Path, source: str) -> Path:
    """A name that is free, from that of the source and the time."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", source.removeprefix("tcp://")).strip("-") or "recording"
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{stem}{suffix}.aedat4" for suffix in ("", *(f"-{k}" for k in range(2, 1000))))
    return next(path for name in names if not (path := folder / name).exists())
