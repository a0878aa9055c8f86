"""Plays a recording at its own pace: samples come when they are due; it can be paused, stepped, sought and stopped.

player = Player("recordings/cards.aedat4", render=RenderConfig())
run(player, recognizer, sinks=[viewer], policy=LATEST)      # in a thread of its own
player.seek(12_000_000)                                     # from any other
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from streams.items import EVENT_DTYPE, Sample
from streams.render import RenderConfig
from streams.source import DEFAULT_PERIOD_US, JUMP_US, Source, open_source
from streams.synchronize import synchronize

_LATE_S = 0.25  # later than this, time is taken anew rather than caught up in a bunch
_LEAD_MARGIN = 1.5  # of the time that some samples take, since frames do not come evenly
_LEAD_BYTES = 1 << 28  # of the samples that lead to a place; beyond, a window fills as it plays
_FAR = 8  # times the margin, where no sample was found at all
_REMEMBERED = 4096  # samples, to step back to
_BEGINNING = -(1 << 62)
_AS_PAINTED = RenderConfig()


class Player:
    """An iterable of samples, each at its time (`t_end_us`, times `speed`); controls may be called from any thread.

    `speed` None plays as fast as the consumer takes. `lead` is how many samples before a place that is sought are given
    first, marked as such, so that a recogniser's window is full there: (T - 1) times its stride. Indices rise through
    all of it. `render` may be set while it plays. `opened` opens the source, filtered perhaps. Iterating raises
    RecordingError as `open_source` does.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        render: RenderConfig = _AS_PAINTED,
        loop: bool = False,
        speed: float | None = 1.0,
        lead: int = 0,
        opened: Callable[[str | Path], Source] = open_source,
    ) -> None:
        self.uri, self.render, self.loop, self.lead, self._opened = uri, render, loop, lead, opened
        self.counts: Counter[str] = Counter()  # of the pass that plays, or was played last
        self.span_us: tuple[int, int] | None = None  # of the recording, once it plays
        self.position_us: int | None = None  # where the newest sample ends
        self._clock = Clock(_checked(speed))
        self._control = threading.Condition()
        self._paused = self._stopped = False
        self._sought: int | None = None  # where to go on, at once
        self._steps = 0  # samples to show although it is paused
        self._ends: deque[int] = deque(maxlen=_REMEMBERED)  # of the samples up to now
        self._index = 0  # of the next sample
        self._back = 0  # samples to go back that were not gone back yet
        self._period_us = DEFAULT_PERIOD_US

    # --- controls -----------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether it waits for `resume`."""
        return self._paused

    @property
    def speed(self) -> float | None:
        """How many times as fast as it was recorded; None: as fast as the consumer takes."""
        return self._clock.speed

    @speed.setter
    def speed(self, speed: float | None) -> None:
        with self._control:
            self._clock.change(_checked(speed))
            self._control.notify_all()

    def pause(self) -> None:
        """Hold the playback where it is."""
        with self._control:
            self._paused, self._steps = True, 0
            self._control.notify_all()

    def resume(self) -> None:
        """Go on from where it was paused."""
        with self._control:
            self._paused = False
            self._control.notify_all()

    def seek(self, t_us: int) -> None:
        """Go on with the first sample that ends after a time; when paused, show it alone."""
        with self._control:
            self._sought, self._steps = t_us, int(self._paused)
            self._control.notify_all()

    def step(self, count: int = 1) -> None:
        """Pause, and show the sample `count` after the last one, or before it where that is negative."""
        with self._control:
            self._paused = True
            if count > 0:
                self._steps += count
            elif self.position_us is not None:
                self._back += count
                before = sorted({end for end in self._ends if end < self.position_us})
                known = len(before) >= -self._back
                place = before[self._back] if known else self.position_us + self._back * self._period_us
                self._sought, self._steps = place - 1, 1
            self._control.notify_all()

    def restart(self) -> None:
        """Play from the start, also when paused."""
        with self._control:
            self._sought, self._paused = _BEGINNING, False
            self._control.notify_all()

    def stop(self) -> None:
        """End the iteration; it cannot be started again."""
        with self._control:
            self._stopped = True
            self._control.notify_all()

    # --- playing ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Sample]:
        with self._opened(self.uri) as source:
            self.counts, self.span_us, self._period_us = source.counts, source.span_us, source.sample_period_us
            begun_with = Counter(source.counts)
            source.stop_when(self._interrupted)
            while not self._stopped:
                with self._control:
                    sought, self._sought = self._sought, None
                source.counts.clear()
                source.counts.update(begun_with)
                shown = self._index
                yield from self._one_pass(source, sought)
                if self._sought is None and (not self.loop or self._index == shown):
                    return

    def _one_pass(self, source: Source, sought: int | None) -> Iterator[Sample]:
        """From the start or from where it was sought, to the end or to where it is interrupted."""
        self._clock.forget()
        for sample in self._samples(source, sought):
            self._index = sample.index + 1
            if not sample.lead:
                if not self._wait_for(sample):
                    return
                self.position_us, self._back = sample.t_end_us, 0
            self._ends.append(sample.t_end_us)
            yield sample
        with self._control:  # the last sample is shown as long as any
            period_s = 0.0 if self.speed is None else source.sample_period_us / 1e6 / self.speed
            self._control.wait_for(lambda: self._interrupted() or self._paused, timeout=period_s)
            while self._paused and not self._interrupted():
                self._control.wait(timeout=1.0)

    def _samples(self, source: Source, sought: int | None) -> Iterator[Sample]:
        """The samples after a place, those before it that lead there first."""
        if sought is None or source.span_us is None or sought <= source.span_us[0]:
            yield from synchronize(source, render=self._rendering, first_index=self._index)
            return
        sought = min(sought, source.span_us[1])
        margin = round(_LEAD_MARGIN * (self.lead + 2) * source.sample_period_us)
        while True:  # frames may come slower here than elsewhere, or not at all
            from_us, before = sought - margin, _Lead(self.lead + 1)
            samples = synchronize(source, render=self._rendering, from_us=from_us, first_index=self._index)
            sample: Sample | None = None
            for sample in samples:
                if sample.t_end_us > sought:
                    break
                before.append(sample)
            if sample is not None and sample.t_end_us <= sought:  # beyond the end, whose last sample is shown
                before.pop()
            enough = sample is not None and (before.full or len(before) >= self.lead)
            if enough or from_us <= source.span_us[0] or self._interrupted():
                break
            margin *= 2 if sample is not None else _FAR
        if sample is None:
            return
        lead = before.newest(self.lead)
        self._ends.extend(one.t_end_us for one in before)
        for k, one in enumerate([*lead, sample]):
            yield replace(one, lead=k < len(lead), discontinuity=one.discontinuity or k == 0)
        yield from samples

    def _wait_for(self, sample: Sample) -> bool:
        """Wait until a sample is due and may be shown; False where it is not to be shown any more."""
        with self._control:
            if sample.discontinuity:
                self._clock.forget()
            while not self._interrupted():
                if self._paused and not self._steps:
                    self._control.wait(timeout=1.0)
                    self._clock.forget()
                    continue
                if self._paused:
                    self._steps -= 1
                    return True
                if (seconds := self._clock.until(sample.t_end_us)) <= 0:
                    return True
                self._control.wait(timeout=seconds)
            return False

    def _rendering(self) -> RenderConfig:
        return self.render

    def _interrupted(self) -> bool:
        return self._stopped or self._sought is not None


