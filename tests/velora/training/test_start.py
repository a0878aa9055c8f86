"""What training starts from: the nearest class mean, of whatever a training set holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.velora.conftest import tiny_backbone
from tests.velora.training.made import LABELS, clip, config_of, data_of, start, tower
from velora.checkpoint import build_model
from velora.errors import ModelError
from velora.recognizer import Recognizer
from velora.training.clips import ClipSet
from velora.training.evaluate import answer
from velora.training.start import class_means, nearest_class_mean, new_head
from velora.training.trainer import Data
from velora.training.windows import slots


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


def test_a_tower_that_was_moved_to_a_device_can_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """As to CUDA: weights that are copied in inference mode are lost to training."""

    def moved(module: nn.Module, *_: object, **__: object) -> nn.Module:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        return module

    monkeypatch.setattr(nn.Module, "to", moved)
    config, own = config_of(), tower()
    nearest_class_mean(start(config), own, data_of(config))
    assert not any(parameter.is_inference() for parameter in own.parameters())


def test_a_label_of_which_there_is_little_among_much_gets_its_mean() -> None:
    config = config_of()
    clips = tuple(clip(label, count, seed=label) for label, count in ((0, 3_000), (1, 3_000), (2, 16)))
    train = ClipSet(LABELS, clips)
    data = Data(train, slots(train.clips, config, "stream"), train, [])
    assert sum(slot.label == 2 for slot in data.slots) < len(data.slots) / 100
    bias = new_head(start(config), tower(), data).tensors["fuser.head.bias"]
    assert (bias > -100).all()


def test_a_label_without_clips_is_never_said() -> None:
    config = config_of()
    train = ClipSet(LABELS, (clip(0), clip(1)))
    data = Data(train, slots(train.clips, config, "stream"), train, [])
    bias = new_head(start(config), tower(), data).tensors["fuser.head.bias"]
    assert bias[2] < -500 and (bias[:2] > -100).all()


def test_one_window_is_enough_for_a_head() -> None:
    weight, bias = class_means(torch.ones(1, 4), torch.tensor([0]), 1)
    assert torch.isfinite(weight).all() and torch.isfinite(bias).all()


def test_few_shot_starts_from_the_nearest_class_mean() -> None:
    config = config_of()
    data = data_of(config)
    baseline = nearest_class_mean(start(config), tower(), data)
    begun = new_head(start(config), tower(), data)
    model = build_model(begun, tower())
    found = answer(Recognizer("it", model), data.val, "stream", most=2)
    assert baseline is not None and baseline > 0.5
    assert (found.logits.argmax(axis=1) == found.truth).mean() == pytest.approx(baseline, abs=0.01)
    assert nearest_class_mean(begun, tower(), data, new_head=True) == baseline
    untouched = {name for name in begun.tensors if not name.startswith("fuser.head")}
    assert all(torch.equal(begun.tensors[name], start(config).tensors[name]) for name in untouched)


def test_what_classes_share_does_not_drown_what_tells_them_apart_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    shared, own = 3 * torch.randn(64, generator=generator), 0.1 * torch.randn(4, 64, generator=generator)
    truth = torch.arange(40) % 4
    features = shared + own[truth] + 0.02 * torch.randn(40, 64, generator=generator)
    weight, bias = class_means(features, truth, 5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.nn.functional.linear(features, weight, bias).float()
    assert (logits.argmax(dim=1) == truth).all()
    assert 1 < logits[:, :4].std() < 5 and (logits[:, 4] < -900).all()  # what was never seen is never said


def test_features_that_are_not_finite_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    checkpoint = start(config)
    broken = {k: torch.full_like(v, torch.nan) if "fuser" not in k else v for k, v in checkpoint.tensors.items()}
    with pytest.raises(ModelError, match="not finite: try --dtype fp32"):
        new_head(dataclasses.replace(checkpoint, tensors=broken), tower(), data_of(config))
