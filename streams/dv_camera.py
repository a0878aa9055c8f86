"""iniVation's cameras, live: `dv:` is the first one found, `dv:SERIAL` a certain one.

dv-processing reads USB into queues that overflow without a word: a thread drains them, and looks for holes in time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import numpy as np

from streams.clock import Unroller
from streams.dv_order import Arrived, Order
from streams.dv_settings import set_up
from streams.errors import StreamError
from streams.items import EVENT_DTYPE, Events, Gap, Item, RgbFrame, eight_bit, size_of
from streams.pump import MOST_BYTES, Pump
from streams.source import DEFAULT_PERIOD_US, Source
from streams.text import printable

STALL_S = 3.0  # without data: said
_RETRY_S = (0.2, 2.0)  # the first wait and the longest one
_NAP_S = 0.001
_JOIN_S = 0.5
_WAITING = 200  # items: over a second of a DAVIS346
_AT_ONCE = 64  # batches
_US = timedelta(microseconds=1)


def driver() -> Any:
    """The cameras of dv-processing, imported only now. Raises StreamError where it cannot be."""
    try:
        import dv_processing
    except ImportError as error:
        raise StreamError(f"dv-processing cannot be loaded ({reason(error)}); pip install dv-processing") from None
    return dv_processing.io.camera


def reason(error: Exception) -> str:
    """What dv-processing says, which it puts between a place in its code and a stack trace, on one line."""
    found = re.search(r"^\w*Error: (.+)$", str(error), re.MULTILINE)
    line = found[1] if found else (str(error).strip().splitlines() or [type(error).__name__])[0]
    return printable(line)[:200]


class DvCameraSource(Source):
    """Events and frames of a camera, for ever; one that vanishes is looked for, by its serial number, until it is back.

    `exposure_us` (None: automatic) and `frame_rate` (Hz) are for cameras with frames. `contrast` is how sensitive the
    pixels are: "default" as dv-processing sets them, else a DVXplorer's thresholds are 12 ("low") or 5 ("high"), of a
    DAVIS the currents of ON and OFF are moved by one coarse step (8 times), of a DVS128 doubled or halved. Cameras with
    several to choose from: the first one, and `name` says which. `settings` are what was read back.

    Raises StreamError where there is no such camera, it cannot be opened, or it refuses a setting.
    """

    schemes = ("dv",)
    options = frozenset({"exposure_us", "frame_rate", "contrast"})
    live = True

    def __init__(
        self,
        address: str,
        *,
        exposure_us: int | None = None,
        frame_rate: float | None = None,
        contrast: str = "default",
    ) -> None:
        super().__init__()
        found = re.fullmatch(r"dv:(\S*)", address)
        if found is None:
            raise StreamError(f"{address}: write it as dv: or dv:SERIAL")
        self._address, self._wanted = address.removesuffix(":"), (exposure_us, frame_rate, contrast)
        self._driver = self._asked(driver)
        self._camera: Any
        self._camera, self._serial, self.settings = self._opened(found[1])
        self.name = f"dv:{self._serial}"
        self.event_size, self.frame_size, self.sample_period_us, interval_us = self._asked(_properties, self._camera)
        self._order = Order(self.counts, interval_us)
        self._gone_at: float | None = None
        self._retry_s = _RETRY_S[0]
        self._heard_at = self._frame_at = time.monotonic()
        self._away_us, self._away_at_ns, self._asked_at_ns = 0, 0, time.monotonic_ns()
        lost = "packets of the camera, left out since too many came"
        self._pump: Pump[Arrived] = Pump(
            self._read, most=_WAITING, counts=self.counts, lost=lost, free=self._free, weight=lambda a: size_of(a.item)
        )
        self._pump.start()

    @property
    def warning(self) -> str:
        """What is wrong with the camera now."""
        now, gone_at = time.monotonic(), self._gone_at
        if gone_at is not None:
            return f"the camera is gone since {now - gone_at:.0f} s, trying again"
        if now - self._heard_at > STALL_S:
            return f"no data for {now - self._heard_at:.0f} s"
        if self.frame_size is not None and now - self._frame_at > max(STALL_S, 3e-6 * self.sample_period_us):
            return f"no frames for {now - self._frame_at:.0f} s"
        return ""

    def close(self) -> None:
        """End the iteration at once, from any thread, and free the camera as soon as its driver lets us."""
        self._pump.stop()
        self._pump.join(_JOIN_S)

    def _free(self) -> None:
        self._camera = None

    def __iter__(self) -> Iterator[Item]:
        unroller, run = Unroller(), -1
        for arrived in self._pump.taken():
            if arrived.run != run:
                if run >= 0:
                    unroller.begin_anew()
                    yield Gap(arrived.why)
                run = arrived.run
            yield unroller.unrolled(arrived.item)

    # --- the camera ---------------------------------------------------------------------------------------------------

    def _opened(self, serial: str) -> tuple[Any, str, dict[str, str]]:
        """The camera, its serial number and its settings. Raises StreamError with what to do."""
        found = list(self._asked(self._driver.discover))
        serials = [str(device.serialNumber) for device in found]
        if not found:
            raise StreamError(f"{self._address}: no camera found; plug it in, then see `velora doctor`")
        if serial and serial not in serials:
            raise StreamError(f"{self._address}: no such camera; there is {', '.join(f'dv:{s}' for s in serials)}")
        serial = serial or serials[0]
        if serial and serials.count(serial) > 1:
            raise StreamError(f"{self._address}: several cameras have the number {serial}; unplug all but one")
        device, quiet = found[serials.index(serial)], self._driver.USBDevice.LogLevel.LVL_NONE
        camera = self._asked(self._driver.open, device, quiet)
        return camera, serial, self._asked(set_up, camera, self._driver, *self._wanted)

    def _asked(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What the driver answers. Raises StreamError for whatever it raises."""
        try:
            return ask(*arguments)
        except StreamError as error:
            raise StreamError(f"{self._address}: {error}") from None
        except Exception as error:
            text = reason(error)
            if re.search(r"open USB device|claim USB", text):
                text = (
                    "cannot be opened: another program uses it, or this user may not (on Linux a udev rule, on Windows "
                    "a driver is missing); see `velora doctor`"
                )
            raise StreamError(f"{self._address}: {text}") from None

    def _read(self) -> Sequence[Arrived]:
        """What has come; a nap where nothing has."""
        if self._camera is None:
            return self._found_again()
        asked_ns = time.monotonic_ns()
        try:
            events, frames, running = _drained(self._camera, self.frame_size is not None)
        except StreamError:
            raise
        except Exception:  # whatever the driver raises now, the camera is of no use any more
            events, frames, running = [], [], False
        came_ns = time.monotonic_ns()
        away_us = self._away_of_late(came_ns)
        items = [item for part in events for item in self._order.push(part, came_ns, away_us)]
        items += [item for frame in frames for item in self._order.push(frame, came_ns)]
        if not running:
            self._camera, self._gone_at, self._retry_s = None, time.monotonic(), _RETRY_S[0]
            return items + list(self._order.flush())
        if not events:
            items += self._order.silence(asked_ns)
        if not events and not frames:
            self._pump.stopped.wait(_NAP_S)
            return items
        self._heard_at = time.monotonic()
        self._frame_at = self._heard_at if frames else self._frame_at
        return sorted(items, key=lambda arrived: (arrived.run, arrived.item.t_end_us))

    def _away_of_late(self, now_ns: int) -> int:
        """The longest time in the last second, in microseconds, in which the driver was not asked."""
        away_us, self._asked_at_ns = (now_ns - self._asked_at_ns) // 1_000, now_ns
        if away_us > self._away_us or now_ns - self._away_at_ns > 1_000_000_000:
            self._away_us, self._away_at_ns = away_us, now_ns
        return self._away_us

    def _found_again(self) -> Sequence[Arrived]:
        if self._pump.stopped.wait(self._retry_s):
            return []
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])
        try:
            camera, _, settings = self._opened(self._serial)
            sizes = self._asked(_properties, camera)[:2]
        except StreamError:
            return []
        if sizes != (self.event_size, self.frame_size):
            raise StreamError(f"{self._address}: the camera came back with another sensor; start again")
        self._order.begin_anew("reconnected")
        self._heard_at = self._frame_at = time.monotonic()
        self._away_us, self._asked_at_ns = 0, time.monotonic_ns()
        self._camera, self.settings, self._gone_at = camera, settings, None
        return []


