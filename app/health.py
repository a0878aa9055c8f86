"""What is wrong, in words: which promise is broken, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.channel import Channel
from app.meters import Recent

AMBER, RED = "amber", "red"
_SLOW = 0.8  # of the frames that a source promises
_LATE_MS, _TOO_LATE_MS = 300.0, 1000.0  # a label
_BEHIND_MS = 500.0  # what a live source brings


class Health:
    """Looks at a channel for one viewer."""

    def __init__(self) -> None:
        self._drops, self._lost = Recent(), Recent()

    def of(self, channel: Channel, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Level and reason of each thing that is wrong now."""
        return list(self._looked(channel, figures))

    def _looked(self, channel: Channel, figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        source = channel.source
        if source is None:
            return
        if source.warning:
            yield RED, source.warning
        expected, fps = 1e6 / source.sample_period_us, figures["source_fps"]
        if channel.is_live and fps == 0 and channel.moment is not None and not source.warning:
            yield RED, "the source brings nothing any more"
        elif channel.is_live and 0 < fps < _SLOW * expected:
            yield AMBER, f"the source brings {fps:.0f} frames a second, not {expected:.0f}"
        p95 = figures["label_ms"][1] if figures["label_ms"] else 0.0
        if p95 > _LATE_MS:
            level = RED if p95 > _TOO_LATE_MS else AMBER
            yield level, f"labels come {p95:.0f} ms after their picture: the model is slow on this machine"
        late = figures["arrival_ms"]
        if late and late[1] > _BEHIND_MS:
            yield AMBER, f"the source brings its data {late[1]:.0f} ms late"
        if drops := self._drops.growth(channel.summary.dropped):
            yield (
                AMBER,
                f"{drops} sample{'s' if drops > 1 else ''} of the last 10 s got no label: the model does not keep up",
            )
        if figures["every"] > channel.base_stride:
            yield AMBER, f"the stride grew from {channel.base_stride} to {figures['every']}: the model does not keep up"
        left_out = sum(count for reason, count in list(channel.counts.items()) if "left out" in reason)
        if lost := self._lost.growth(left_out):
            yield AMBER, f"{lost:,} packets or frames of the last 10 s were left out: more came than could be read"