class _Lead(deque[Sample]):
    """The newest samples, no more than `most`, nor of more than _LEAD_BYTES."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._bytes = most, 0
        self.full = False  # whether some were too much

    def append(self, sample: Sample) -> None:
        super().append(sample)
        self._bytes += _bytes_of(sample)
        while len(self) > self._most or (self._bytes > _LEAD_BYTES and len(self) > 1):
            self._bytes -= _bytes_of(self.popleft())
            self.full = True

    def newest(self, count: int) -> list[Sample]:
        """The last ones."""
        return list(self)[max(0, len(self) - count) :]


def _bytes_of(sample: Sample) -> int:
    return sample.rgb.nbytes + sample.event_image.nbytes + sample.event_count * EVENT_DTYPE.itemsize


def _checked(speed: float | None) -> float | None:
    if speed is not None and speed <= 0:
        raise ValueError(f"speed must be positive, not {speed}")
    return speed


class Clock:
    """Which wall time belongs to which time of the recording."""

    def __init__(self, speed: float | None) -> None:
        self.speed = speed
        self._known: tuple[float, int] | None = None  # a wall time, and the time of the recording then

    def forget(self) -> None:
        """What comes next is due at once."""
        self._known = None

    def change(self, speed: float | None) -> None:
        """Play at another speed from now on."""
        if self.speed is None:
            self._known = None
        if self._known is not None and self.speed is not None:
            wall, t_us = self._known
            now = time.monotonic()
            self._known = now, t_us + round((now - wall) * 1e6 * self.speed)
        self.speed = speed

    def until(self, t_us: int) -> float:
        """Seconds until a time of the recording; after `forget`, or far too late, it is now."""
        if self.speed is None:
            return 0.0
        now = time.monotonic()
        wall, known_us = self._known or (now, t_us)
        seconds = wall + (t_us - known_us) / 1e6 / self.speed - now
        if self._known is None or seconds < -_LATE_S:
            self._known, seconds = (now, t_us), 0.0
        return min(seconds, 2 * JUMP_US / 1e6 / self.speed)  # no damaged time makes it wait on
