"""A feed that is looked at for an hour, or a minute of it: nothing grows, nothing slows down, every label is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console
from rich.table import Table

from recordings import bundled
from tests.app.test_live import Program, start  # noqa: F401 (a fixture)
from tests.trust.ledger import PAGE, Ledger
from tests.trust.soak.looker import Row

ROOT = Path(__file__).parents[3]
_MUCH = 0.05  # of the machine's time


def test_an_hour_of_live_input(
    ledger: Ledger,
    nightly: bool,
    start: Callable[..., Program],  # noqa: F811
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Of the bundled recording, served in a loop, recognised by the demo model and drawn as for a page."""
    seconds, every_s = (3600, 60) if nightly else (60, 5)
    server = start("serve", str(bundled()["cards"]), "--loop")
    address, served = server.line().strip(), psutil.Process(server.process.pid)
    before_mb, out = served.memory_info().rss / 1e6, tmp_path / "soak.csv"
    line = [sys.executable, "-m", "tests.trust.soak.looker", address, str(seconds), str(every_s), str(out)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 120)
    assert done.returncode == 0, done.stderr
    grown_mb = served.memory_info().rss / 1e6 - before_mb
    rows = Row.read(out)
    if nightly:
        _show(rows, request)
        if request.config.getoption("--reliability"):
            shutil.copy(out, PAGE.with_name("soak.csv"))
    _check_memory(ledger, rows, nightly, grown_mb)
    _check_latency(ledger, rows, nightly)
    _check_drift(ledger, rows)
    _check_labels(ledger, rows, nightly)


def _check_memory(ledger: Ledger, rows: Sequence[Row], nightly: bool, served_mb: float) -> None:
    """In the first minutes torch and the page's caches fill, which is most of what there is to see in a minute.

    Medians: what the allocator keeps for later comes and goes by half a per cent.
    """
    most = 0.01 if nightly else 0.05
    row = ledger.row("memory", "live, looked at", most_mb=1500)
    warm = rows[4:14] if nightly else rows[3:6]
    begun, last = (float(np.median([one.memory_mb for one in part])) for part in (warm, rows[-len(warm) :]))
    grown = last / begun - 1
    failure = "" if grown <= most else f"it grew by {grown:.1%}"
    row.add("the viewer's process", seconds=rows[-1].seconds, mb=max(one.memory_mb for one in rows), failure=failure)
    row.add(
        "the server's", seconds=rows[-1].seconds, failure="" if served_mb < 60 else f"it grew by {served_mb:.0f} MB"
    )
    row.found = (
        f"{grown:+.2%} from {warm[0].seconds / 60:.1f} to {rows[-1].seconds / 60:.1f} min (at most {most:.0%}); "
        f"the server {served_mb:+.0f} MB"
    )
    row.check()


def _check_latency(ledger: Ledger, rows: Sequence[Row], nightly: bool) -> None:
    """Of a quarter the median of its p99; on a machine with other work a minute tells little.

    Minutes that neighbours of a virtual machine took much of count only where there are too few others: they slow
    labels down, so that a last quarter that is no slower, and hardly calmer than the first, still tells what it must.
    """
    row = ledger.row("latency", "of labels, p99")
    quarters = [_first(rows), _last(rows)]
    calm = [[one for one in part if one.stolen < _MUCH] for part in quarters]
    if min(map(len, calm)) >= 5:
        quarters = calm
    (first, taken), (last, taken_last) = (
        np.median([(one.label_p99_ms, one.stolen) for one in part], axis=0).tolist() for part in quarters
    )
    bound = row.slack * (1.5 * first + 20)
    failure = "" if last <= bound else f"p99 rose from {first:.0f} to {last:.0f} ms"
    if nightly and taken_last < taken - _MUCH:
        failure = f"neighbours took {taken:.0%} of the machine at first, {taken_last:.0%} at last: ask a quieter one"
    row.add("p99", seconds=last / 1e3, failure=failure)
    row.found = (
        f"first quarter {first:.0f} ms, last {last:.0f} (at most {bound:.0f}), "
        f"while neighbours took {taken:.0%} and {taken_last:.0%} of the machine"
    )
    row.check()


def _check_drift(ledger: Ledger, rows: Sequence[Row]) -> None:
    row = ledger.row("time", "of events against that of frames")
    first, last = (float(np.median([one.drift_ms for one in part])) for part in (_first(rows), _last(rows)))
    drift = abs(last - first)
    row.add("drift", seconds=drift / 1e3, failure="" if drift <= row.slack * 5 else f"it drifted by {drift:.1f} ms")
    row.found = f"drift {drift:.2f} ms (at most 5)"
    row.check()


def _check_labels(ledger: Ledger, rows: Sequence[Row], nightly: bool) -> None:
    """A sample that was dropped is missing in the windows of as many labels as a window has samples, 8.

    A stride that changes, which drops alone bring about, may do so one label later than it is told.
    """
    row, last = ledger.row("labels", "as many as the stride promises"), rows[-1]
    missing = last.due - last.labels
    failure = (
        ""
        if -1 <= missing <= 8 * last.dropped + last.changes
        else f"{missing} labels are missing, {last.dropped} dropped"
    )
    row.add("labels", seconds=last.seconds, failure=failure)
    row.found = f"{last.labels:,} of {last.due:,} due, {last.dropped:,} samples dropped, and counted; {last.gaps} loops"
    begun = rows[0]  # by then what the server had sent while the model was loaded has been caught up with
    fps = (last.samples - begun.samples) / (last.seconds - begun.seconds)
    assert last.labels > 50 and (25 if nightly else 10) < fps < 33
    row.check()


def _first(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[: max(1, len(rows) // 4)]


def _last(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[-max(1, len(rows) // 4) :]


def _show(rows: Sequence[Row], request: pytest.FixtureRequest) -> None:
    names = Row.__slots__
    table = Table(*names)
    for row in rows:
        table.add_row(*(f"{getattr(row, name):,}" for name in names))
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        Console(width=160).print(table)
