"""The real driver of iniVation's cameras: it has what we call, and all that the fake of it can."""

from __future__ import annotations

import re

import dv_processing as dv
import pytest

from streams.dv_camera import reason
from tests.fake_dv import REAL, Davis, Dvs128, Dvxplorer


def test_what_the_real_driver_raises_is_told_on_one_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        REAL.open("no such camera")
    assert reason(caught.value) == "Could not find device with given serial number"
    assert reason(ValueError("")) == "ValueError"


@pytest.mark.parametrize(("ours", "real"), [(Davis, "DAVIS"), (Dvxplorer, "DVXplorer"), (Dvs128, "DVS128")])
def test_the_fake_can_nothing_that_the_real_driver_cannot(ours: type, real: str) -> None:
    wanted = {name for name in dir(ours) if name.startswith(("get", "set", "is"))}
    assert wanted - set(dir(getattr(REAL, real))) == set()


@pytest.mark.parametrize("real", ["DAVIS", "DVXplorer", "DVXplorerM", "DVS128"])
def test_only_the_abilities_of_a_camera_tell_its_kind(real: str) -> None:
    abilities = {"setExposureDuration": "DAVIS", "getSensorModel": "DAVIS", "setBias": "DVS128"}
    thresholds = real.startswith("DVXplorer")
    assert hasattr(getattr(REAL, real), "setContrastThresholdOn") == thresholds
    for ability, kind in abilities.items():
        assert hasattr(getattr(REAL, real), ability) == (kind == real)


COARSE_FINE = ("Davis346", "Davis240", "CDavis")


@pytest.mark.parametrize(
    ("of", "function", "signature"),
    [
        ("", "discover", r"discover\(\) -> list\[.*DeviceDescriptor\]"),
        ("", "open", r"open\(descriptor: .*DeviceDescriptor, deviceLogLevel: .*LogLevel"),
        ("DAVIS", "setAutoExposure", r"enabled: bool\) -> None"),
        ("DAVIS", "setExposureDuration", r": datetime\.timedelta\) -> None"),
        ("DAVIS", "getExposureDuration", r"-> datetime\.timedelta"),
        ("DAVIS", "setFrameInterval", r": datetime\.timedelta\) -> None"),
        ("DAVIS", "getFrameInterval", r"-> datetime\.timedelta"),
        *(("DAVIS", f"get{kind}BiasCoarseFine", r"-> tuple\[int, int\]") for kind in COARSE_FINE),
        *(("DAVIS", f"set{kind}BiasCoarseFine", r"bias: .*, coarse: .*, fine: .*\) -> None") for kind in COARSE_FINE),
        *(
            (kind, f"setContrastThreshold{side}", r"contrastThreshold\w+: [^,]*\) -> None")
            for kind in ("DVXplorer", "DVXplorerM")
            for side in ("On", "Off")
        ),
        ("DVS128", "setBias", r"bias: .*, value: .*\) -> None"),
        ("CameraInputBase", "getTimeInterval", r"-> datetime\.timedelta"),
        ("CameraInputBase", "getNextEventBatch", r"-> dv_processing\.EventStore \| None"),
        ("CameraInputBase", "getNextFrame", r"-> dv_processing\.Frame \| None"),
        ("CameraInputBase", "isRunning", r"isRunning\(self: [^,]*\) -> bool"),
    ],
)
def test_the_real_driver_has_what_we_call(of: str, function: str, signature: str) -> None:
    found = getattr(getattr(REAL, of) if of else REAL, function)
    assert re.search(signature, found.__doc__), found.__doc__


def test_the_real_driver_has_the_names_that_we_use() -> None:
    assert REAL.USBDevice.LogLevel.LVL_NONE is not None
    for model in ("DAVIS240A", "DAVIS240B", "DAVIS240C", "DAVIS346", "CDAVIS"):
        assert hasattr(REAL.DAVIS.SensorModel, model)
    for biases in (REAL.DAVIS.Davis346BiasCF, REAL.DAVIS.Davis240BiasCF, REAL.DAVIS.CDavisBiasCF):
        assert hasattr(biases, "On") and hasattr(biases, "Off")
    assert {"serialNumber", "cameraModel", "deviceType", "firmwareVersion"} <= set(dir(REAL.USBDevice.DeviceDescriptor))
    assert {"timestamp", "x", "y", "polarity"} == set(dv.EventStore().numpy().dtype.names)
