"""Fixtures that several of these tests share, and those of tests of other packages that faults are tried with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.conftest import data_folder
from tests.app.test_live import calm_recording, recording, start
from tests.streams.conftest import camera, driver
from tests.trust.faults.disk_work import make_given
from tests.trust.faults.yard import yard
from tests.velora.conftest import one_thread

__all__ = ["calm_recording", "camera", "data_folder", "driver", "one_thread", "recording", "start", "yard"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands that write are given."""
    return make_given(tmp_path_factory.mktemp("given"))
