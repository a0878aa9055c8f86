"""The AEDAT 4 codec under a fuzzer that looks for new ways through it; for some minutes, at night alone."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trust.ledger import Ledger

_SECONDS = 300
SECONDS_VARIABLE = "VELORA_FUZZ_SECONDS"  # another number of them
_FIGURES = {
    "cases": r"number_of_executed_units:\s+(\d+)",
    "slowest": r"slowest_unit_time_sec:\s+(\d+)",
    "mb": r"peak_rss_mb:\s+(\d+)",
    "reached": r"cov: (\d+)",
}


def test_no_input_raises_what_a_reader_would_not_expect(ledger: Ledger, nightly: bool, tmp_path: Path) -> None:
    if not nightly:
        pytest.skip("takes minutes: --nightly")
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris: pip install -e '.[fuzz]'")
    seconds = int(os.environ.get(SECONDS_VARIABLE, _SECONDS))
    line = [sys.executable, "-m", "tests.trust.fuzz.codec", str(tmp_path), str(seconds)]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=seconds + 300)
    told = {name: re.findall(pattern, done.stderr) for name, pattern in _FIGURES.items()}
    assert told["cases"], done.stderr[-2000:]
    found = {name: int(values[-1]) for name, values in told.items() if values}
    row = ledger.row("the AEDAT 4 codec", "inputs that follow its branches (atheris)", most_s=5)
    row.cases, row.worst_mb = found["cases"] - 1, found["mb"]
    row.found = f"{found['reached']:,} branches reached in {seconds} s"
    row.add("inputs", seconds=found["slowest"], failure=done.stderr[-1500:] if done.returncode else "")
    row.check()
