"""What `velora doctor` says of cameras: which there are, whether they can be opened, and what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.doctor import Finding
from streams.dv_camera import driver, reason
from streams.errors import StreamError

ROOT = Path("/")
TIMEOUT_S = 10.0
# In a process of its own: a driver that hangs or crashes must not take this one along.
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from app.doctor_cameras import survey; survey()"

RULES = "etc/udev/rules.d/65-inivation.rules"  # the name that iniVation's packages give it, some of them in lib
RULE = 'SUBSYSTEM=="usb", ATTR{idVendor}=="152a", ATTR{idProduct}=="84[0-1]?", MODE="0666", TAG+="uaccess"'
_SPEEDS = {"LOW": "USB 1", "FULL": "USB 1", "HIGH": "USB 2 (480 Mbit/s)", "SUPER": "USB 3 (5 Gbit/s)"}
_FASTER = {"SUPER_PLUS": "USB 3 (10 Gbit/s)", "SUPER_PLUS_X2": "USB 3 (20 Gbit/s)"}
_WSL = (
    "Windows keeps USB to itself: there, `winget install usbipd`, then `usbipd list`, as administrator "
    "`usbipd bind --busid BUSID`, and `usbipd attach --wsl --busid BUSID` each time it is plugged in"
)
_WINDOWS = "a camera needs the driver WinUSB: install DV, or choose WinUSB for the camera in Zadig (List All Devices)"


def cameras() -> Iterator[Finding]:
    """Event cameras, the permission to open them, and webcams."""
    yield from _event_cameras()
    if platform.system() == "Linux":
        yield from _permissions()
        yield from _webcams()


def camera_addresses() -> list[str]:
    """Of the event cameras and webcams that are there, as `open_source` takes them."""
    return [*(f"dv:{camera['serial']}" for camera in _answer().get("cameras", ())), *(name for name, _ in _videos())]


def survey() -> None:
    """Print what the driver finds, in JSON on one line; called in a process of its own."""
    try:
        names = driver()
        found = [_looked_at(names, device) for device in names.discover()]
        print(json.dumps({"cameras": found}), flush=True)  # before the cameras are closed
    except StreamError as error:
        print(json.dumps({"failure": str(error)}))
    except Exception as error:  # whatever the driver raises
        print(json.dumps({"failure": f"the driver failed: {reason(error)}"}))


def _looked_at(names: Any, device: Any) -> dict[str, Any]:
    """One camera; it is opened for a moment, which is also how its speed is known."""
    found = {
        "model": device.cameraModel.name,
        "serial": str(device.serialNumber),
        "firmware": int(device.firmwareVersion),
        "usb3": device.deviceType.name != "FX2",
        "speed": "",
        "failure": "",
    }
    try:
        camera = names.open(device, names.USBDevice.LogLevel.LVL_NONE)
        found["model"] = camera.getCameraName().rsplit("_", 1)[0]
        found["speed"] = camera.getConnectionSpeed().name.removeprefix("LIBUSB_SPEED_")
    except Exception as error:  # whatever the driver raises
        found["failure"] = reason(error)
    return found


def _event_cameras() -> Iterator[Finding]:
    what = "event cameras"
    answer = _answer()
    if "failure" in answer:
        yield Finding("note", what, answer["failure"], answer.get("fix", ""))
        return
    if not answer["cameras"]:
        yield Finding("note", what, "none found", _hint())
    for camera in answer["cameras"]:
        yield _finding(camera)


def _answer() -> dict[str, Any]:
    """What `survey` prints, or a failure, in one line."""
    arguments = [sys.executable, "-I", "-c", CHILD, str(Path(__file__).parents[1])]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complaint = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel is left behind
            process.communicate(timeout=1)
        return {
            "failure": f"the driver gave no answer in {TIMEOUT_S:g} s",
            "fix": "unplug the camera, plug it in again",
        }
    lines = [line for line in said.splitlines() if line.startswith("{")]  # drivers print, too
    if not lines:
        why = (complaint.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return {"failure": f"the driver crashed: {why}", "fix": "pip install --force-reinstall dv-processing"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _finding(camera: dict[str, Any]) -> Finding:
    what = f"event camera dv:{camera['serial']}"
    found = f"{camera['model']}, firmware {camera['firmware']}"
    if "claim USB" in camera["failure"]:
        return Finding("note", what, f"{found}; another program uses it", "close that program")
    if camera["failure"]:
        return Finding("bad", what, f"{found}; it cannot be opened: {camera['failure']}", _hint() or "plug it in again")
    speed = (_SPEEDS | _FASTER).get(camera["speed"], "USB of unknown speed")
    if camera["usb3"] and speed.startswith(("USB 1", "USB 2")):
        fix = "it can do USB 3, and loses events without: use a USB 3 port, a USB 3 cable, no hub"
        return Finding("note", what, f"{found}, only {speed}", fix)
    return Finding("ok", what, f"{found}, {speed}")


def _hint() -> str:
    """What may keep a camera from being seen, on this system."""
    if platform.system() == "Windows":
        return _WINDOWS
    return _WSL if "microsoft" in _read(ROOT / "proc/version").lower() else ""


def _permissions() -> Iterator[Finding]:
    """Cameras on the USB bus that this user may not open."""
    for device in sorted((ROOT / "sys/bus/usb/devices").glob("*")):
        if _read(device / "idVendor") != "152a" or not re.fullmatch("84[01].", _read(device / "idProduct")):
            continue
        numbers = [_read(device / name).zfill(3) for name in ("busnum", "devnum")]
        node = ROOT.joinpath("dev/bus/usb", *numbers)
        if node.exists() and not os.access(node, os.R_OK | os.W_OK):
            yield Finding("bad", "permission for event cameras", f"this user may not open {node}", _rule())
            return


def _rule() -> str:
    there = next((path for path in (ROOT / RULES, ROOT / RULES.replace("etc", "lib", 1)) if path.exists()), None)
    if there is not None:
        return f"plug the camera in again, so that {there} takes effect"
    make = f"echo '{RULE}' | sudo tee /{RULES}"
    return f"{make} && sudo udevadm control --reload, then plug the camera in again"


def _webcams() -> Iterator[Finding]:
    found, closed = [], []
    for address, device in _videos():
        found.append(f"{address} ({_read(device / 'name')})")
        node = ROOT / "dev" / device.name
        closed += [str(node)] if node.exists() and not os.access(node, os.R_OK | os.W_OK) else []
    yield Finding("ok", "webcams", ", ".join(found)) if found else Finding("note", "webcams", "none found")
    if closed:
        fix = "sudo usermod -aG video $USER, then log out, and in again"
        yield Finding("bad", "permission for webcams", f"this user may not open {', '.join(closed)}", fix)


def _videos() -> Iterator[tuple[str, Path]]:
    """Webcams that Linux knows: their addresses, and where it tells about them."""
    for device in sorted((ROOT / "sys/class/video4linux").glob("video*"), key=lambda path: (len(path.name), path.name)):
        if _read(device / "index") in ("", "0"):  # the others tell about the pictures of the first
            yield f"webcam:{device.name.removeprefix('video')}", device


def _read(path: Path) -> str:
    """What a small file says; nothing where there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
