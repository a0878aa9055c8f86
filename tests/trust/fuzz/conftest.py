"""The process that takes the cases ends with the last test that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trust.fuzz.harness import CHILD


@pytest.fixture(scope="package", autouse=True)
def one_process() -> Iterator[None]:
    yield
    CHILD.close()
