"""Hostile files of the formats whose decoders are this project's own, or safe libraries': data or one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trust.fuzz.aedat2 import AEDAT2
from tests.trust.fuzz.aedat3 import AEDAT3
from tests.trust.fuzz.aedat4 import AEDAT4
from tests.trust.fuzz.checkpoints import CHECKPOINTS
from tests.trust.fuzz.harness import Format, fuzz
from tests.trust.fuzz.images import IMAGES
from tests.trust.fuzz.labels import LABELS
from tests.trust.fuzz.lists import LISTS
from tests.trust.fuzz.pickled import RELEASED, WEIGHTS
from tests.trust.ledger import Ledger

FORMATS = (AEDAT4, AEDAT3, AEDAT2, IMAGES, LABELS, LISTS, CHECKPOINTS, RELEASED, WEIGHTS)


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_each_ends_in_data_or_in_one_line(
    format: Format, ledger: Ledger, nightly: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fuzz(format, ledger, nightly=nightly, capsys=capsys, tmp_path=tmp_path)
