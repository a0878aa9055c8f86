"""A model that labels recordings: several at once, in full batches, while worker processes read ahead.

    with Labeller(settings, jobs=2) as labeller:
        for note in labeller.label_all(recordings): ...      in the order in which they are finished
        note = labeller.label(recording)

A recording that cannot be labelled has a note that says why; what is raised instead concerns all of them: a full disk.
"""

from __future__ import annotations

import argparse
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from app.feed import losses
from app.labelling.alone import Alone
from app.labelling.clerks import Clerks
from app.labelling.engine import Digests, Facts, Headway
from app.labelling.inbox import Inbox
from app.labelling.inputs import Recording
from app.labelling.notes import DONE, FAILED, Note, Place, check_is_its_own, is_done, state_of, write_note
from app.labelling.outputs import Outputs, Written
from app.labelling.reader import Ended, Look, Message, Opened, Seen
from app.labelling.readers import Readers
from app.labelling.settings import Settings
from app.labelling.storage import is_far
from app.model import load_model, render_config, window_stride
from streams import RenderConfig, Sample
from streams.files import GENERAL, in_words
from streams.items import no_events
from streams.together import Lane, Together

_LISTEN_S = 0.2


@dataclass(eq=False)
class _Job:
    """A recording at hand."""

    recording: Recording
    state: dict[str, Any]
    opened: Opened | None = None
    lane: Lane | None = None
    outputs: Outputs | None = None
    stride: int = 0
    slots: deque[int] = field(default_factory=deque)  # of the samples that wait, in order
    samples: int = 0
    events: int = 0
    recorded_us: int = 0
    reached_us: int | None = None
    ended: Ended | None = None
    failure: str = ""


