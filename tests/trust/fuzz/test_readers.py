"""Hostile files of the formats that native libraries decode, in a process apart: data or one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trust.fuzz.harness import Format, fuzz
from tests.trust.fuzz.hdf5 import HDF5
from tests.trust.fuzz.prophesee import DAT, ES, EVT2, EVT3
from tests.trust.fuzz.video import VIDEO
from tests.trust.ledger import Ledger

pytest.importorskip("faery")

FORMATS = (EVT2, EVT3, DAT, ES, HDF5, VIDEO)


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_each_ends_in_data_or_in_one_line(
    format: Format, ledger: Ledger, nightly: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fuzz(format, ledger, nightly=nightly, capsys=capsys, tmp_path=tmp_path)
