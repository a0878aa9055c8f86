"""Kills at any moment: what anybody sees is whole, no process is left, and the same command ends as it would have.

`velora label` has more of this in tests/app/test_label_killed.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trust.faults.disk import Commands, files
from tests.trust.faults.disk_work import WORKS, damaged
from tests.trust.ledger import Ledger

pytest.importorskip("av")

_QUICK = ("record", "simulate a set", "export to csv", "convert")
_NIGHTLY = tuple(work.name for work in WORKS if not work.stdout)
_MOMENTS, _MOMENTS_NIGHTLY = 1, 10


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with Commands(tmp_path_factory.mktemp("killed")) as commands:
        yield commands


def test_a_kill_at_any_moment(commands: Commands, given: Path, ledger: Ledger, nightly: bool) -> None:
    names, moments = (_NIGHTLY, _MOMENTS_NIGHTLY) if nightly else (_QUICK, _MOMENTS)
    row = ledger.row("kill -9", ", ".join(names))
    dice = random.Random(0)
    for work in WORKS:
        if work.name not in names:
            continue
        whole = commands.python(work.code(given, commands.path))
        assert whole.code == 0, whole.stderr
        expected = files(commands.seen)
        commands.clear()
        for moment in range(moments):
            share = (moment + dice.random()) / moments
            killed = commands.python(work.code(given, commands.path), kill_s=whole.seconds * share)
            troubles = [f"left: {killed.left}"] if killed.left else []
            if killed.code < 0:
                troubles += damaged(commands.seen, killed=True)
            if files(commands.seen) != expected:  # else it had come to its end
                again = commands.python(work.code(given, commands.path, again=True))
                if again.code or files(commands.seen) != expected:
                    troubles.append(f"it does not go on: {again.stderr[-300:]}")
            troubles += damaged(commands.seen, killed=True)
            row.add(f"{work.name} at {share:.0%}", seconds=killed.seconds, mb=killed.mb, failure="; ".join(troubles))
            commands.clear()
    row.check()
