"""LoRA for a mixture of streams: every image of a batch passes the adapter of its own stream, in one call.

    y = W x + b  +  B_cat (mask * (A_cat drop(x)))      A_cat [S r, in], B_cat [out, S r], mask [image, 1, S r]

The adapters of the S streams are stacked, and the mask keeps each image's own r of the S r middle features.
PEFT makes the adapters that are trained (`insert_lora`); inference builds the same stack of plain tensors
(`insert_stacked`) and never imports PEFT. Hu et al., arXiv 2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.backbones import BACKBONES
from velora.errors import ModelError

if TYPE_CHECKING:
    from velora.config import VELoRAConfig
    from velora.vit import VisionTower

STREAMS = ("rgb", "event", "diff")  # an image's stream is its position here
FUSION = "fusion"  # the adapter of the last block, shared by the modalities
LAYERS = ("c_fc", "c_proj")


class StackedLinear(nn.Module):
    """A frozen linear layer and the adapters of its streams, stacked; alpha / r is folded into `lora_B`."""

    def __init__(self, base_layer: nn.Linear, lora_A: Tensor, lora_B: Tensor) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.Buffer(lora_A)  # [S r, in]
        self.lora_B = nn.Buffer(lora_B)  # [out, S r]


def route_of(streams: Tensor, count: int, rank: int) -> Tensor:
    """The mask [n, 1, count * rank] (float32, 0 or 1) of images whose adapters are `streams` [n] int64."""
    one_hot: Tensor = F.one_hot(streams, count)
    return one_hot.repeat_interleave(rank, dim=1).unsqueeze(1).float()


def adapted_linear(layer: nn.Module, x: Tensor, route: Tensor | None) -> Tensor:
    """x [n, N, in] through a linear layer and, where `route` is given, through each image's adapter; [n, N, out].

    The layer is a plain `nn.Linear`, PEFT's `lora.Linear` or a `StackedLinear`.
    """
    base: nn.Module = getattr(layer, "base_layer", layer)
    y: Tensor = base(x)
    if route is None or base is layer:
        return y
    dropped, lora_a, lora_b = _stack(layer, x)
    hidden = (F.linear(dropped, lora_a.to(x.dtype)) * route).to(y.dtype)
    # In place: y is fresh, and the backward of a linear layer does not read its output.
    y.view(-1, y.shape[-1]).addmm_(hidden.flatten(0, 1), lora_b.to(y.dtype).T)
    return y


def _stack(layer: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The input after dropout, A_cat [S r, in] and the scaled B_cat [out, S r] of an adapted layer."""
    if isinstance(layer, StackedLinear):
        return x, layer.lora_A, layer.lora_B
    if layer.merged:
        raise ModelError("the adapters are merged into the backbone and would count twice: unmerge them first")
    names = adapter_names(layer)
    lora_a = torch.cat([layer.lora_A[name].weight for name in names])
    lora_b = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for name in names], dim=1)
    return layer.lora_dropout[names[0]](x), lora_a, lora_b


def adapter_names(layer: Any) -> list[str]:
    """Names of the adapters of PEFT's layer, in the order of the stack."""
    return [name for name in (*STREAMS, FUSION) if name in layer.lora_A]


def adapted_layers(tower: VisionTower) -> Iterator[tuple[str, nn.Module]]:
    """The layers that take adapters, with their names in the tower."""
    for i, block in enumerate(tower.blocks):
        for name in LAYERS:
            yield f"transformer.resblocks.{i}.mlp.{name}", block.mlp.get_submodule(name)


def adapter_keys(module: str, name: str) -> tuple[str, str]:
    """The keys of A and B in a checkpoint: the stream, then PEFT's own names."""
    stem = f"{name}.base_model.model.{module}"
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def adapter_shapes(config: VELoRAConfig) -> dict[str, tuple[int, int]]:
    """Key and shape of every LoRA tensor of a checkpoint."""
    backbone = BACKBONES[config.backbone]
    sizes = {"c_fc": (backbone.width, 4 * backbone.width), "c_proj": (4 * backbone.width, backbone.width)}
    shapes: dict[str, tuple[int, int]] = {}
    for i in range(backbone.layers):
        for layer, (fan_in, fan_out) in sizes.items():
            for name in names_of_block(i, backbone.layers):
                key_a, key_b = adapter_keys(f"transformer.resblocks.{i}.mlp.{layer}", name)
                shapes |= {key_a: (config.rank, fan_in), key_b: (fan_out, config.rank)}
    return shapes


def names_of_block(i: int, layers: int) -> tuple[str, ...]:
    """The adapters of block i, counted from 0."""
    return (FUSION,) if i == layers - 1 else STREAMS


def insert_stacked(tower: VisionTower, tensors: Mapping[str, Tensor], config: VELoRAConfig) -> None:
    """Put saved adapters into a bare tower, for inference."""
    layers = len(tower.blocks)
    for module, layer in list(adapted_layers(tower)):
        assert isinstance(layer, nn.Linear)
        names = names_of_block(int(module.split(".")[2]), layers)
        keys = [adapter_keys(module, name) for name in names]
        lora_a = torch.cat([tensors[key_a] for key_a, _ in keys])
        lora_b = torch.cat([tensors[key_b] for _, key_b in keys], dim=1) * (config.alpha / config.rank)
        tower.set_submodule(module, StackedLinear(layer, lora_a, lora_b))


def insert_lora(tower: VisionTower, config: VELoRAConfig) -> Any:
    """Let PEFT put fresh, trainable adapters into a bare tower, in place; returns PEFT's model around it."""
    from peft import LoraConfig, get_peft_model

    last = len(tower.blocks) - 1

    def lora(blocks: str) -> LoraConfig:
        target = rf"transformer\.resblocks\.({blocks})\.mlp\.({'|'.join(LAYERS)})"
        return LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=target, bias="none"
        )

    low_level = "|".join(str(i) for i in range(last))
    model = get_peft_model(tower, lora(low_level), adapter_name=STREAMS[0])
    for name in STREAMS[1:]:
        model.add_adapter(name, lora(low_level))
    model.add_adapter(FUSION, lora(str(last)))
    # Adding an adapter freezes it, and set_adapter in a loop would freeze the others.
    cast(Any, model.base_model).set_requires_grad([*STREAMS, FUSION], requires_grad=True)
    return model


def lora_state(tower: VisionTower) -> dict[str, Tensor]:
    """The tensors of a tower's PEFT adapters, under their names in a checkpoint."""
    state: dict[str, Tensor] = {}
    for module, layer in adapted_layers(tower):
        for name in adapter_names(layer):
            key_a, key_b = adapter_keys(module, name)
            state |= {key_a: layer.lora_A[name].weight, key_b: layer.lora_B[name].weight}  # type: ignore[index, union-attr]
    return state
