"""A stand-in for `dv_processing.io.camera`: it has no cameras but these, which fail in every way that cameras do.

What they give are real EventStores and Frames, and whatever they can do, the real ones can (see test_dv_driver.py).
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import dv_processing as dv
import numpy as np

from streams.items import Events

REAL = dv.io.camera
TRACE = (
    "/project/include/dv-processing/io/camera/usb_device.hpp(88): open()\nRuntimeError: {}\nStacktrace:\n 0# 0x003AB\n"
)
NOT_ALLOWED = "Failed to open USB device. This usually happens due to permissions or driver issues."
IN_USE = "Failed to claim USB interface 0. This usually happens because the device is already in use."


def failure(text: str) -> RuntimeError:
    """As dv-processing words it."""
    return RuntimeError(TRACE.format(text))


def store_of(events: Events) -> Any:
    """A real EventStore."""
    store = dv.EventStore()
    for t, x, y, p in events.tolist():
        store.push_back(t, x, y, p)
    return store


def frame_of(start_us: int, exposure_us: int, image: np.ndarray) -> Any:
    """A real Frame; the image in BGR or grey."""
    return dv.Frame(start_us, exposure_us, 0, 0, image, dv.FrameSource.SENSOR)


class Handle:
    """An open camera; like a real one it is closed when nobody refers to it any more."""

    model = ""
    defaults: ClassVar[dict[Any, Any]] = {}

    def __init__(self, hardware: FakeCamera) -> None:
        self.hardware = hardware
        self.values: dict[Any, Any] = dict(hardware.defaults)

    def _change(self, name: Any, value: Any) -> None:
        self.values[name] = self.hardware.stubborn.get(name, value)

    def getSerialNumber(self) -> str:
        return self.hardware.serial

    def getCameraName(self) -> str:
        return f"{self.model}_{self.hardware.serial}"

    def getConnectionSpeed(self) -> Any:
        return self.hardware.speed

    def getTimeInterval(self) -> timedelta:
        return timedelta(milliseconds=10)

    def isRunning(self) -> bool:
        return self.hardware.plugged and self.hardware.running

    def isEventStreamAvailable(self) -> bool:
        return True

    def isFrameStreamAvailable(self) -> bool:
        return False

    def getEventResolution(self) -> tuple[int, int]:
        return self.hardware.size

    def getFrameResolution(self) -> tuple[int, int] | None:
        return None

    def getNextEventBatch(self) -> Any:
        return self.hardware.next_of(self.hardware.events)

    def getNextFrame(self) -> Any:
        return None


class Davis(Handle):
    """A DAVIS346; its biases much as libcaer sets them."""

    model = "DAVIS346"
    defaults: ClassVar[dict[Any, Any]] = {
        "auto": True,
        "exposure": timedelta(milliseconds=10),
        "interval": timedelta(milliseconds=40),
        REAL.DAVIS.Davis346BiasCF.On: (6, 200),
        REAL.DAVIS.Davis346BiasCF.Off: (4, 10),
    }

    def isFrameStreamAvailable(self) -> bool:
        return True

    def getFrameResolution(self) -> tuple[int, int]:
        return self.hardware.size

    def getNextFrame(self) -> Any:
        return self.hardware.next_of(self.hardware.frames)

    def getAutoExposure(self) -> bool:
        return bool(self.values["auto"])

    def setAutoExposure(self, enabled: bool) -> None:
        self._change("auto", enabled)

    def getExposureDuration(self) -> timedelta:
        return timedelta() + self.values["exposure"]

    def setExposureDuration(self, duration: timedelta) -> None:
        if self.values["auto"]:
            raise failure("Cannot set exposure manually when auto-exposure enabled.")
        if not timedelta() < duration < timedelta(seconds=4):
            raise failure("The exposure duration is invalid.")
        self._change("exposure", duration)

    def getFrameInterval(self) -> timedelta:
        return timedelta() + self.values["interval"]

    def setFrameInterval(self, interval: timedelta) -> None:
        self._change("interval", interval)

    def getSensorModel(self) -> Any:
        return REAL.DAVIS.SensorModel.DAVIS346

    def getDavis346BiasCoarseFine(self, bias: Any) -> tuple[int, int]:
        coarse, fine = self.values[bias]
        return coarse, fine

    def setDavis346BiasCoarseFine(self, bias: Any, coarse: int, fine: int) -> None:
        self._change(bias, (coarse, fine))


class Dvxplorer(Handle):
    """Events alone, and thresholds."""

    model = "DVXplorer"
    defaults: ClassVar[dict[Any, Any]] = {"On": 9, "Off": 9}

    def getContrastThresholdOn(self) -> int:
        return int(self.values["On"])

    def getContrastThresholdOff(self) -> int:
        return int(self.values["Off"])

    def setContrastThresholdOn(self, value: int) -> None:
        self._change("On", value)

    def setContrastThresholdOff(self, value: int) -> None:
        self._change("Off", value)


class Dvs128(Handle):
    """Events alone, and currents."""

    model = "DVS128"
    defaults: ClassVar[dict[Any, Any]] = {REAL.DVS128.Bias.DIFF_ON: 210_000, REAL.DVS128.Bias.DIFF_OFF: 132}

    def getBias(self, bias: Any) -> int:
        return int(self.values[bias])

    def setBias(self, bias: Any, value: int) -> None:
        self._change(bias, value)


@dataclass(frozen=True)
class Descriptor:
    """What is known of a camera that is not open."""

    serialNumber: str
    cameraModel: Any
    deviceType: Any
    firmwareVersion: int = 6
    busNumber: int = 2
    devAddress: int = 3
    pid: int = 0x841A


class FakeCamera:
    """The camera itself, with the driver's queues: `give` fills them, attributes make it fail."""

    def __init__(self, kind: type[Handle] = Davis, serial: str = "00000499", size: tuple[int, int] = (64, 48)) -> None:
        self.kind, self.serial, self.size = kind, serial, size
        self.defaults: dict[Any, Any] = dict(kind.defaults)
        self.stubborn: dict[Any, Any] = {}  # values that it takes whatever is set
        self.plugged = self.running = True
        self.raises: Exception | None = None  # by whatever is asked for next
        self.refuses: Exception | None = None  # to be opened
        self.hang, self.hangs = threading.Event(), threading.Event()
        self.hang.set()
        self.most = 1 << 20  # batches in the queue: what comes while it is full is lost without a word
        self.speed = REAL.libusb_speed.LIBUSB_SPEED_SUPER
        self.events: deque[Any] = deque()
        self.frames: deque[Any] = deque()
        self.handle: weakref.ref[Handle] | None = None

    def descriptor(self) -> Descriptor:
        """Of USB."""
        model = {Davis: "DAVIS", Dvxplorer: "DVXPLORER", Dvs128: "DVS128"}[self.kind]
        kind = "FX2" if self.kind is Dvs128 else "FX3_RED"
        return Descriptor(self.serial, getattr(REAL.CameraModel, model), getattr(REAL.USBDeviceType, kind))

    def give(self, *items: Any) -> None:
        """Events (arrays or EventStores) and Frames, into the queues."""
        for item in items:
            if isinstance(item, dv.Frame):
                self.frames.append(item)
            elif len(self.events) < self.most:
                self.events.append(store_of(item) if isinstance(item, np.ndarray) else item)

    def give_recording(self, path: Path) -> None:
        """All packets of a recording, as dv-processing reads them."""
        recording = dv.io.MonoCameraRecording(str(path))
        self.give(*iter(recording.getNextEventBatch, None), *iter(recording.getNextFrame, None))

    def next_of(self, queue: deque[Any]) -> Any:
        """What the driver answers."""
        if queue is self.events and not self.hang.is_set():
            self.hangs.set()
            self.hang.wait(30)
        if self.raises is not None:
            raise type(self.raises)(*self.raises.args)  # a new one: tracebacks keep handles alive
        return queue.popleft() if queue else None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The driver hangs meanwhile, before it looks for events."""
        self.hangs.clear()
        self.hang.clear()
        assert self.hangs.wait(10), "nobody asks it"
        try:
            yield
        finally:
            self.hang.set()

    def unplug(self) -> None:
        """Away with it, and with what it has not handed over."""
        self.plugged = False
        self.events.clear()
        self.frames.clear()

    def plug_in(self) -> None:
        """Back again."""
        self.plugged, self.raises = True, None


class FakeDriver:
    """Stands in for the module `dv_processing.io.camera`."""

    USBDevice, DAVIS, DVS128, libusb_speed = REAL.USBDevice, REAL.DAVIS, REAL.DVS128, REAL.libusb_speed
    USBDeviceType = REAL.USBDeviceType

    def __init__(self, *cameras: FakeCamera) -> None:
        self.cameras = list(cameras)
        self.opened = self.tried = 0

    def discover(self) -> list[Descriptor]:
        return [camera.descriptor() for camera in self.cameras if camera.plugged]

    def open(self, descriptor: Descriptor, level: Any = REAL.USBDevice.LogLevel.LVL_WARNING) -> Any:
        assert isinstance(level, REAL.USBDevice.LogLevel)
        self.tried += 1
        camera = next((one for one in self.cameras if one.plugged and one.descriptor() == descriptor), None)
        if camera is None:
            raise failure("Could not find a device with VID=152a, PID=841a and USB Bus Address=2:3.")
        if camera.refuses is not None:
            raise camera.refuses
        if camera.handle is not None and camera.handle() is not None:
            raise failure(IN_USE)
        handle = camera.kind(camera)
        camera.handle = weakref.ref(handle)
        self.opened += 1
        return handle
