"""What can be chosen of an iniVation camera: exposure, frame rate and contrast; all is read back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from streams.errors import StreamError

CONTRASTS = ("low", "default", "high")
_THRESHOLDS = {"low": 12, "high": 5}  # of a DVXplorer, 0 to 17: iniVation's presets; its default is 9
_COARSE_FINE = {"DAVIS346": "Davis346", "CDAVIS": "CDavis"} | {f"DAVIS240{one}": "Davis240" for one in "ABC"}
_US = timedelta(microseconds=1)


def set_up(camera: Any, names: Any, exposure_us: int | None, frame_rate: float | None, contrast: str) -> dict[str, str]:
    """Set what is asked for; returns what was read back. Raises StreamError for what a camera cannot do or refuses."""
    said = {"contrast": _set_contrast(camera, names, contrast)}
    if not hasattr(camera, "setExposureDuration"):
        if exposure_us is not None or frame_rate is not None:
            raise StreamError("this camera takes no frames: neither exposure nor frame rate can be chosen")
        return said
    camera.setAutoExposure(exposure_us is None)
    if camera.getAutoExposure() != (exposure_us is None):
        raise StreamError("the camera refused to change its automatic exposure; plug it in again")
    if exposure_us is not None:
        camera.setExposureDuration(exposure_us * _US)
        said["exposure"] = _told("an exposure", exposure_us, camera.getExposureDuration() // _US)
    if frame_rate is not None and not frame_rate > 0:
        raise StreamError(f"the frame rate must be more than 0, not {frame_rate}")
    interval_us = None if frame_rate is None else round(1e6 / frame_rate)
    if interval_us is not None:
        camera.setFrameInterval(interval_us * _US)
    said["frame interval"] = _told("a frame interval", interval_us, camera.getFrameInterval() // _US)
    return {"exposure": "automatic"} | said


def _told(what: str, asked_us: int | None, got_us: int) -> str:
    """What was read back, for people. Raises StreamError where it is not what was asked for, by more than 5 %."""
    if asked_us is not None and abs(got_us - asked_us) > asked_us / 20:
        raise StreamError(f"the camera refused {what} of {asked_us:,} us, it has {got_us:,} us; choose another one")
    return f"{got_us:,} us" if asked_us in (None, got_us) else f"{got_us:,} us (asked for {asked_us:,})"


def _set_contrast(camera: Any, names: Any, contrast: str) -> str:
    if contrast not in CONTRASTS:
        raise StreamError(f"contrast is {', '.join(CONTRASTS)}, not {contrast}")
    if contrast == "default":
        return contrast
    said = []
    for side in ("On", "Off"):
        get, put, moved = _knob(camera, names, side)
        value = moved(get(), contrast == "low")
        put(value)
        if get() != value:
            raise StreamError(f"the camera refused contrast {contrast}: {value} was set, it has {get()}; leave it out")
        said.append(f"{side.upper()} {value}")
    return f"{contrast} ({', '.join(said)})"


def _knob(camera: Any, names: Any, side: str) -> tuple[Callable[[], Any], Callable[[Any], Any], Callable[..., Any]]:
    """How a threshold is read and set, and where it moves for fewer events, or for more.

    A DVXplorer's is a number, of others it is a current: a higher one means fewer ON events, but more OFF events.
    """
    if hasattr(camera, "setContrastThresholdOn"):
        get, put = (getattr(camera, f"{verb}ContrastThreshold{side}") for verb in ("get", "set"))
        return get, put, lambda _, fewer: _THRESHOLDS["low" if fewer else "high"]
    on = side == "On"
    if hasattr(camera, "setBias"):
        bias = getattr(names.DVS128.Bias, f"DIFF_{side.upper()}")
        get, put = partial(camera.getBias, bias), partial(camera.setBias, bias)
        return get, put, lambda value, fewer: 2 * value if fewer == on else value // 2
    kind = _COARSE_FINE.get(camera.getSensorModel().name)
    if kind is None:
        raise StreamError("the contrast of this camera cannot be chosen")
    bias = getattr(getattr(names.DAVIS, f"{kind}BiasCF"), side)
    get, put = (partial(getattr(camera, f"{verb}{kind}BiasCoarseFine"), bias) for verb in ("get", "set"))
    return get, lambda value: put(*value), lambda value, fewer: (value[0] + (1 if fewer == on else -1), value[1])
