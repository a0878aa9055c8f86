"""Stacked adapters equal PEFT's own forward, train as they should, and survive a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.velora.conftest import make_config
from velora.backbones import BACKBONES
from velora.errors import ModelError
from velora.lora import (
    FUSION,
    STREAMS,
    adapted_layers,
    adapted_linear,
    adapter_shapes,
    insert_lora,
    insert_stacked,
    lora_state,
    route_of,
)
from velora.model import VELoRA
from velora.vit import VisionTower


def adapted_tower() -> tuple[VisionTower, nn.Module]:
    """A tower with PEFT's adapters whose B are not zero, and PEFT's model around it."""
    torch.manual_seed(0)
    tower = VisionTower(BACKBONES["demo"]).requires_grad_(False)
    model = insert_lora(tower, make_config())
    for name, parameter in tower.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return tower, model.eval()


def layers_of(tower: VisionTower) -> list[tuple[nn.Module, tuple[str, ...]]]:
    layers = [layer for _, layer in adapted_layers(tower)]
    return [(layer, (FUSION,) if layer in layers[-2:] else STREAMS) for layer in layers]


def test_any_mixture_equals_pefts_own_forward() -> None:
    tower, model = adapted_tower()
    streams = torch.tensor([2, 0, 1, 1, 0])
    x = torch.randn(len(streams), 3, 192)
    for layer, names in layers_of(tower)[::2]:  # c_fc
        own = streams % len(names)
        ours = adapted_linear(layer, x, route_of(own, len(names), 4))
        for i, stream in enumerate(own):
            model.base_model.set_adapter(names[stream])
            torch.testing.assert_close(ours[i], layer(x[i]), atol=1e-5, rtol=1e-5)


def test_saved_tensors_run_without_peft_alike() -> None:
    tower, _ = adapted_tower()
    config = make_config()
    saved = lora_state(tower)
    assert {key: tuple(tensor.shape) for key, tensor in saved.items()} == adapter_shapes(config)
    plain = VisionTower(BACKBONES["demo"])
    plain.load_state_dict({k.replace(".base_layer", ""): v for k, v in tower.state_dict().items() if ".lora_" not in k})
    insert_stacked(plain, saved, config)
    x, route = torch.randn(3, 5, 192), route_of(torch.tensor([1, 2, 0]), 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(plain.run(x, 0, 5, route), tower.run(x, 0, 5, route), atol=1e-5, rtol=1e-5)


def test_key_names() -> None:
    keys = adapter_shapes(make_config())
    assert keys["rgb.base_model.model.transformer.resblocks.0.mlp.c_fc.lora_A.weight"] == (4, 192)
    assert keys["fusion.base_model.model.transformer.resblocks.5.mlp.c_proj.lora_B.weight"] == (192, 4)


def test_gradients_reach_every_tensor_and_only_those() -> None:
    tower, _ = adapted_tower()
    tower.train()
    x = tower.run(torch.randn(3, 5, 192), 0, 5, route_of(torch.arange(3), 3, 4))
    tower.run(x, 5, 6, torch.ones(())).square().sum().backward()
    for name, parameter in tower.named_parameters():
        if ".lora_" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_refuses_merged_adapters() -> None:
    tower, model = adapted_tower()
    model.base_model.set_adapter("rgb")
    model.merge_adapter()
    with pytest.raises(ModelError, match="unmerge"):
        tower.run(torch.randn(1, 5, 192), 0, 5, route_of(torch.tensor([0]), 3, 4))


def test_trainable_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        model = VELoRA(make_config(backbone="ViT-B-16-quickgelu", labels=tuple(map(str, range(114)))))
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trainable.values()) == 1_234_290
    assert sum(n for name, n in trainable.items() if name.startswith("tower")) == 1_013_760 + 30_720
    assert sum(p.numel() for p in model.parameters()) - 1_234_290 == 86_192_640