def _properties(camera: Any) -> tuple[tuple[int, int] | None, tuple[int, int] | None, int, int]:
    """Sizes of events and frames, the time between frames, and in which events are handed over (microseconds)."""
    events = camera.getEventResolution() if camera.isEventStreamAvailable() else None
    frames = camera.getFrameResolution() if camera.isFrameStreamAvailable() else None
    sizes = [None if size is None else (int(size[0]), int(size[1])) for size in (events, frames)]
    period_us = camera.getFrameInterval() // _US if sizes[1] and hasattr(camera, "getFrameInterval") else 0
    return sizes[0], sizes[1], period_us or DEFAULT_PERIOD_US, camera.getTimeInterval() // _US


def _drained(camera: Any, with_frames: bool) -> tuple[list[Events], list[RgbFrame], bool]:
    """What waits in the driver's queues, in the camera's time, and whether there is more to hope for."""
    events = list(_batches(camera))
    frames = islice(iter(camera.getNextFrame, None), _AT_ONCE if with_frames else 0)
    images = list(map(_as_frame, frames))
    return events, images, bool(events or images) or camera.isRunning()


def _batches(camera: Any) -> Iterator[Events]:
    """Events as they wait, not more than fits: the others are there the next time, or lost in the driver."""
    held = 0
    for store in islice(iter(camera.getNextEventBatch, None), _AT_ONCE):
        if len(events := _as_events(store)):
            yield events
        held += events.nbytes
        if held > MOST_BYTES:
            return


def _as_events(store: Any) -> Events:
    """A copy: what `numpy` returns is a view that does not keep the store alive."""
    stored = store.numpy()
    events = np.zeros(len(stored), EVENT_DTYPE)
    for ours, theirs in (("t", "timestamp"), ("x", "x"), ("y", "y"), ("p", "polarity")):
        events[ours] = stored[theirs]
    return events


def _as_frame(frame: Any) -> RgbFrame:
    """Its time is the start of the exposure."""
    image, start = eight_bit(np.asarray(frame.image)), int(frame.timestamp)
    if image.ndim == 3:
        image = image[..., 2::-1] if image.shape[2] >= 3 else image[..., 0]
    return RgbFrame(start, start + frame.exposure // _US, image.copy(), time.monotonic_ns())
