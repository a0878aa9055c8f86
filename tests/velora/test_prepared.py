"""A prepared tower computes what the plain one does, for every adapter and preset, in each dtype."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from tests.velora.conftest import TINY, VARIANTS, make_config, make_model, make_sample, normalized, tiny_backbone
from velora.prepared import PreparedTower, stack
from velora.recognizer import Recognizer
from velora.vit import VisionTower
from velora.weights import random_tower


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 2e-5), (torch.bfloat16, 0.06)])
def test_codes_equal_those_of_the_plain_tower(variant: str, dtype: torch.dtype, atol: float) -> None:
    model = make_model(make_config(**VARIANTS[variant]))
    model.encoders.to(dtype)
    generator = torch.Generator().manual_seed(3)
    images, streams = torch.randn(5, 3, 32, 32, generator=generator), torch.tensor([2, 0, 1, 1, 0])
    streams = streams.clamp(max=len(model.config.streams) - 1)
    with torch.inference_mode():
        plain = model.encode(images, streams)
        model.encoders.prepare()
        prepared = model.encode(images, streams)
    assert not torch.equal(plain, torch.zeros_like(plain)) and prepared.dtype == plain.dtype
    size = plain.float().abs().mean()
    assert (prepared.float() - plain.float()).abs().max() < atol * max(1.0, float(size))


@pytest.mark.parametrize("variant", ["paper", "paper-clora", "released-tokens"])
def test_a_session_gives_the_same_probabilities(variant: str) -> None:
    model = make_model(make_config(**VARIANTS[variant]))
    plain, fast = Recognizer("plain", copy.deepcopy(model)), Recognizer("fast", model)
    fast.model.encoders.prepare()
    sessions = plain.open(), fast.open()
    for index in range(6):
        a, b = (session.push(make_sample(index)) for session in sessions)
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.probabilities == pytest.approx(b.probabilities, abs=1e-4) and a.label == b.label


def test_gradients_go_through_the_plain_tower() -> None:
    model = make_model(make_config(adapter="clora"))
    model.encoders.prepare()
    rgb, event = normalized(Recognizer("it", model), [make_sample(i) for i in range(4)])
    model.encoders.adapters.requires_grad_(True)
    model(rgb, event).sum().backward()  # in-place products of the prepared one could not


@pytest.mark.parametrize("adapter", ["lora", "clora"])
def test_a_stack_holds_each_streams_own_change(adapter: str) -> None:
    encoders = make_model(make_config(adapter=adapter)).encoders
    own = encoders.each_adapter()[0]
    for layer in own.layers:
        down, up, mask = stack(own, layer)
        for s, stream in enumerate(own.streams):
            assert torch.allclose(up @ torch.diag(mask[s]) @ down, own.delta(layer, stream), atol=1e-5)
        assert torch.equal(mask.sum(0), torch.ones(mask.shape[1]))


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_plain_gelu_and_features(dtype: torch.dtype, atol: float) -> None:
    with tiny_backbone():
        tower = VisionTower(dataclasses.replace(TINY, quick_gelu=False))
        tower.load_state_dict(random_tower("demo", torch.Generator().manual_seed(0)).state_dict())
    tower.requires_grad_(False).to(dtype)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(PreparedTower(tower, None)(images).float(), tower(images).float(), atol=atol)


def test_without_the_operators_that_pack_it_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr("velora.prepared._packed", gone)
    test_codes_equal_those_of_the_plain_tower("paper", torch.bfloat16, 0.06)