class Labeller:
    """The `Engine` of this process: see there. Leaving it ends its workers."""

    def __init__(self, settings: Settings, jobs: int = 1) -> None:
        """Load the model. Raises ModelError, and ValueError for settings that do not fit."""
        self.settings = settings
        self.recognizer = load_model(argparse.Namespace(**settings.model))
        self.render: RenderConfig = render_config(self.recognizer)
        self.digests = Digests(self.recognizer.digest(), settings.digest(self.recognizer))
        self.recognizer.open(stride=settings.stride or 1, hop=settings.hop)
        self.headway = Headway()
        self._batch = settings.batch_for(self.recognizer)
        slots = max(self._batch, 2 * self._batch // jobs)
        size = self.recognizer.model.tower.backbone.image_size
        self._readers = Readers(jobs, Look(settings.feed, self.render, size, slots, settings.timeout_s))
        self._stopped = threading.Event()
        self.model_s = 0.0  # spent in the model

    def __enter__(self) -> Labeller:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.close()

    def stop(self) -> None:
        """Let `label_all` end soon: what is at hand is dropped, what is finished stays. From any thread."""
        self._stopped.set()

    def label(self, recording: Recording) -> Note:
        """Label one recording."""
        (note,) = self.label_all([recording])
        return note

    def label_all(
        self, recordings: Sequence[Recording] | Inbox, told: Callable[[], object] = lambda: None
    ) -> Iterator[Note]:
        """Label recordings, of an inbox also those that come later: see `Engine`."""
        work = _Work(self)
        inbox = recordings if isinstance(recordings, Inbox) else Inbox(recordings, closed=True)
        try:
            while not self._stopped.is_set() and (inbox.expects or work.is_busy):
                while inbox and work.has_room(len(inbox)):
                    yield from work.begin(inbox.take())
                yield from work.go_on(_LISTEN_S)
                told()
        finally:
            work.drop_all()

    @property
    def facts(self) -> Facts:
        """What the books say of it."""
        recognizer = self.recognizer
        model = {
            "name": recognizer.name,
            "digest": self.digests.model,
            "backbone": recognizer.config.backbone,
            "random_parts": list(recognizer.random_parts),
            "labels": list(recognizer.config.labels),
            "device": str(recognizer.device),
            "dtype": str(recognizer.dtype).removeprefix("torch."),
        }
        return Facts(self.digests, model, self._batch, {"name": "local", "jobs": self._readers.jobs})

    @property
    def readers(self) -> Readers:
        """The workers."""
        return self._readers

    @property
    def batch(self) -> int:
        """Samples in a step."""
        return self._batch

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stopped.is_set()


class _Work:
    """What is at hand in one call of `label_all`."""

    def __init__(self, labeller: Labeller) -> None:
        self._labeller, self._readers, self._settings = labeller, labeller.readers, labeller.settings
        self._recognizer = Alone(labeller.recognizer)
        self._together = Together(self._recognizer, labeller.batch)
        self._clerks, self._puts_far = Clerks(), is_far(self._settings.out)
        self._looked_at = 0  # recordings that a clerk looks at
        self.jobs: dict[Recording, _Job] = {}
        self._by_lane: dict[Lane, _Job] = {}

    @property
    def is_busy(self) -> bool:
        """Whether notes are yet to come."""
        return bool(self.jobs or len(self._clerks))

    def has_room(self, waiting: int) -> bool:
        """Whether one more recording should be begun, of `waiting` ones."""
        return self._looked_at < self._readers.jobs and self._readers.has_room(waiting)

    def begin(self, recording: Recording) -> Iterator[Note]:
        """Let a worker read a recording; a note where it cannot even be looked at."""
        self._looked_at += 1
        self._clerks.do(partial(self._look, recording), self._read, far=self._puts_far or is_far(recording.path))
        yield from self._clerks.done()

    def _look(self, recording: Recording) -> _Job:
        """What a recording is before it is read."""
        job = _Job(recording, {})
        try:
            job.state = state_of(recording.path)
            check_is_its_own(recording, Place(self._settings.out, recording.name))
        except FileNotFoundError:
            job.failure = f"{recording.path}: no such file; check the path"
        except OSError as error:
            job.failure = in_words(error)
        except ValueError as error:
            job.failure = str(error)
        except Exception as error:
            job.failure = self._in_a_storage(error, recording.path)
        return job

    def _in_a_storage(self, error: Exception, path: Path) -> str:
        """What a storage's library says, in whose own kinds of errors: the recording's trouble. Raises any other."""
        if not (self._puts_far or is_far(path)):
            raise error
        return f"{path}: {type(error).__name__}: {error}; the same command tries again"

    def _read(self, job: _Job) -> Iterator[Note]:
        self._looked_at -= 1
        if job.failure:
            self._clerks.do(partial(self._note, job), _alone, far=self._puts_far)
        else:
            self.jobs[job.recording] = job
            self._readers.give(job.recording)
        yield from ()

    def go_on(self, timeout_s: float) -> Iterator[Note]:
        """Take what the workers have read; where they have nothing for a while, no batch waits to be full."""
        heard = False
        yield from self._clerks.done()
        for recording, message in self._readers.messages(timeout_s):
            heard = True
            if self._labeller.is_stopped:
                return
            job = self.jobs[recording]
            self._settle(job, self._take(job, message))
            yield from self._clerks.done()
        if self.jobs and not (heard and self._readers.reading):
            self._settle(None, self._together.flush())
        yield from self._clerks.done()

    def _take(self, job: _Job, message: Message) -> list[tuple[Lane, Sample]]:
        """Do with a message what it asks for; the samples that were recognised meanwhile, of whatever recording."""
        if isinstance(message, Ended):
            job.ended = message
        elif isinstance(message, Opened):
            try:
                self._open(job, message)
            except OSError as error:
                _raise_if_general(error)
                job.failure = in_words(error)
        elif not job.failure:
            assert job.lane is not None
            sample = self._sample(job, message)
            job.slots.append(message.slot)
            return self._together.push(job.lane, sample)
        else:
            self._readers.free(job.recording, [message.slot])
        return []

    def _open(self, job: _Job, opened: Opened) -> None:
        labeller = self._labeller
        job.opened = opened
        job.stride = self._settings.stride or window_stride(labeller.recognizer, opened)
        place = Place(self._settings.out, job.recording.name)
        job.outputs = Outputs(place, self._settings, labeller.digests, labeller.recognizer.config.labels)
        job.lane = self._together.open([job.outputs], stride=job.stride, hop=self._settings.hop)
        self._by_lane[job.lane] = job

    def _sample(self, job: _Job, seen: Seen) -> Sample:
        """A sample whose images are in shared memory, at the model's size."""
        self._count(job, seen)
        rgb, events = self._readers.images(job.recording, seen.slot).transpose(0, 2, 3, 1)  # [2, S, S, 3]
        return Sample(
            index=seen.index,
            t_start_us=seen.t_start_us,
            t_end_us=seen.t_end_us,
            rgb=rgb,
            event_image=events,
            events=no_events(),
            has_rgb=seen.has_rgb,
            has_events=seen.has_events,
            discontinuity=seen.discontinuity,
            decode_ms=seen.decode_ms,
            render_ms=seen.render_ms,
        )

    def _count(self, job: _Job, seen: Seen) -> None:
        since = seen.t_start_us if seen.discontinuity or job.reached_us is None else job.reached_us
        lasted_us = max(0, seen.t_end_us - since)
        job.samples, job.events, job.reached_us = job.samples + 1, job.events + seen.events, seen.t_end_us
        job.recorded_us += lasted_us
        headway = self._labeller.headway
        headway.events, headway.recorded_us = headway.events + seen.events, headway.recorded_us + lasted_us
        span = job.opened.span_us if job.opened else None
        if span and span[1] > span[0]:
            headway.shares[job.recording] = min(max((seen.t_end_us - span[0]) / (span[1] - span[0]), 0.0), 1.0)

    def _settle(self, job: _Job | None, dealt: Sequence[tuple[Lane, Sample]]) -> None:
        """Free what was recognised, and finish the recordings of which nothing is left to do."""
        self._labeller.model_s, self._together.busy_s = self._labeller.model_s + self._together.busy_s, 0.0
        touched = {self._by_lane[lane]: None for lane, _ in dealt} | ({job: None} if job else {})
        slots: dict[_Job, list[int]] = {}
        for lane, _ in dealt:
            own = self._by_lane[lane]
            slots.setdefault(own, []).append(own.slots.popleft())
        for own, free in slots.items():
            self._readers.free(own.recording, free)
        for own in touched:
            if own.lane is not None and (why := self._recognizer.why(own.lane.session)):
                own.failure = own.failure or f"{own.recording.path}: {why}"
            if own.ended is not None and (own.lane is None or own.lane.waiting == 0):
                self._leave(own)
                self._clerks.do(partial(self._finish, own), _alone, far=self._puts_far)

    def _finish(self, job: _Job) -> Note:
        """Put the files of a recording in their places, and write down how it went; in whatever thread."""
        assert job.ended is not None
        written: Written | None = None
        job.failure = job.failure or self._why_failed(job, job.ended)
        assert job.outputs is not None or job.failure
        try:
            written = job.outputs.finish() if job.outputs and not job.failure else None
        except OSError as error:
            _raise_if_general(error)
            job.failure = in_words(error)
        except Exception as error:
            job.failure = self._in_a_storage(error, job.recording.path)
        finally:
            if job.outputs is not None:
                job.outputs.drop()
        return self._note(job, written)

    def _why_failed(self, job: _Job, ended: Ended) -> str:
        """Why there are no labels of it; damage that left some is none."""
        lost = ", ".join(losses(ended.counts))
        if ended.failure and not (ended.damaged and job.outputs is not None and job.outputs.windows):
            return ended.failure
        if not job.samples:
            return f"{job.recording.path}: nothing in it can be read ({lost}); record or copy it again"
        return ""

    def _note(self, job: _Job, written: Written | None = None) -> Note:
        """Write down how it went."""
        place, digests = Place(self._settings.out, job.recording.name), self._labeller.digests
        note = Note(
            recording=job.recording.name,
            source=str(job.recording.path),
            status=DONE if written else FAILED,
            reason=" ".join(job.failure.split()),
            remarks=(*(written.remarks if written else ()), *self._remarks(job, written)),
            state=job.state,
            model=digests.model,
            settings=digests.settings,
            stride=job.stride,
            samples=job.samples,
            windows=written.windows if written else 0,
            spans=written.spans if written else 0,
            events=job.events,
            seconds=round(job.recorded_us / 1e6, 6),
            read_s=round(job.ended.busy_s, 3) if job.ended else 0.0,
            windows_file=self._below(place, written),
            labels_file=place.labels.relative_to(place.out).as_posix() if written else "",
            labels_digest=written.labels_digest if written else "",
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            if written or not is_done(place):  # a failure leaves alone what is there from before
                write_note(place, note)
        except Exception as error:
            if not self._puts_far:
                raise
            return replace(note, status=FAILED, reason=self._in_a_storage(error, job.recording.path))
        return note

    def _below(self, place: Place, written: Written | None) -> str:
        return place.windows(self._settings.format).relative_to(place.out).as_posix() if written else ""

    def _remarks(self, job: _Job, written: Written | None) -> list[str]:
        """What one should know of labels that are there."""
        if written is None or job.ended is None:
            return []
        told = [f"it ends early: {job.ended.failure}"] if job.ended.failure else []
        told += losses(job.ended.counts)
        if job.opened and job.opened.simulated:
            told.append("its events are simulated from its frames")
        if job.opened and job.opened.reconstructed:
            told.append("its frames are made from its events")
        if not written.windows:
            frames = self._labeller.recognizer.config.frames
            needs = f"{frames} frames at stride {job.stride} need {(frames - 1) * job.stride + 1} samples without a gap"
            told.append(f"no window: {needs}, it has {job.samples}")
        return told

    def _leave(self, job: _Job) -> None:
        """Forget a recording of which nothing more is recognised."""
        if job.lane is not None:
            self._together.drop(job.lane)
            self._by_lane.pop(job.lane, None)
        self._readers.forget(job.recording)
        self._labeller.headway.shares.pop(job.recording, None)
        self.jobs.pop(job.recording, None)

    def drop_all(self) -> None:
        """Forget what is not finished."""
        if self.jobs:
            self._readers.close()
        self._clerks.close()
        for job in list(self.jobs.values()):
            if job.outputs is not None:
                job.outputs.drop()
            self._leave(job)


def _alone(note: Note) -> Iterator[Note]:
    yield note


def _raise_if_general(error: OSError) -> None:
    if error.errno in GENERAL:
        raise error
