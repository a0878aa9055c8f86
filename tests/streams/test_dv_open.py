"""Opening a camera of iniVation: which one it is, or in one line why there is none."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from streams import StreamError
from streams.dv_camera import DvCameraSource
from tests.fake_dv import IN_USE, NOT_ALLOWED, Dvxplorer, FakeCamera, FakeDriver, failure


def test_of_several_cameras_the_first_is_opened_and_named(driver: FakeDriver) -> None:
    driver.cameras.append(FakeCamera(Dvxplorer, "DXA00093", (640, 480)))
    with DvCameraSource("dv:") as source:
        assert source.name == "dv:00000499" and source.frame_size == (64, 48)
    with DvCameraSource("dv:DXA00093") as source:
        assert source.name == "dv:DXA00093"
        assert source.event_size == (640, 480) and source.frame_size is None and source.sample_period_us == 33_333


def two_alike(driver: FakeDriver) -> None:
    driver.cameras.append(FakeCamera())


def none_there(driver: FakeDriver) -> None:
    driver.cameras[0].unplug()


def refusing(text: str) -> Callable[[FakeDriver], None]:
    def make(driver: FakeDriver) -> None:
        driver.cameras[0].refuses = failure(text)

    return make


def undiscoverable(driver: FakeDriver) -> None:
    driver.discover = lambda: [][0]  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize(
    ("address", "make", "message"),
    [
        ("dv:", none_there, "dv: no camera found; plug it in, then see `velora doctor`"),
        ("dv:00000001", lambda _: None, "dv:00000001: no such camera; there is dv:00000499"),
        ("dv:", two_alike, "dv: several cameras have the number 00000499; unplug all but one"),
        ("dv:00000499", two_alike, "dv:00000499: several cameras have the number 00000499; unplug all but one"),
        (
            "dv:",
            refusing(NOT_ALLOWED),
            "dv: cannot be opened: another program uses it, or this user may not (on Linux",
        ),
        ("dv:", refusing(IN_USE), "dv: cannot be opened: another program uses it"),
        ("dv:", refusing("Device firmware version incorrect."), "dv: Device firmware version incorrect."),
        ("dv:", undiscoverable, "dv: list index out of range"),
        ("dv: x", lambda _: None, "dv: x: write it as dv: or dv:SERIAL"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    driver: FakeDriver, address: str, make: Callable[[FakeDriver], None], message: str
) -> None:
    make(driver)
    with pytest.raises(StreamError, match="^" + re.escape(message)) as caught:
        DvCameraSource(address)
    assert "\n" not in str(caught.value)


def test_without_dv_processing_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    with pytest.raises(StreamError, match=r"^dv: dv-processing cannot be loaded .* pip install dv-processing$"):
        DvCameraSource("dv:")


def test_closing_frees_the_camera_for_the_next(camera: FakeCamera, driver: FakeDriver) -> None:
    for _ in range(3):
        DvCameraSource("dv:").close()
    assert driver.opened == 3
