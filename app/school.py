"""What people teach: labels by hand, examples of new labels, and the model that learns them; one for the program."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.channel import Channel, one_line
from app.data_folder import user_data_folder
from app.lessons import LONGEST_S, Lessons
from app.spans import SpanBook, SpanBooks
from app.taught import models
from app.teach import Teaching
from streams import StreamError, open_source
from streams.files import remove_abandoned

_FRESH_S = 1.0  # how long what is on disk is taken to stay as it is
_UPLOADS = "uploads"
_END_S = 2.0  # for a training to tidy up
_SPARE_S = 1.0  # for what comes while an example is ended: one that is too long is none


class School:
    """Keeps its things below `folder`, by default the user's data folder. Every call may come from any thread.

    Raises ValueError, StreamError and OSError, one line, for what cannot be done.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_data_folder()
        self.lessons = Lessons(self.folder / "lessons")
        self._books = SpanBooks(self.folder)
        self._lock = threading.Lock()
        self._teaching: Teaching | None = None
        self._counts: tuple[float, dict[str, int]] = (0.0, {})
        self._models: tuple[float, dict[str, Path]] = (0.0, {})
        self._clip: tuple[Channel, Path, str] | None = None  # that is being recorded, and its label
        self._timer: threading.Timer | None = None  # that ends it

    def book(self, channel: Channel, uploaded: bool) -> SpanBook:
        """The labels by hand of a recording; those of an upload outlive it, found again by its name and content."""
        path = channel.address if isinstance(channel.address, Path) else Path(channel.address)
        if channel.is_live or not path.is_file():
            raise ValueError("only recordings in one file are labelled by hand: record what is live first")
        if uploaded:
            folder = self.folder / _UPLOADS
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{path.stem}-{_digest(path)}{path.suffix}"
        return self._books.of(path)

    def book_of(self, recording: Path, labels: Path) -> SpanBook:
        """The labels of a recording that `velora label` wrote to a file."""
        return self._books.of(recording, labels)

    # --- examples -----------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Examples by label."""
        with self._lock:
            self._tidy()
        if time.monotonic() - self._counts[0] > _FRESH_S:
            self._counts = time.monotonic(), self.lessons.counts()
        return self._counts[1]

    def add(self, channel: Channel, start_us: int, end_us: int, label: str) -> None:
        """Take a span of a recording as an example."""
        if channel.is_live:
            raise ValueError("what is live has no past: record an example as it happens")
        self.lessons.add(lambda: open_source(channel.address), start_us, end_us, label)
        self._counts = 0.0, {}

    def clip(self, channel: Channel, label: str) -> str:
        """Begin to record an example of what is live, or end that; a line on it."""
        with self._lock:
            self._tidy()
            clip = self._clip
            if clip is not None and clip[0] is not channel:
                raise ValueError(f"an example of {clip[2]} is being recorded on another source: end it there first")
            self._take()
            if clip is None:
                if not label.strip():
                    raise ValueError("say first of what it is an example")
                self.folder.mkdir(parents=True, exist_ok=True)
                remove_abandoned(self.folder, ".example-", ".aedat4")
                path = self.folder / f".example-{time.time_ns()}.aedat4"
                channel.start_clip(path)
                self._clip = channel, path, label.strip()
                self._timer = threading.Timer(LONGEST_S - _SPARE_S, self._end, [self._clip])
                self._timer.daemon = True
                self._timer.start()
                return f"recording an example of {label}: press again to end it"
        return self._finish(*clip)

    def _take(self) -> None:
        """Nothing is being recorded any more."""
        self._clip = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, channel: Channel, path: Path, label: str) -> str:
        """Make an example of what was recorded."""
        try:
            line, well = channel.stop_recording()
            if not well:
                raise ValueError(f"the example could not be recorded: {line}")
            self.lessons.take(path, label)
        finally:
            path.unlink(missing_ok=True)
        self._counts = 0.0, {}
        return self.told(label)

    def _end(self, clip: tuple[Channel, Path, str]) -> None:
        """An example that nobody ends: it is taken at its longest."""
        with self._lock:
            if self._clip is not clip:
                return
            self._take()
        try:
            self._finish(*clip)
        except (ValueError, StreamError, OSError) as error:
            print(f"velora: the example of {clip[2]} is lost: {one_line(error, clip[1])}", file=sys.stderr, flush=True)

    def _tidy(self) -> None:
        """Forget an example whose source has gone."""
        if self._clip is not None and self._clip[0].ended:
            self._clip[1].unlink(missing_ok=True)
            self._take()

    def close(self) -> None:
        """Stop what goes on: nothing half done is kept."""
        self.stop()
        if self._teaching is not None:
            self._teaching.wait(_END_S)
        with self._lock:
            if self._clip is not None:
                self._clip[0].stop_recording()
                self._clip[1].unlink(missing_ok=True)
                self._take()

    def told(self, label: str) -> str:
        """How many examples there are of a label, in words."""
        count = self.counts().get(label.strip(), 0)
        return f"{count} example{'s' if count != 1 else ''} of {label.strip()}"

    @property
    def recording(self) -> str | None:
        """The label of which an example is being recorded. Asked with each picture: it waits for nothing."""
        clip = self._clip
        return clip[2] if clip is not None and not clip[0].ended else None

    def recording_on(self, channel: Channel) -> str | None:
        """The same, where it is being recorded of this source."""
        clip = self._clip
        return self.recording if clip is not None and clip[0] is channel else None

    def forget(self, label: str) -> None:
        """Forget the examples of a label."""
        if not self.lessons.remove(label):
            raise ValueError(f"there are no examples of {label!r}")
        self._counts = 0.0, {}

    # --- models -------------------------------------------------------------------------------------------------------

    def models(self) -> Mapping[str, Path]:
        """The models that were taught, by name."""
        if time.monotonic() - self._models[0] > _FRESH_S:
            found = {model.name: model.path for model in models(self._folder_of_models).found}
            self._models = time.monotonic(), found
        return self._models[1]

    def teach(self, base: str | Path, name: str, weights: str | None, then: Callable[[str], None]) -> None:
        """Begin to teach the model at `base` the examples; `then` is called with the name of the model that comes."""
        with self._lock:
            if self._teaching is not None and not self._teaching.state().over:
                raise ValueError("a model is learning already: wait for it, or stop it")
            teaching = self._teaching = Teaching(self.lessons, base, self._folder_of_models, name, weights=weights)

        def wait() -> None:
            while not teaching.wait(1.0):
                pass
            self._models = 0.0, {}
            model = teaching.state().model
            if model is not None:
                then(model.name)

        threading.Thread(target=wait, name="school", daemon=True).start()

    def stop(self) -> None:
        """Stop teaching; nothing of it is kept."""
        if self._teaching is not None:
            self._teaching.stop()

    def state(self) -> dict[str, Any] | None:
        """How teaching goes; None where nothing was taught."""
        if self._teaching is None:
            return None
        state = self._teaching.state()
        return {**asdict(state), "model": state.model and state.model.name, "over": state.over}

    @property
    def _folder_of_models(self) -> Path:
        return self.folder / "models"


def _digest(upload: Path) -> str:
    """Of its content: who does not have it finds no labels of it."""
    with upload.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
