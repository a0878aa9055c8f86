"""Contrast, exposure and frame rate of a camera: set, read back, and refused in one line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from streams import StreamError
from streams.dv_camera import DvCameraSource
from tests.fake_dv import Davis, Dvs128, Dvxplorer, FakeCamera, FakeDriver


@pytest.mark.parametrize(
    ("kind", "options", "settings"),
    [
        (Davis, {}, {"contrast": "default", "exposure": "automatic", "frame interval": "40,000 us"}),
        (Davis, {"exposure_us": 2_500}, {"contrast": "default", "exposure": "2,500 us", "frame interval": "40,000 us"}),
        (Davis, {"frame_rate": 30}, {"contrast": "default", "exposure": "automatic", "frame interval": "33,333 us"}),
        (Davis, {"contrast": "low"}, {"contrast": "low (ON (7, 200), OFF (3, 10))"}),
        (Davis, {"contrast": "high"}, {"contrast": "high (ON (5, 200), OFF (5, 10))"}),
        (Dvxplorer, {"contrast": "low"}, {"contrast": "low (ON 12, OFF 12)"}),
        (Dvxplorer, {"contrast": "high"}, {"contrast": "high (ON 5, OFF 5)"}),
        (Dvs128, {"contrast": "low"}, {"contrast": "low (ON 420000, OFF 66)"}),
        (Dvs128, {"contrast": "high"}, {"contrast": "high (ON 105000, OFF 264)"}),
        (Dvs128, {}, {"contrast": "default"}),
    ],
)
def test_settings_are_set_and_read_back(
    driver: FakeDriver, kind: type, options: dict[str, Any], settings: dict[str, str]
) -> None:
    driver.cameras = [FakeCamera(kind)]
    with DvCameraSource("dv:", **options) as source:
        assert settings.items() <= source.settings.items()
        assert source.settings.keys() == {"contrast"} | ({"exposure", "frame interval"} if kind is Davis else set())
        assert source.sample_period_us == (33_333 if kind is not Davis or "frame_rate" in options else 40_000)


def test_a_difference_is_said(camera: FakeCamera) -> None:
    camera.stubborn["exposure"] = timedelta(microseconds=2_496)
    with DvCameraSource("dv:", exposure_us=2_500) as source:
        assert source.settings["exposure"] == "2,496 us (asked for 2,500)"


@pytest.mark.parametrize(
    ("kind", "options", "stubborn", "message"),
    [
        (Davis, {"exposure_us": 10_000_000}, {}, "dv: The exposure duration is invalid."),
        (
            Davis,
            {"frame_rate": 200.0},
            {"interval": 1},
            "the camera refused a frame interval of 5,000 us, it has 20",
        ),
        (Davis, {"frame_rate": 0.0}, {}, "the frame rate must be more than 0, not 0.0"),
        (Davis, {"exposure_us": 2_000}, {"auto": True}, "the camera refused to change its automatic exposure"),
        (Davis, {"contrast": "vivid"}, {}, "contrast is low, default, high, not vivid"),
        (Dvxplorer, {"exposure_us": 2_000}, {}, "this camera takes no frames: neither exposure nor frame rate can be"),
        (Dvxplorer, {"frame_rate": 30.0}, {}, "this camera takes no frames"),
        (Dvxplorer, {"contrast": "high"}, {"Off": 9}, "the camera refused contrast high: 5 was set, it has 9"),
    ],
)
def test_a_setting_that_is_refused_is_one_line(
    driver: FakeDriver, kind: type, options: dict[str, Any], stubborn: dict[str, Any], message: str
) -> None:
    driver.cameras = [FakeCamera(kind)]
    if "interval" in stubborn:
        stubborn = {"interval": timedelta(milliseconds=20)}
    driver.cameras[0].stubborn = stubborn
    with pytest.raises(StreamError, match=re.escape(message)) as caught:
        DvCameraSource("dv:", **options)
    assert str(caught.value).startswith("dv: ")
