"""Palettes: the training colours become others exactly, and mixtures of them mixtures."""

from __future__ import annotations

import numpy as np
import pytest

from app.palette import FILTERS, PALETTES, matrix
from streams.render import OFF, ON, WHITE


@pytest.mark.parametrize("name", PALETTES)
def test_nothing_on_and_off_become_the_palettes(name: str) -> None:
    for source, target in zip((WHITE, ON, OFF), PALETTES[name], strict=True):
        found = matrix(PALETTES[name]) @ (np.array([*source, 255]) / 255)
        assert found * 255 == pytest.approx(target, abs=0.5)


def test_each_is_a_filter_of_the_page() -> None:
    assert all(f'id="palette-{name}"' in FILTERS for name in PALETTES)
