"""Fixtures that several tests of streams share: a camera of iniVation, what it yields, and files read apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streams.dv_camera import DvCameraSource
from tests.fake_dv import FakeCamera, FakeDriver
from tests.streams.apart_tools import idle, opened, others
from tests.streams.dv_feed import Taken

__all__ = ["camera", "driver", "idle", "opened", "others", "taken"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """A DAVIS346 that looks at nothing yet."""
    driver = FakeDriver(FakeCamera())
    monkeypatch.setattr("streams.dv_camera.driver", lambda: driver)
    monkeypatch.setattr("streams.dv_camera._RETRY_S", (0.02, 0.05))
    return driver


@pytest.fixture
def camera(driver: FakeDriver) -> FakeCamera:
    return driver.cameras[0]


@pytest.fixture
def taken(driver: FakeDriver) -> Iterator[Callable[..., Taken]]:
    """Opens a camera, and takes what it yields."""
    opened: list[Taken] = []

    def take(address: str = "dv:", **options: Any) -> Taken:
        opened.append(Taken(DvCameraSource(address, **options)))
        return opened[-1]

    yield take
    for one in opened:
        one.source.close()
        one.thread.join(5)
        assert not one.thread.is_alive()
