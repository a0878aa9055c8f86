"""The module's own forward: whole windows, each alone."""

from __future__ import annotations

import pytest
import torch

from tests.velora.conftest import TINY, VARIANTS, make_config, make_model

BATCHED = {name: changes for name, changes in VARIANTS.items() if changes.get("attend_over") != "batch"}


@pytest.mark.parametrize("variant", BATCHED)
def test_a_windows_result_does_not_depend_on_its_batch(variant: str) -> None:
    model = make_model(make_config(**BATCHED[variant]))
    rgb, event = torch.randn(2, 3, 4, 3, TINY.image_size, TINY.image_size)
    both = model(rgb, event)
    assert both.shape == (3, 3)
    for i in range(3):
        torch.testing.assert_close(model(rgb[i : i + 1], event[i : i + 1]), both[i : i + 1], atol=1e-4, rtol=1e-4)


def test_over_the_batch_it_does_as_in_the_released_code() -> None:
    model = make_model(make_config(preset="released", attend_over="batch"))
    rgb, event = torch.randn(2, 3, 4, 3, TINY.image_size, TINY.image_size)
    assert (model(rgb, event)[:1] - model(rgb[:1], event[:1])).abs().max() > 1e-3


def test_refuses_unequal_windows() -> None:
    model = make_model(make_config())
    with pytest.raises(ValueError, match=r"\[1, 2, 3, 224, 224\]"):
        model(torch.zeros(1, 2, 3, 224, 224), torch.zeros(1, 1, 3, 224, 224))
