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


@pytest.mark.parametrize("variant", VARIANTS)
def test_blanks_are_encoded_once_and_count_as_if_each_had_been(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(make_config(**VARIANTS[variant]))
    rgb, event = torch.randn(2, 3, 4, 3, TINY.image_size, TINY.image_size)
    event[0], event[2], rgb[1], rgb[2, 1:3] = 1.0, 1.0, -1.0, -1.0
    encoded: list[int] = []
    encode = type(model).encode

    def counted(self: object, images: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
        encoded.append(len(images))
        return encode(self, images, streams)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model), "encode", counted)
    few = model(rgb, event)
    everything = lambda images, _: (torch.arange(len(images)),) * 2  # noqa: E731
    monkeypatch.setattr("velora.model._distinct", everything)
    torch.testing.assert_close(few, model(rgb, event), atol=1e-4, rtol=1e-4)
    # of 8 blank event images one, of 6 blank RGB images one; the motion is blank where neither changes
    assert encoded[1] - encoded[0] == 7 + 5 + max(0, sum(blank_motion(rgb, event)) - 1) * (encoded[1] > 24)


def blank_motion(rgb: torch.Tensor, event: torch.Tensor) -> list[bool]:
    motion = rgb.diff(dim=1).abs() + event.diff(dim=1).abs()
    return [bool((image == 0).all()) for image in motion.flatten(0, 1)]
