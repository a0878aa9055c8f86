"""The ledger in which tests of what goes wrong note how it went."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trust.ledger import Ledger


@pytest.fixture(scope="session")
def nightly(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of it."""
    return bool(request.config.getoption("--nightly"))


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Rows are shown at the end, and written to the page where that is asked for."""
    own, name = Ledger(), request.config.getoption("--reliability")
    yield own
    if name and own.rows:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            own.show()
        own.write(name)
