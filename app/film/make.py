"""One recording to one video: the same road as everything, to an encoder at its end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from app.feed import losses, open_feed, options_of
from app.film.drawing import Drawing, panes_of
from app.film.encoder import Encoder
from app.film.film import VERSION, Clock, Film, as_json, write_film
from app.film.pace import Pace, Shown, pace_of
from app.label_file import LabelRow
from app.labelling.notes import state_of
from streams import RecordingError, RenderConfig, Sample, Source, StreamError, synchronize
from streams.files import replaced_when_whole
from streams.text import storable

FEED = (  # options of `app.feed.open_feed`
    *("rgb", "rgb_offset_ms", "rgb_fps", "rgb_homography", "size", "chip"),
    *("rgb_from", "denoise", "roi", "flip", "rotate"),
)


@dataclass(frozen=True)
class Look:
    """How videos look."""

    panes: tuple[str, ...] | None = None  # None: what a recording has, RGB before events
    fps: Fraction | None = None  # None: the recording's pace
    feed: Mapping[str, Any] = field(default_factory=dict)

    def open(self, recording: Path) -> Source:
        """A recording with what is done to it. Raises as `open_feed`."""
        return open_feed(options_of({name: self.feed.get(name) for name in FEED}, recording), recording)

    def made_of(self, recording: Path, rows: Sequence[LabelRow] | None) -> dict[str, Any]:
        """What changes when its video would look different. Raises OSError where it is not there."""
        told: dict[str, Any] = {
            "version": VERSION,
            "panes": self.panes,
            "fps": None if self.fps is None else str(self.fps),
            "feed": {name: str(value) for name, value in self.feed.items() if value},
            "source": state_of(recording),
            "labels": None if rows is None else _digest(rows),
        }
        if self.feed.get("rgb") and Path(self.feed["rgb"]).exists():
            told["rgb"] = state_of(Path(self.feed["rgb"]))
        if self.feed.get("rgb_homography"):
            told["rgb_homography"] = state_of(Path(self.feed["rgb_homography"]))
        parsed: dict[str, Any] = json.loads(json.dumps(told))
        return parsed


@dataclass(frozen=True)
class Job:
    """A recording to make a video of; with `rows`, its labels are burnt in."""

    recording: Path
    name: str  # of the recording, for people
    video: Path  # the .mp4 to write
    rows: tuple[LabelRow, ...] | None = None


class Stopped(Exception):
    """Somebody wants it to end."""


def make_film(job: Job, look: Look, told: Callable[[float], object], stopped: Callable[[], bool]) -> Film:
    """Write a video and what is told of it; `told` hears how much is done, 0 to 1.

    What is damaged is shown as far as it can be read. Raises StreamError and ValueError for what shows nothing, OSError
    where the video cannot be written, and Stopped; then there is no video.
    """
    made_of = look.made_of(job.recording, job.rows)
    job.video.parent.mkdir(parents=True, exist_ok=True)
    with look.open(job.recording) as source, replaced_when_whole(job.video) as part:
        take = _Take(job, source, look, made_of)
        film = take.shoot(part, told, stopped)
        write_film(job.video, film, part.stat().st_size)
    return film


def clock_of(recording: Path, look: Look) -> Clock:
    """The clock that a video of it would have, without making it. Raises as `make_film`."""
    with look.open(recording) as source:
        first = next(synchronize(source, render=RenderConfig()), None)
        if first is None:
            raise _nothing(recording, source.counts)
        fps = look.fps or _pace(source)
        end_us = None if source.span_us is None else source.span_us[1]
    pictures = None if end_us is None else max(1, round((end_us - first.t_start_us) * fps / 1_000_000))
    return Clock(first.t_start_us, fps, pictures)


class _Take:
    """A video in the making."""

    def __init__(self, job: Job, source: Source, look: Look, made_of: Mapping[str, Any]) -> None:
        self._job, self._source, self._made_of = job, source, made_of
        self._fps = look.fps or _pace(source)
        self._pace = Pace(self._fps, source.counts)
        self._panes = look.panes or panes_of(source)
        self._drawing = Drawing(self._panes, job.rows)
        self._size = (0, 0)
        self._pictures = 0
        self._remarks: list[str] = []

    def shoot(self, path: Path, told: Callable[[float], object], stopped: Callable[[], bool]) -> Film:
        with ExitStack() as stack:
            encoder = None
            for shown in self._pace.pictures(self._samples()):
                if stopped():
                    raise Stopped
                assert self._pace.origin_us is not None
                picture = self._drawing.picture(shown.sample, shown.time_us, self._pace.origin_us)
                if encoder is None:
                    self._size = picture.shape[1], picture.shape[0]
                    encoder = stack.enter_context(Encoder(path, self._size, self._fps, self._metadata()))
                encoder.add(picture)
                self._pictures += 1
                told(self._share(shown))
        if encoder is None:
            raise _nothing(self._job.recording, self._source.counts)
        return self._film()

    def _samples(self) -> Iterator[Sample]:
        """To the end, or to where it is damaged."""
        seen = False
        try:
            for sample in synchronize(self._source, render=RenderConfig()):
                seen = True
                yield sample
        except StreamError as error:
            if not seen:
                raise
            self._remarks.append(f"it ends early: {error}")

    def _share(self, shown: Shown) -> float:
        span = self._source.span_us
        if span is None or span[1] <= span[0]:
            return 0.0
        return min(max((shown.time_us - span[0]) / (span[1] - span[0]), 0.0), 1.0)

    def _film(self) -> Film:
        assert self._pace.origin_us is not None
        return Film(
            recording=self._job.name,
            source=storable(str(self._job.recording)),
            clock=Clock(self._pace.origin_us, self._fps, self._pictures),
            width=self._size[0],
            height=self._size[1],
            panes=self._panes,
            made_of=self._made_of,
            remarks=(*self._remarks, *losses(self._source.counts)),
        )

    def _metadata(self) -> dict[str, str]:
        """What stands in the file itself, before the number of pictures is known, which it tells anyway."""
        told = as_json(dataclasses.replace(self._film(), remarks=()))
        for unknown in ("pictures", "seconds", "remarks"):
            told.pop(unknown)
        return {"title": self._job.name, "comment": json.dumps(told)}


def _pace(source: Source) -> Fraction:
    return pace_of(RenderConfig().period_us if source.frame_size is None else source.sample_period_us)


def _nothing(recording: Path, counts: Counter[str]) -> RecordingError:
    lost = ", ".join(losses(counts)) or "it is empty"
    return RecordingError(f"{recording}: nothing in it can be shown ({lost}); record or copy it again")


def _digest(rows: Sequence[LabelRow]) -> str:
    told = sorted((row.start_us, row.end_us, row.label, row.confidence or -1.0) for row in rows)
    return hashlib.sha256(repr(told).encode(errors="surrogateescape")).hexdigest()[:16]
