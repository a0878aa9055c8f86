"""Hostile files of the formats whose decoders are this project's own, or safe libraries': data or one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trust.fuzz.aedat4 import AEDAT4
from tests.trust.fuzz.harness import Format, fuzz
from tests.trust.ledger import Ledger

FORMATS = (AEDAT4,)


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_each_ends_in_data_or_in_one_line(
    format: Format, ledger: Ledger, nightly: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fuzz(format, ledger, nightly=nightly, capsys=capsys, tmp_path=tmp_path)
