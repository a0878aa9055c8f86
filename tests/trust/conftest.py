"""The ledger in which tests of what goes wrong note how it went."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trust.ledger import BUSY, Ledger


@pytest.fixture(scope="session")
def nightly(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of it."""
    return bool(request.config.getoption("--nightly"))


@pytest.fixture(scope="session")
def all_rows(request: pytest.FixtureRequest, nightly: bool) -> Iterator[Ledger]:
    """Those of all tests, which are shown at the end where the page is written.

    Bounds on times hold on a machine that does nothing else, which is where the long runs belong.
    """
    own = Ledger(1.0 if nightly else BUSY)
    yield own
    if request.config.getoption("--reliability") and own.rows:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            own.show()


@pytest.fixture
def ledger(request: pytest.FixtureRequest, all_rows: Ledger) -> Iterator[Ledger]:
    """What a test notes is on the page, where that is asked for, as soon as it is over: all of them take hours."""
    yield all_rows
    if name := request.config.getoption("--reliability"):
        all_rows.write(name)
