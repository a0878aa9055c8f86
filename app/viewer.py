"""One viewer of the page: a recording or a live source through the recogniser; the newest picture and labels of it.

    viewer = Viewer(path, recognizer)
    frame = await viewer.frame_after(number, timeout_s=0.4)      # from the web server; None: nothing newer
    viewer.pause()                                               # from any thread, as all controls
    viewer.close()

Its thread decodes, encodes pictures and feeds the recogniser; the web server only takes what is newest.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.feeds import Feed, Feeds
from app.meters import LabelLatency, Rate
from app.model import render_config, window_stride
from app.recorder import new_file
from app.strip import Panes, encode_strip
from streams import LATEST, Player, RenderConfig, RunSummary, Sample, Sink, Source, StreamError, open_source, run
from streams.clock import Delay
from streams.live import Follower
from streams.record import Recorded
from streams.source import kind_of

if TYPE_CHECKING:
    from velora import Prediction, Recognizer

_CLOSE_TIMEOUT_S = 1  # who is still opening a source then is left to the end of the process
_MAX_MESSAGE = 300
# One count for all viewers: a tab that opens another recording goes on asking for what is newer than its last picture.
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Frame:
    """What the page shows of one sample."""

    number: int  # rising, also from one viewer to the next
    jpeg: bytes  # the strip of panes
    pane_widths: tuple[int, ...]  # pixels
    t_start_us: int
    t_end_us: int


class Slot:
    """Holds the newest frame, and wakes the coroutines that wait for one. Frames are put from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self.frame: Frame | None = None

    def put(self, frame: Frame) -> None:
        """Replace the frame."""
        self.frame = frame
        self.wake()

    def wake(self) -> None:
        """Let all who wait return, with a newer frame or without."""
        with self._lock:
            waiters, self._waiters = self._waiters, {}
        for event, loop in waiters.items():
            with suppress(RuntimeError):  # its server has stopped
                loop.call_soon_threadsafe(event.set)

    async def after(self, number: int, timeout_s: float) -> Frame | None:
        """The newest frame if it is newer than `number`, else wait for one; None after the timeout or a wake."""
        event = asyncio.Event()
        with self._lock:
            self._waiters[event] = asyncio.get_running_loop()
        if self._newer(number) is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout_s)
        with self._lock:
            self._waiters.pop(event, None)
        return self._newer(number)

    def _newer(self, number: int) -> Frame | None:
        frame = self.frame
        return frame if frame is not None and frame.number > number else None


