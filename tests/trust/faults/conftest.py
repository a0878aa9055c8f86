"""Fixtures of tests of other packages that faults are tried with."""

from tests.app.conftest import data_folder
from tests.app.test_live import recording, start
from tests.streams.conftest import camera, driver
from tests.velora.conftest import one_thread

__all__ = ["camera", "data_folder", "driver", "one_thread", "recording", "start"]
