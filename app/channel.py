"""One source through the recogniser, for all tabs that watch it: the newest moment, its labels, and how it goes.

    channel = Channel(path, recognizer, SharedStep())   # a recording plays in a loop; a live source is followed
    channel.watch(wake)                                 # what is called for each moment
    channel.use(another)                                # from any thread, as all controls
    channel.close()

Its thread decodes and feeds the recogniser; pictures are made by those who ask for one.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.meters import LabelLatency, Meters
from app.model import render_config, window_stride
from app.predictions import Predictions
from app.recorder import Recorder, new_file
from app.shared_step import SharedStep, Switch
from app.strip import Moment, Past
from app.timeline import Timeline
from streams import LATEST, Live, Player, RunSummary, Sample, Sink, Source, StreamError, open_source, run
from streams.clock import Delay
from streams.filters import Denoised
from streams.packet_cache import PacketCache
from streams.record import Recorded, Tee
from streams.run import Pace
from streams.source import kind_of
from streams.spans import Steady
from streams.text import on_one_line

if TYPE_CHECKING:
    from velora import Prediction, Recognizer

_CLOSE_TIMEOUT_S = 1  # who is still opening a source then is left to the end of the process
_MAX_MESSAGE = 300
SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
# One count for all channels: a tab that opens another recording goes on asking for what is newer than its last picture.
_numbers = itertools.count(1)
_channels = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How sources are opened and recognised."""

    opened: Callable[[Path | str], Source] = open_source
    stride: int | None = None  # None: the recogniser's sample period in samples of the source
    denoise: bool = False
    max_lag_ms: float | None = None
    record_to: Path | None = None  # where live feeds may be recorded


