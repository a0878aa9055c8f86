"""Fixtures of tests of other packages that faults are tried with."""

from tests.app.conftest import data_folder
from tests.app.test_live import recording, start
from tests.streams.conftest import camera, driver

__all__ = ["camera", "data_folder", "driver", "recording", "start"]
