"""The harness itself: what hangs, crashes, eats memory or says too much is a failure, kept and told how to repeat."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.trust.fuzz import child, harness
from tests.trust.fuzz.child import DATA, REFUSED, Child, Children
from tests.trust.fuzz.harness import Case, Format, fuzz, made
from tests.trust.fuzz.routes import judged
from tests.trust.ledger import Ledger


def nothing(_: Path) -> None:
    """A process that only runs routes."""


def reads(path: Path) -> str:
    """reads a file."""
    content = path.read_bytes()
    assert content != b"bad", "it is bad"
    return DATA if content == b"good" else REFUSED


def crashes(_: Path) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return DATA


def hangs(_: Path) -> str:
    time.sleep(60)
    return DATA


def eats(_: Path) -> str:
    return DATA if np.ones(25_000_000).sum() else REFUSED


def raises(_: Path) -> str:
    raise KeyError("missing")


def test_a_process_that_hangs_or_crashes_is_a_failure_and_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_PATIENCE_S", 4.0)
    (tmp_path / "a").write_bytes(b"good")
    own = Child(nothing)
    try:
        assert own.run(crashes, tmp_path / "a").failure == "the process crashed, exit code -11"
        assert own.run(hangs, tmp_path / "a").failure == "it hangs"
        assert re.match(r"KeyError: 'missing' at .*test_harness.py:\d+", own.run(raises, tmp_path / "a").failure)
        hungry, good = own.run(eats, tmp_path / "a"), own.run(reads, tmp_path / "a")
        assert 190 < hungry.mb < 300 and good.mb < 20 and (good.ended, good.failure) == (DATA, "")
    finally:
        own.close()


def test_a_case_that_failed_is_kept_with_what_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Children(nothing)
    monkeypatch.setattr(harness, "CHILDREN", own)
    monkeypatch.setattr(harness, "CASES", 4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    contents = {"harmless": b"good", "harmful": b"bad", "odd": b"odd"}
    mutators = {name: lambda rng, case, other, to=to: case.but(data=to) for name, to in contents.items()}
    tried = Format("tried", lambda folder: [Case({"a": b"good"}, "a")], mutators, (reads,))
    try:
        with pytest.raises(AssertionError) as caught:
            fuzz(tried, Ledger(), nightly=False, capsys=capsys, tmp_path=tmp_path)
    finally:
        own.close()
    told = re.search(r"reads a file: 1, harmful.*: it is bad \[python -m (\S+) (\S+) '(.*)'\]", str(caught.value))
    assert told and told[1] == "tests.trust.fuzz.child" and told[2] == f"{__name__}:reads"
    assert Path(told[3]).read_bytes() == b"bad"


def test_a_case_is_made_again_by_its_number() -> None:
    harm = {"noise": lambda rng, case, other: case.but(data=rng.bytes(8))}
    tried, seeds = Format("tried", lambda folder: [], harm, ()), [Case({"a": b"good"}, "a")]
    assert made(tried, seeds, 7) == made(tried, seeds, 7) != made(tried, seeds, 8)


@pytest.mark.parametrize(
    ("code", "out", "err", "ended"),
    [
        (0, '{"a": 1}\n', "", DATA),
        (1, "", "velora: a.raw: it is empty\n", REFUSED),
        (1, '{"a": 1}\n', "velora: a.raw: it is damaged\n", REFUSED),
        (130, '{"a": 1}\n', "", DATA),
        (0, "", "", None),
        (130, "", "", None),
        (1, "", "", None),
        (1, "", "Traceback (most recent call last):\nvelora: oh\n", None),
        (1, "", "velora: KeyError: 'a' (--debug shows where)\n", None),
        (1, "", "velora: a\x1b[31m\n", None),
        (0, '{"a": NaN}\n', "", None),
        (0, "a\n", "", None),
        (2, "", "usage: velora\n", None),
    ],
)
def test_a_command_ends_in_data_or_in_one_line(code: int, out: str, err: str, ended: str | None) -> None:
    if ended is None:
        with pytest.raises((AssertionError, ValueError)):
            judged(code, out, err)
    else:
        assert judged(code, out, err) == ended