class Channel(Sink):
    """Plays or follows `address` in a thread of its own until `close`.

    A recording's packets that `cache` holds are not decoded again. What goes wrong ends it and is told by `failure`;
    nothing is raised.
    """

    def __init__(
        self,
        address: Path | str,
        recognizer: Recognizer,
        shared: SharedStep,
        settings: Settings | None = None,
        cache: PacketCache | None = None,
    ) -> None:
        self.number = next(_channels)
        self.address, self._settings, self._cache = address, settings or Settings(), cache
        self.is_live = _is_live(address)
        self._wanted_stride = self._settings.stride
        self.name = address.name if isinstance(address, Path) else address
        self.switch, self.summary, self.meters = Switch(recognizer, shared), RunSummary(), Meters()
        self.moment: Moment | None = None
        self.prediction: Prediction | None = None  # the newest
        self.steady = Steady()
        self.stale = True  # no label since the stream began or jumped
        self.timeline: Timeline | None = None
        self.predictions = Predictions()
        self.failure = ""
        self.source: Source | None = None  # once it is open
        self.player: Player | None = None  # of a recording
        self._live: Live | None = None
        self._recorder: Recorder | None = None
        self._denoised: Denoised | None = None
        self._denoise = self._settings.denoise
        self._pace = Pace(1)
        self._past, self._delay = Past(), Delay()
        self._began_at = self._newest = 0
        self._closed = False
        self._watchers: list[Callable[[], None]] = []
        self._operators: list[Callable[[], None]] = []  # those of them who may decide
        self._lock = threading.Lock()
        if not self.is_live:
            self.player = Player(address, render=render_config(recognizer), loop=True, opened=self._open)
        self._thread = threading.Thread(target=self._work, name=f"viewer of {self.name}", daemon=True)
        self._thread.start()

    # --- who watches --------------------------------------------------------------------------------------------------

    def watch(self, wake: Callable[[], None], *, operator: bool = True) -> None:
        """Call `wake` from now on, from any thread, whenever there is something new."""
        with self._lock:
            self._watchers.append(wake)
            if operator:
                self._operators.append(wake)

    @property
    def owner(self) -> Callable[[], None] | None:
        """Of the operators who watch, or else of all, who has watched for longest."""
        with self._lock:
            return next(iter(self._operators or self._watchers), None)

    def leave(self, wake: Callable[[], None]) -> int:
        """Call it no more; how many still watch."""
        with self._lock:
            for watchers in (self._watchers, self._operators):
                if wake in watchers:
                    watchers.remove(wake)
            return len(self._watchers)

    def wake(self) -> None:
        """Tell all who watch."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    # --- controls -----------------------------------------------------------------------------------------------------

    @property
    def recognizer(self) -> Recognizer:
        """The one in use."""
        return self.switch.recognizer

    def use(self, recognizer: Recognizer) -> None:
        """Go on with another recogniser, at once where its backbone is the same."""
        render = render_config(recognizer)  # raises before anything has changed
        self.switch.use(recognizer)
        if self.player is not None:
            self.player.render = render
        if self._live is not None:
            self._live.render = render
        self.steady, self.meters.label = Steady(), LabelLatency()
        self.prediction, self.stale = None, True
        if self.timeline is not None:
            self.timeline.forget_labels()
        self.set_stride(self._wanted_stride)
        if self.player is not None and self.player.paused and self.player.position_us is not None:
            self.player.seek(self.player.position_us - 1)  # so that what is shown has a label of this one

    def set_stride(self, stride: int | None) -> None:
        """Samples from one of a window to the next; None: as the recogniser was trained."""
        self._wanted_stride = stride
        if self.source is not None:
            stride = stride or window_stride(self.recognizer, self.source)
            self._pace.most = self._longest_stride(self.source)
            self._pace.rebase(stride)
            self.summary.every = stride
            if self.player is not None:
                self.player.lead = (self.recognizer.config.frames - 1) * stride

    def _longest_stride(self, source: Source) -> int:
        """At which a window fits into a recording, which plays again and again."""
        if self.player is None or source.span_us is None:
            return Pace.MOST
        start_us, end_us = source.span_us
        samples = (end_us - start_us) // max(1, source.sample_period_us)
        return min(Pace.MOST, (samples - 1) // max(1, self.recognizer.config.frames - 1))

    @property
    def wanted_stride(self) -> int | None:
        """What was asked for; None: as the recogniser was trained."""
        return self._wanted_stride

    @property
    def base_stride(self) -> int:
        """What that is in samples of the source."""
        return self._pace.base

    @property
    def stride(self) -> int:
        """In force."""
        return max(self._pace.base, self.summary.every)

    @property
    def denoise(self) -> bool:
        """Whether noise is taken out of the events."""
        return self._denoise

    @denoise.setter
    def denoise(self, on: bool) -> None:
        self._denoise = on
        if self._denoised is not None:
            self._denoised.on = on

    def start_recording(self) -> None:
        """To a new file. Raises ValueError where it may not be; RecordingError and OSError where it cannot be."""
        if self._recorder is None or self._settings.record_to is None:
            raise ValueError("only live sources are recorded, where the program was told to: see --record-to")
        self._start(self._recorder, new_file(self._settings.record_to, self.name), labels=True)

    def start_clip(self, path: Path) -> None:
        """Record to this file, without labels. Raises as `start_recording`."""
        if self._recorder is None:
            raise ValueError("only live sources are recorded: mark a span of a recording instead")
        self._start(self._recorder, path, labels=False)

    def _start(self, recorder: Recorder, path: Path, *, labels: bool) -> None:
        if self.ended:
            raise ValueError("the source has ended: open it again first")
        if recorder.under_way is not None:
            raise ValueError("it is being recorded already: end that first")
        recorder.start(path, labels=labels)

    def stop_recording(self) -> tuple[str, bool]:
        """A line on what was recorded, and whether all is well; nothing where nothing is recorded."""
        if self._recorder is None:
            return "", True
        recorded, lines = self._recorder.under_way, self._recorder.stop()
        whole = recorded is not None and not self._recorder.failed
        return " · ".join(lines), whole

    @property
    def counts(self) -> Counter[str]:
        """What was lost on the way, by reason."""
        if self.player is not None:
            return self.player.counts
        return self.source.counts if self.source is not None else Counter()

    @property
    def can_record(self) -> bool:
        """Whether there is something to record, and somewhere to."""
        return self._recorder is not None and self._settings.record_to is not None and not self.ended

    @property
    def recorded(self) -> Recorded | None:
        """The recording that goes on."""
        return self._recorder.under_way if self._recorder is not None else None

    def stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._closed = True
        if self.player is not None:
            self.player.stop()
        if self._live is not None:
            self._live.stop()
        self.wake()

    def end(self) -> None:
        """Stop and join the thread; what is recorded may still be written."""
        self.stop()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def close(self) -> None:
        """End, and finish what is recorded; on the terminal, since nobody is left to be told. Twice does nothing."""
        self.end()
        if self._recorder is not None:
            self._finish(self._recorder)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._closed or bool(self.failure)

    # --- what flows through -------------------------------------------------------------------------------------------

    def on_sample(self, sample: Sample) -> None:
        """Show it. Called by `run`."""
        self.meters.source.count()
        self.meters.label.released(sample.index)
        if (late_ms := self._delay.of(sample)) is not None:
            self.meters.arrival.add(late_ms)
        if self.timeline is None or self._began_anew(sample):
            if self.timeline is not None:
                self.number = next(_channels)  # so that pages begin theirs anew, too
            self.timeline = Timeline(self.player.span_us if self.player is not None else None, sample.t_start_us)
        self.timeline.add_sample(sample)
        self.stale = self.stale or sample.discontinuity
        self._began_at = sample.index if sample.discontinuity else self._began_at
        self._newest = sample.index
        before = self._past.before(sample, self.stride)
        self.moment = Moment(next(_numbers), sample, before, time.monotonic())
        self.wake()

    def _began_anew(self, sample: Sample) -> bool:
        """Whether the clock of a live source did."""
        timeline = self.timeline
        return self.player is None and sample.discontinuity and timeline is not None and not timeline.holds(sample)

    def on_prediction(self, prediction: Prediction) -> None:
        """Keep the labels. Called by `run`."""
        self.meters.labels.count()
        if self._recorder is not None:
            self._recorder.on_prediction(prediction)
        self.meters.label.labelled(prediction.index)
        if not self._began_at <= prediction.index <= self._newest:
            return  # of what was played before a restart or a gap
        if prediction.model != self.recognizer.name or prediction.label not in self.recognizer.config.labels:
            return  # of the model before this one
        if self.stale:
            self.steady.clear()
        self.steady.push(prediction.label, prediction.confidence, prediction.unsure)
        self.prediction, self.stale = prediction, False
        self.predictions.add(prediction)
        if self.timeline is not None:
            self.timeline.add_prediction(prediction)

    # --- its thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            if self.player is not None:
                with self._open(self.address) as source:  # to learn its stride
                    self._learn(source)
                self._run(self.player)
            else:
                self._follow()
            if not self._closed:
                self._fail(f"{self.name}: holds nothing to show; choose another recording")
        except Exception as error:
            self._fail(one_line(error, self.address))

    def _open(self, address: Path | str) -> Source:
        source = self._settings.opened(address)
        if self._cache is not None:
            source.share(self._cache)
        if source.event_size is None:
            return source
        self._denoised = Denoised(source, on=self._denoise)
        return self._denoised

    def _learn(self, source: Source) -> None:
        self.source = source
        self.set_stride(self._wanted_stride)

    def _follow(self) -> None:
        tee = Tee(self._open(self.address))
        recorder, live = Recorder(tee), Live(tee, render=render_config(self.recognizer))
        try:
            self._learn(tee)
            self._recorder, self._live = recorder, live
            if not self._closed:
                self._run(live)
        finally:
            self._finish(recorder)
            live.stop()

    def _finish(self, recorder: Recorder) -> None:
        """End a recording that nobody has ended; examples are not kept then."""
        recorded, lines = recorder.under_way, recorder.stop()
        if recorded is not None and recorded.path.parent == self._settings.record_to:
            print(*(f"velora: {line}" for line in lines), sep="\n", file=sys.stderr, flush=True)

    def _run(self, samples: Player | Live) -> None:
        if self._closed:
            return
        run(
            samples,
            self.switch,
            sinks=[self],
            policy=LATEST,
            stride=self._pace.base,
            summary=self.summary,
            max_lag_ms=self._settings.max_lag_ms,
            pace=self._pace,
        )

    def _fail(self, message: str) -> None:
        self.failure = message
        self.wake()


def _is_live(address: Path | str) -> bool:
    """Told by the address alone; what cannot be opened is no live source, and says so when it plays."""
    try:
        return isinstance(address, str) and kind_of(address).live
    except StreamError:
        return False


def one_line(error: Exception, recording: Path | str) -> str:
    """An error as one line of bounded length, that calls the recording by its name alone."""
    text = str(error).replace(str(recording), Path(recording).name)
    return on_one_line(text, _MAX_MESSAGE) or type(error).__name__