class Viewer(Sink):
    """Plays `recording` in a loop, or follows a live source, in a thread of its own, until `close`.

    `stride` None is derived: the recogniser's sample period in samples of the source; `opened` opens it; a live one is
    of `feeds`, which other viewers follow too, and can be recorded to the folder `record_to`. What goes wrong ends the
    thread and is told by `state`; nothing is raised.
    """

    def __init__(
        self,
        recording: Path | str,
        recognizer: Recognizer,
        *,
        stride: int | None = None,
        max_lag_ms: float | None = None,
        record_to: Path | None = None,
        opened: Callable[[Path | str], Source] = open_source,
        feeds: Feeds | None = None,
    ) -> None:
        self.recording, self.recognizer, self._opened = recording, recognizer, opened
        self.name = recording.name if isinstance(recording, Path) else recording
        self._stride, self._max_lag_ms, self._record_to = stride, max_lag_ms, record_to
        self._player = Player(recording, render=render_config(recognizer), loop=True, opened=opened)
        self._feeds = feeds or Feeds(opened, self._player.render or RenderConfig())
        self._feed: Feed | None = None  # what is live
        self._follower: Follower | None = None
        self._mine: Recorded | None = None  # the recording that was begun here, to which our labels belong
        self._frozen = False  # a live picture is held
        self._summary, self._slot, self._panes = RunSummary(), Slot(), Panes()
        self._source_rate, self._shown_rate, self._label_rate = Rate(), Rate(), Rate()
        self._latency, self._delay = LabelLatency(), Delay()
        self._late_ms: float | None = None  # how much later than at best the newest sample of a live feed came
        self._top: tuple[tuple[str, float], ...] = ()
        self._stale = True  # no label since the stream began or jumped
        self._unsure = False  # the newest label is not to be relied on
        self._began_at = self._newest = 0
        self._start_us: int | None = None  # of a live feed: where we joined it
        self._message, self._failed, self._closed = "", False, False
        self._done = False  # the message is good news
        self._simulated = self._reconstructed = False  # the events, the frames
        self._thread = threading.Thread(target=self._play, name=f"viewer of {self.name}", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Hold the picture; a live feed goes on behind it."""
        self._player.pause()
        self._frozen = True
        self.say("")

    def resume(self) -> None:
        """Go on."""
        self._player.resume()
        self._frozen = False
        self.say("")

    def restart(self) -> None:
        """Play from the start, also when paused."""
        self._player.restart()
        self._frozen = False
        self.say("")

    def record(self) -> None:
        """Record a live feed to a new file from now on, or end that, whoever began it."""
        if self._feed is None or self._record_to is None:
            return
        if self._feed.recorder.under_way:
            recorded, lines = self._feed.recorder.under_way, self._feed.recorder.stop()
            whole = len(lines) == 1 and recorded is not None and not recorded.failure
            self.say(" · ".join(lines), done=whole)
            return
        self.say("")
        try:
            self._feed.recorder.start(new_file(self._record_to, self.name))
            self._mine = self._feed.recorder.under_way
        except (StreamError, OSError) as error:
            self.say(one_line(error, self._record_to))

    @property
    def playing(self) -> bool:
        """Neither paused nor ended."""
        return not self._player.paused and not self._failed

    def say(self, message: str, *, done: bool = False) -> None:
        """Show one line on the page until the next control is used; the line of a failure stays.

        `done` is good news, which is not shown as a warning.
        """
        if not self._failed:
            self._message, self._done = message, done
        self._slot.wake()

    def stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._closed = True
        self._player.stop()
        if self._follower is not None:
            self._follower.stop()
        self._slot.wake()

    def close(self) -> None:
        """Stop and join the thread. Closing twice does nothing."""
        self.stop()
        self._thread.join(_CLOSE_TIMEOUT_S)

    async def frame_after(self, number: int, timeout_s: float) -> Frame | None:
        """The newest frame after `number`; None if none came in time, or the state changed without one."""
        frame = await self._slot.after(number, timeout_s)
        if frame is not None:
            self._shown_rate.count()
        return frame

    def state(self) -> dict[str, Any]:
        """What the page tells beside the picture: labels, rates, latency, and a message where something went wrong."""
        frame, latency_ms = self._slot.frame, self._latency.median_ms()
        return {
            "recording": self.name,
            "playing": self.playing,
            "simulated": self._simulated,
            "reconstructed": self._reconstructed,
            "can_record": self._feed is not None and self._record_to is not None,
            "recorded": self._recorded(),
            "live": self._feed is not None,
            "done": self._done and bool(self._message),
            "message": self._message or (self._feed.source.warning if self._feed else ""),
            "labels": [(label, round(p, 4)) for label, p in self._top],
            "stale": self._stale,
            "unsure": self._unsure,
            "position_s": round((frame.t_end_us - self._origin_us) / 1e6, 2) if frame else 0.0,
            "panes": frame.pane_widths if frame else (),
            "source_fps": round(self._source_rate.per_second(), 1),
            "late_ms": None if self._late_ms is None else round(self._late_ms, 1),
            "shown_fps": round(self._shown_rate.per_second(), 1),
            "label_ms": None if latency_ms is None else round(latency_ms, 1),
            "labels_per_s": round(self._label_rate.per_second(), 1),
            "dropped": self._summary.dropped,
            "stride": self._stride_in_force,
            "every": self._summary.every,
        }

    def on_sample(self, sample: Sample) -> None:
        """Encode the sample's picture. Called by `run`."""
        self._source_rate.count()
        self._latency.released(sample.index)
        self._late_ms = self._delay.of(sample)
        if self._start_us is None:
            self._start_us = sample.t_start_us
        self._stale = self._stale or sample.discontinuity
        self._began_at = sample.index if sample.discontinuity else self._began_at
        self._newest = sample.index
        if self._frozen and self._feed is not None:
            return
        panes = self._panes.of(sample, self._stride_in_force)
        widths = tuple(pane.shape[1] for pane in panes)
        self._slot.put(Frame(next(_numbers), encode_strip(panes), widths, sample.t_start_us, sample.t_end_us))

    def on_prediction(self, prediction: Prediction) -> None:
        """Keep the labels. Called by `run`."""
        self._label_rate.count()
        if self._feed is not None and self._mine is not None and self._feed.recorder.under_way is self._mine:
            self._feed.recorder.on_prediction(prediction)
        self._latency.labelled(prediction.index)
        if not self._began_at <= prediction.index <= self._newest:
            return  # of what was played before a restart or a gap
        self._top, self._stale, self._unsure = prediction.topk[:5], False, prediction.unsure

    @property
    def _origin_us(self) -> int:
        """What the time shown counts from."""
        return self._player.span_us[0] if self._player.span_us is not None else self._start_us or 0

    @property
    def _stride_in_force(self) -> int:
        return max(self._stride or 1, self._summary.every)

    def _play(self) -> None:
        try:
            if isinstance(self.recording, str) and kind_of(self.recording).live:
                self._follow(self.recording)
            else:
                with self._opened(self.recording) as source:
                    stride = self._learn(source)
                self._player.lead = (self.recognizer.config.frames - 1) * stride
                self._run(self._player, stride)
            if not self._closed:
                self._fail(f"{self.name}: holds nothing to show; choose another recording")
        except Exception as error:
            self._fail(one_line(error, self.recording))

    def _learn(self, source: Source) -> int:
        """What has to be known of a source; its stride."""
        self._simulated, self._reconstructed = source.simulated, source.reconstructed
        self._stride = self._stride or window_stride(self.recognizer, source)
        return self._stride

    def _follow(self, address: str) -> None:
        feed = self._feeds.join(address)
        try:
            stride = self._learn(feed.source)
            self._follower, self._feed = feed.live.follow(), feed
            self._run(self._follower, stride)
        finally:
            if self._mine is not None and feed.recorder.under_way is self._mine:
                feed.recorder.stop()
            self._feeds.leave(address, feed)

    def _recorded(self) -> dict[str, Any] | None:
        """How the recording goes that is under way."""
        recorded = self._feed.recorder.under_way if self._feed is not None else None
        if recorded is None:
            return None
        return {"seconds": int(recorded.seconds), "mb": round(recorded.size / 1e6, 1), "failure": recorded.failure}

    def _run(self, samples: Player | Follower, stride: int) -> None:
        if self._closed:
            return
        run(
            samples,
            self.recognizer,
            sinks=[self],
            policy=LATEST,
            stride=stride,
            summary=self._summary,
            max_lag_ms=self._max_lag_ms,
        )

    def _fail(self, message: str) -> None:
        self._message, self._done, self._failed = message, False, True
        self._slot.wake()


def one_line(error: Exception, recording: Path | str) -> str:
    """An error as one line of bounded length, that calls the recording by its name alone."""
    text = " ".join(str(error).replace(str(recording), Path(recording).name).split()) or type(error).__name__
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"
