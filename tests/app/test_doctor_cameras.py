"""`velora doctor` on cameras: what it finds, and the one thing to do about what is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from app import doctor_cameras
from app.doctor import Finding
from tests.fake_dv import IN_USE, NOT_ALLOWED, REAL, Davis, Dvs128, Dvxplorer, FakeCamera, FakeDriver, failure


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Linux machine without USB devices."""
    monkeypatch.setattr(doctor_cameras, "ROOT", tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def surveyed(monkeypatch: pytest.MonkeyPatch, capsys: Any, *cameras: FakeCamera) -> list[Finding]:
    """What is said of cameras that the driver finds."""
    monkeypatch.setattr(doctor_cameras, "driver", lambda: FakeDriver(*cameras))
    doctor_cameras.survey()
    return answered(monkeypatch, capsys.readouterr().out)


def answered(monkeypatch: pytest.MonkeyPatch, text: str) -> list[Finding]:
    """What is said where the child prints this."""
    monkeypatch.setattr(doctor_cameras, "CHILD", f"print({text!r})")
    return [found for found in doctor_cameras.cameras() if found.what.startswith("event camera")]


# --- event cameras ----------------------------------------------------------------------------------------------------


def test_the_real_driver_is_asked_in_a_process_of_its_own() -> None:
    found = next(doctor_cameras.cameras())
    assert found.what.startswith("event camera") and not re.search("crashed|failed|no answer", found.found)


def test_cameras_are_listed_with_model_address_firmware_and_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = FakeCamera(Dvxplorer, "DXA00093")
    old = FakeCamera(Dvs128, "0097")
    slow.speed = old.speed = REAL.libusb_speed.LIBUSB_SPEED_HIGH
    first, second, third = surveyed(monkeypatch, capsys, FakeCamera(), slow, old)
    assert first == Finding("ok", "event camera dv:00000499", "DAVIS346, firmware 6, USB 3 (5 Gbit/s)")
    assert second.state == "note" and second.found == "DVXplorer, firmware 6, only USB 2 (480 Mbit/s)"
    assert "use a USB 3 port" in second.fix
    assert (third.state, third.found) == ("ok", "DVS128, firmware 6, USB 2 (480 Mbit/s)")  # it can no more


@pytest.mark.parametrize(
    ("text", "state", "found"),
    [(IN_USE, "note", "another program uses it"), (NOT_ALLOWED, "bad", "it cannot be opened: Failed to open USB")],
)
def test_one_that_cannot_be_opened_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, state: str, found: str
) -> None:
    camera = FakeCamera(Davis)
    camera.refuses = failure(text)
    (said,) = surveyed(monkeypatch, capsys, camera)
    assert said.state == state and found in said.found and said.fix
    assert "\n" not in said.found


def test_a_driver_that_raises_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    driver = FakeDriver()
    monkeypatch.setattr(driver, "discover", lambda: (_ for _ in ()).throw(failure("Failed to initialize libusb.")))
    monkeypatch.setattr(doctor_cameras, "driver", lambda: driver)
    doctor_cameras.survey()
    (said,) = answered(monkeypatch, capsys.readouterr().out)
    assert said == Finding("note", "event cameras", "the driver failed: Failed to initialize libusb.")


def test_a_driver_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    doctor_cameras.survey()
    (said,) = answered(monkeypatch, capsys.readouterr().out)
    assert said.found.endswith("pip install dv-processing")


def test_a_driver_that_hangs_or_crashes_takes_nothing_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_cameras, "CHILD", "import os; print('bye', flush=True); os._exit(7)")
    assert next(doctor_cameras.cameras()).found == "the driver crashed: exit code 7"
    monkeypatch.setattr(doctor_cameras, "CHILD", "import time; time.sleep(30)")
    monkeypatch.setattr(doctor_cameras, "TIMEOUT_S", 0.2)
    hangs = next(doctor_cameras.cameras())
    assert hangs.found == "the driver gave no answer in 0.2 s" and hangs.fix


# --- systems ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "version", "fix"),
    [
        ("Linux", "Linux version 6.8.0-45-generic (buildd@lcy02)", ""),
        ("Linux", "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@)", "usbipd attach --wsl --busid BUSID"),
        ("Windows", "", "WinUSB"),
        ("Darwin", "", ""),
    ],
)
def test_where_none_is_found_the_system_tells_what_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, root: Path, system: str, version: str, fix: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    write(root / "proc/version", version)
    (said,) = answered(monkeypatch, json.dumps({"cameras": []}))
    assert (said.state, said.found) == ("note", "none found")
    assert fix in said.fix and bool(fix) == bool(said.fix)


def plug_in(root: Path, product: str, vendor: str = "152a") -> Path:
    """A device on the USB bus; its node in /dev."""
    device = root / "sys/bus/usb/devices/2-1"
    for name, text in (("idVendor", vendor), ("idProduct", product), ("busnum", "2"), ("devnum", "17")):
        write(device / name, text)
    node = root / "dev/bus/usb/002/017"
    write(node, "")
    return node


def forbid(monkeypatch: pytest.MonkeyPatch, *nodes: Path) -> None:
    monkeypatch.setattr("os.access", lambda path, _: path not in nodes)


def test_the_udev_rule_is_given_only_where_a_camera_needs_it(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert list(doctor_cameras._permissions()) == []
    node = plug_in(root, "841a")
    forbid(monkeypatch)
    assert list(doctor_cameras._permissions()) == []
    forbid(monkeypatch, node)
    (said,) = doctor_cameras._permissions()
    assert said.state == "bad" and str(node) in said.found
    assert "sudo tee /etc/udev/rules.d/65-inivation.rules" in said.fix and doctor_cameras.RULE in said.fix
    write(root / "lib/udev/rules.d/65-inivation.rules", doctor_cameras.RULE)
    (said,) = doctor_cameras._permissions()
    assert said.fix.startswith("plug the camera in again") and "tee" not in said.fix


@pytest.mark.parametrize(("vendor", "product"), [("152a", "8750"), ("046d", "841a")])
def test_devices_of_others_need_no_rule(monkeypatch: pytest.MonkeyPatch, root: Path, vendor: str, product: str) -> None:
    forbid(monkeypatch, plug_in(root, product, vendor))
    assert list(doctor_cameras._permissions()) == []


@pytest.mark.parametrize("product", ["8400", "8419", "841a", "841b"])
def test_the_rule_is_for_the_cameras_that_are_looked_for(product: str) -> None:
    pattern = re.search(r'idProduct\}=="([^"]+)"', doctor_cameras.RULE)
    assert pattern is not None and re.fullmatch(pattern[1].replace("?", "."), product)


def test_webcams_are_listed_by_their_address(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert [found.found for found in doctor_cameras._webcams()] == ["none found"]
    for number, index, name in ((10, 0, "Logitech C920"), (0, 0, "Integrated Camera"), (1, 1, "Integrated Camera")):
        write(root / f"sys/class/video4linux/video{number}/name", name)
        write(root / f"sys/class/video4linux/video{number}/index", str(index))
        write(root / f"dev/video{number}", "")
    forbid(monkeypatch)
    (said,) = doctor_cameras._webcams()
    assert said == Finding("ok", "webcams", "webcam:0 (Integrated Camera), webcam:10 (Logitech C920)")
    forbid(monkeypatch, root / "dev/video10")
    _, closed = doctor_cameras._webcams()
    assert closed.state == "bad" and "video10" in closed.found and "usermod -aG video" in closed.fix
