"""Times of what a device does, without waiting for it in between."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Notes moments in the course of a device's work; the first one when it is made."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._device = device.type == "cuda", device
        self._events: list[torch.cuda.Event] = []
        self._seconds: list[float] = []
        self.mark()

    def mark(self) -> None:
        """What was asked for up to here is done, once the device comes to it."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
        else:
            if self._device.type == "mps":  # which works behind the program, too
                torch.mps.synchronize()
            self._seconds.append(time.perf_counter())

    def between_ms(self) -> list[float]:
        """Milliseconds from each mark to the next. Waits for the device to come to the last one."""
        if not self._on_gpu:
            return [1e3 * (b - a) for a, b in zip(self._seconds, self._seconds[1:], strict=False)]
        self._events[-1].synchronize()
        return [a.elapsed_time(b) for a, b in zip(self._events, self._events[1:], strict=False)]
