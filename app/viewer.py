"""One tab of the page: which channel it watches, whether it holds its picture, and what it is told.

viewer = Viewer(channels, path, recognizer)
moment = await viewer.moment_after(number, timeout_s=0.4)    # from the web server; None: nothing newer
viewer.pause()                                               # from any thread, as all controls
viewer.close()
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.channel import Channel
from app.channels import Channels
from app.health import Health
from app.meters import Latency, Rate, memory_mb
from app.predictions import Predictions
from app.setup import Setup
from app.slot import Waiters
from app.strip import Moment

if TYPE_CHECKING:
    from velora import Prediction, Recognizer

_SENT = 32  # moments on their way to the screen


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture, and what is said of it."""

    moment: Moment | None
    prediction: Prediction | None
    label: str | None  # the steady one
    stale: bool


class Viewer:
    """Watches `address`. A live source is shared with other viewers; who opened it decides how it is read."""

    def __init__(
        self, channels: Channels, address: Path | str, recognizer: Recognizer, *, operator: bool = True
    ) -> None:
        self._channels, self._waiters = channels, Waiters()
        self._held: Shown | None = None  # while a live feed goes on
        self._message, self._done = "", False  # one line, and whether it is good news
        self._shown, self._paint = Rate(), Latency()
        self._sent: OrderedDict[int, float] = OrderedDict()  # numbers of moments to when they were there
        self.earlier: list[tuple[str, Predictions]] = []  # of what the same tab watched before, by its name
        self.health = Health()
        self.setup = Setup()  # what it may choose from
        self.address = address
        self.channel = channels.join(address, recognizer, self._waiters.wake, operator=operator)

    # --- controls -----------------------------------------------------------------------------------------------------

    @property
    def playing(self) -> bool:
        """Neither paused nor ended."""
        player = self.channel.player
        paused = player.paused if player is not None else self._held is not None
        return not paused and not self.channel.failure

    def pause(self) -> None:
        """Hold the picture; a live feed goes on behind it."""
        self.say("")
        if self.channel.player is not None:
            self.channel.player.pause()
        else:
            self._held = self._now()

    def resume(self) -> None:
        """Go on."""
        self._held = None
        if self.channel.player is not None:
            self.channel.player.resume()
        self.say("")

    @property
    def decides(self) -> bool:
        """Whether this viewer, of the operators who watch the channel, has watched it for longest."""
        return self.channel.owner == self._waiters.wake

    def decide(self) -> Channel:
        """The channel, to change how it is read. Raises ValueError where that is another viewer's."""
        if not self.decides:
            raise ValueError("another tab opened this live source: it decides on model, stride, noise and recording")
        return self.channel

    def say(self, message: str, *, done: bool = False) -> None:
        """Show one line on the page until the next control is used. `done` is good news, which is no warning."""
        self._message, self._done = message, done
        self._waiters.wake()

    def record(self) -> str:
        """Record a live feed to a new file from now on, or end that: a line on it then.

        Raises ValueError where not all is well, and as `Channel.start_recording`.
        """
        channel = self.decide()
        if channel.recorded is None:
            channel.start_recording()
            self.say("")
            return ""
        line, well = channel.stop_recording()
        if not well:
            raise ValueError(line)
        return line

    def close(self) -> None:
        """Leave the channel. Closing twice does nothing."""
        self._channels.leave(self.channel, self._waiters.wake)
        self._waiters.wake()

    # --- what is shown ------------------------------------------------------------------------------------------------

    def predictions(self) -> list[tuple[str, Predictions]]:
        """All of the tab's, by the name of what it watched, in that order."""
        return [*self.earlier, (self.channel.name, self.channel.predictions)]

    async def moment_after(self, number: int, timeout_s: float) -> Moment | None:
        """The newest moment after `number`; None if none came in time, or the state changed without one."""
        moment = await self._waiters.wait_for(lambda: self._newer(number), timeout_s)
        if moment is not None:
            self._shown.count()
            if number:  # else it is shown again, otherwise
                self._sent[moment.number] = moment.shown_at
                while len(self._sent) > _SENT:
                    self._sent.popitem(last=False)
        return moment

    @property
    def shown(self) -> Shown:
        """What is on the screen, or about to be."""
        return self._held or self._now()

    @property
    def moment(self) -> Moment | None:
        """The picture on it."""
        return self.shown.moment

    def _now(self) -> Shown:
        channel = self.channel
        return Shown(channel.moment, channel.prediction, channel.steady.shown, channel.stale)

    def painted(self, number: int, ago_ms: float) -> None:
        """The browser has painted a moment so long ago."""
        shown_at = self._sent.pop(number, None)
        if shown_at is not None:
            self._paint.add(max(0.0, (time.monotonic() - shown_at) * 1e3 - ago_ms))

    def state(self) -> dict[str, Any]:
        """What the page tells beside the picture: labels, rates, latency, and a message where something went wrong."""
        channel, shown = self.channel, self.shown
        moment, prediction = shown.moment, shown.prediction
        source, player = channel.source, channel.player
        recorded, timeline = channel.recorded, channel.timeline
        failure = channel.failure or (recorded.failure if recorded else "")
        figures = self.figures()
        return {
            "recording": channel.name,
            "playing": self.playing,
            "live": channel.is_live,
            "decides": self.decides,
            "speed": player.speed if player is not None else 1.0,
            "loop": player.loop if player is not None else False,
            "denoise": channel.denoise,
            "simulated": source is not None and source.simulated,
            "reconstructed": source is not None and source.reconstructed,
            "windowed": moment is not None and moment.sample.windowed,
            "can_record": channel.can_record,
            "recorded": recorded and {"seconds": int(recorded.seconds), "mb": round(recorded.size / 1e6, 1)},
            "message": failure or self._message,
            "failed": bool(channel.failure),
            "done": self._done and bool(self._message) and not failure,
            "label": shown.label,
            "asked_stride": channel.wanted_stride,
            "labels": [(label, round(p, 4)) for label, p in prediction.topk[:5]] if prediction else [],
            "stale": shown.stale,
            "unsure": prediction is not None and prediction.unsure,
            "position_us": moment.sample.t_end_us if moment else None,
            "origin_us": timeline.origin_us if timeline else None,
            "length_us": player.span_us[1] - player.span_us[0] if player and player.span_us else None,
            "bin_us": timeline.bin_us if timeline else None,
            "random": bool(channel.recognizer.random_parts),
            "memory_mb": round(memory_mb()),
            **figures,
            "health": self.health.of(channel, figures),
        }

    def figures(self) -> dict[str, Any]:
        """How it goes, in numbers: rates a second, latencies p50 and p95 in milliseconds, what was lost and why."""
        channel, meters = self.channel, self.channel.meters
        return {
            "source_fps": round(meters.source.per_second(), 1),
            "shown_fps": round(self._shown.per_second(), 1),
            "labels_per_s": round(meters.labels.per_second(), 1),
            "arrival_ms": _rounded(meters.arrival.percentiles()),
            "label_ms": _rounded(meters.label.percentiles()),
            "paint_ms": _rounded(self._paint.percentiles()),
            "dropped": dict(channel.summary.drops),
            "lost": {reason: count for reason, count in list(channel.counts.items()) if count > 0},
            "stride": channel.stride,
            "every": channel.summary.every,
        }

    def _newer(self, number: int) -> Moment | None:
        moment = self.moment
        return moment if moment is not None and moment.number > number else None


def _rounded(percentiles: tuple[float, float] | None) -> tuple[float, float] | None:
    return percentiles and (round(percentiles[0], 1), round(percentiles[1], 1))
