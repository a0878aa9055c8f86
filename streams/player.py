"""Plays a recording at its own pace: samples come when they are due, and can be paused, restarted and stopped.

player = Player("recordings/cards.aedat4", render=RenderConfig())
run(player, recognizer, sinks=[viewer], policy=LATEST)      # in a thread of its own
player.pause()                                              # from any other
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from streams.items import Sample
from streams.render import RenderConfig
from streams.source import JUMP_US, open_source
from streams.synchronize import synchronize

_LATE_S = 0.25  # later than this, time is taken anew rather than caught up in a bunch


class Player:
    """An iterable of samples, each at its time (`t_end_us`, times `speed`); controls may be called from any thread.

    `speed` None plays as fast as the consumer takes. Iterating raises RecordingError as `open_source` does.
    """

    def __init__(
        self, uri: str | Path, *, render: RenderConfig | None = None, loop: bool = False, speed: float | None = 1.0
    ) -> None:
        if speed is not None and speed <= 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.uri, self.render, self.loop, self.speed = uri, render, loop, speed
        self.counts: Counter[str] = Counter()  # of the pass that plays, or was played last
        self._control = threading.Condition()
        self._paused = self._stopped = self._again = False

    @property
    def paused(self) -> bool:
        """Whether it waits for `resume`."""
        return self._paused

    def pause(self) -> None:
        """Hold the playback where it is."""
        self._set(paused=True)

    def resume(self) -> None:
        """Go on from where it was paused."""
        self._set(paused=False)

    def restart(self) -> None:
        """Play from the start, also when paused."""
        with self._control:
            self._again, self._paused = True, False
            self._control.notify_all()

    def stop(self) -> None:
        """End the iteration; it cannot be started again."""
        with self._control:
            self._stopped = True
            self._control.notify_all()

    def _set(self, *, paused: bool) -> None:
        with self._control:
            self._paused = paused
            self._control.notify_all()

    def __iter__(self) -> Iterator[Sample]:
        while True:
            shown = 0
            for sample in self._one_pass():
                shown += 1
                yield sample
            with self._control:
                again, self._again = self._again or (self.loop and shown > 0), False
                if self._stopped or not again:
                    return

    def _one_pass(self) -> Iterator[Sample]:
        with open_source(self.uri) as source:
            self.counts = source.counts
            clock = _Clock()
            for sample in synchronize(source, render=self.render):
                if not self._wait_until(clock, sample):
                    return
                yield sample
            self._wait(source.sample_period_us / 1e6 / (self.speed or 1))  # the last sample is shown as long as any

    def _wait_until(self, clock: _Clock, sample: Sample) -> bool:
        """Wait until a sample is due and the playback is not paused; False where it is not to be shown any more."""
        if self.speed is not None:
            self._wait(clock.until(sample, self.speed))
        with self._control:
            held = time.monotonic()
            while self._paused and not self._interrupted():
                self._control.wait(timeout=1.0)
            clock.shift(time.monotonic() - held)
            return not self._interrupted()

    def _wait(self, seconds: float) -> None:
        if self.speed is None or seconds <= 0:
            return
        with self._control:
            self._control.wait_for(lambda: self._interrupted() or self._paused, timeout=seconds)

    def _interrupted(self) -> bool:
        return self._stopped or self._again


class _Clock:
    """Which wall time belongs to which time of the recording."""

    def __init__(self) -> None:
        self._origin: float | None = None  # wall time of the recording's time 0 at the speed in force

    def until(self, sample: Sample, speed: float) -> float:
        """Seconds until a sample is due; the first is due at once, and one that is far too late makes the time anew."""
        now, offset = time.monotonic(), sample.t_end_us / 1e6 / speed
        if self._origin is None or sample.discontinuity or now - (self._origin + offset) > _LATE_S:
            self._origin = now - offset
        self._origin = min(self._origin, now - offset + 2 * JUMP_US / 1e6 / speed)  # no damaged time makes it wait on
        return self._origin + offset - now

    def shift(self, seconds: float) -> None:
        """The playback stood still for so long."""
        if self._origin is not None:
            self._origin += seconds
