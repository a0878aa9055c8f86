"""Which device, and which numbers."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
import torch

from velora.devices import choose_dtype


@pytest.mark.parametrize(("computes", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_gpus_that_only_emulate_bfloat16_get_none(
    monkeypatch: pytest.MonkeyPatch, computes: bool, expected: torch.dtype
) -> None:
    asked, chosen = MagicMock(return_value=computes), MagicMock()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", asked)
    monkeypatch.setattr(torch.cuda, "device", chosen)
    assert choose_dtype("auto", torch.device("cuda:1")) == expected
    asked.assert_called_once_with(including_emulation=False)
    chosen.assert_called_once_with(torch.device("cuda:1"))
