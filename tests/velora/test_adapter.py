"""Every adapter computes W x + b + dW x for the stream of each image, merges into W, and comes out again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.velora.conftest import TINY, make_config, make_model
from velora.adapter import Adapter, merge, merged, unmerge
from velora.config import STREAMS
from velora.encoders import Encoders

ADAPTED = {"lora": {}, "clora": {"adapter": "clora", "pairs": 3}, "released": {"preset": "released"}}


@pytest.fixture(params=ADAPTED)
def encoders(request: pytest.FixtureRequest) -> Encoders:
    return make_model(make_config(**ADAPTED[request.param])).encoders


def adapter_of(encoders: Encoders) -> Adapter:
    return encoders.adapters["streams"]


def test_any_mixture_of_streams_equals_each_alone(encoders: Encoders) -> None:
    streams = torch.tensor([2, 0, 1, 1, 0])
    route = encoders.route(streams)
    assert route
    for layer in adapter_of(encoders).layers:
        frozen = encoders.tower.get_submodule(layer)
        x = torch.randn(len(streams), 3, frozen.in_features)
        y = route.add(layer, x, frozen(x))
        for i, stream in enumerate(streams):
            weight = frozen.weight + adapter_of(encoders).delta(layer, STREAMS[stream])
            torch.testing.assert_close(y[i], F.linear(x[i], weight, frozen.bias), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(route.gain(layer, x), y - frozen(x), atol=1e-5, rtol=1e-5)


def test_adapters_change_something(encoders: Encoders) -> None:
    for layer in adapter_of(encoders).layers:
        deltas = [adapter_of(encoders).delta(layer, stream) for stream in STREAMS]
        assert all(delta.abs().max() > 1e-3 for delta in deltas)
        assert not torch.allclose(deltas[0], deltas[1], atol=1e-3)


def test_merged_copies_equal_stacked_streams(encoders: Encoders) -> None:
    images = torch.randn(6, 3, TINY.image_size, TINY.image_size)
    streams = torch.tensor([0, 1, 2, 2, 1, 0])
    blocks = len(encoders.tower.blocks) - (1 if "fusion" in encoders.adapters else 0)
    stacked = encoders.tower.run(encoders.tower.embed(images), 0, blocks, encoders.route(streams))
    for i, stream in enumerate(STREAMS):
        copy = merged(encoders.tower, adapter_of(encoders), stream)
        plain = copy.run(copy.embed(images[streams == i]), 0, blocks)
        torch.testing.assert_close(plain, stacked[streams == i], atol=1e-5, rtol=1e-5)


def test_merging_is_undone(encoders: Encoders) -> None:
    tower, adapter = encoders.tower, adapter_of(encoders)
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    merge(tower, adapter, "event")
    changed = [name for name, tensor in tower.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == [f"{layer}.weight" for layer in adapter.layers]
    unmerge(tower, adapter, "event")
    for name, tensor in tower.state_dict().items():
        torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=1e-6)


def test_a_merged_copy_leaves_the_shared_tower_alone(encoders: Encoders) -> None:
    before = {name: tensor.clone() for name, tensor in encoders.tower.state_dict().items()}
    merged(encoders.tower, adapter_of(encoders), "rgb")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoders.tower.state_dict().items())
