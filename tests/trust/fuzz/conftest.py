"""The processes that take the cases end with the last test that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trust.fuzz.harness import CHILDREN


@pytest.fixture(scope="package", autouse=True)
def their_end() -> Iterator[None]:
    yield
    CHILDREN.close()
