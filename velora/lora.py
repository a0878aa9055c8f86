"""LoRA: every stream has its own pair of matrices in every layer. Hu et al., arXiv 2106.09685.

    dW_s = (alpha / r) B_s A_s          A_s [r, in], B_s [out, r]; stacked: down = [A_1; …], up = [B_1 …], mix_s a mask

PEFT makes the pairs that are trained and names them in files (`insert_lora`, `PeftLoRA`); inference stacks saved pairs
once (`StackedLoRA`) and never imports PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from velora.adapter import LAYERS, Adapter, Factors, fan
from velora.backbones import backbone
from velora.errors import ModelError

if TYPE_CHECKING:
    from velora.config import VELoRAConfig
    from velora.vit import VisionTower


class StackedLoRA(Adapter):
    """Saved LoRA pairs, stacked for inference."""

    def __init__(
        self, tensors: Mapping[str, Tensor], streams: tuple[str, ...], layers: tuple[str, ...], config: VELoRAConfig
    ) -> None:
        super().__init__(streams, layers, dropout=0.0, scale=config.alpha / config.rank)
        self.mix = nn.Buffer(masks(len(streams), config.rank) * self.scale)
        self._rank = config.rank
        for layer in layers:
            pairs = [[tensors[key] for key in lora_keys(layer, stream)] for stream in streams]
            self.register_buffer(_flat(layer) + "_A", torch.cat([a for a, _ in pairs]))
            self.register_buffer(_flat(layer) + "_B", torch.cat([b for _, b in pairs], dim=1))

    def factors(self, layer: str) -> Factors:
        return Factors(self.get_buffer(_flat(layer) + "_A"), self.mix, self.get_buffer(_flat(layer) + "_B"))

    def state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for layer in self.layers:
            down, _, up = self.factors(layer)
            pairs = zip(torch.split(down, self._rank), torch.split(up, self._rank, dim=1), strict=True)
            for stream, pair in zip(self.streams, pairs, strict=True):
                state |= zip(lora_keys(layer, stream), pair, strict=True)
        return state


class PeftLoRA(Adapter):
    """The LoRA pairs that PEFT put into a tower, to be trained there."""

    def __init__(
        self, tower: VisionTower, streams: tuple[str, ...], layers: tuple[str, ...], config: VELoRAConfig
    ) -> None:
        super().__init__(streams, layers, dropout=config.dropout, scale=config.alpha / config.rank)
        self._tower = [tower]  # in a list: the tower owns the pairs, this module only reads them
        self.mix = nn.Buffer(masks(len(streams), config.rank) * self.scale, persistent=False)

    def factors(self, layer: str) -> Factors:
        pairs: Any = self._tower[0].get_submodule(layer)
        if pairs.merged:
            raise ModelError("the adapters are merged into the backbone and would count twice: unmerge them first")
        down = torch.cat([pairs.lora_A[stream].weight for stream in self.streams])
        up = torch.cat([pairs.lora_B[stream].weight for stream in self.streams], dim=1)
        return Factors(down, self.mix, up)

    def state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for layer in self.layers:
            pairs: Any = self._tower[0].get_submodule(layer)
            for stream in self.streams:
                pair = pairs.lora_A[stream].weight, pairs.lora_B[stream].weight
                state |= zip(lora_keys(layer, stream), pair, strict=True)
        return state


def masks(streams: int, rank: int) -> Tensor:
    """Which middle features [streams * rank] are whose: float32 [streams, streams * rank] of zeros and ones."""
    return torch.eye(streams).repeat_interleave(rank, dim=1)


def lora_keys(layer: str, stream: str) -> tuple[str, str]:
    """The keys of A and B in a checkpoint: the stream, then PEFT's own names."""
    stem = f"{stream}.base_model.model.{layer}"
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def lora_shapes(config: VELoRAConfig, streams: tuple[str, ...], layers: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Key and shape of every LoRA tensor of a checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        inputs, outputs = fan(backbone(config.backbone), layer)
        for stream in streams:
            key_a, key_b = lora_keys(layer, stream)
            shapes |= {key_a: (config.rank, inputs), key_b: (outputs, config.rank)}
    return shapes


def insert_lora(tower: VisionTower, blocks: Mapping[str, range], config: VELoRAConfig) -> Any:
    """Let PEFT put fresh, trainable pairs into a bare tower, in place: for each stream, in its blocks.

    Returns PEFT's model around the tower.
    """
    from peft import get_peft_model

    (first, *others) = blocks
    model = get_peft_model(tower, peft_config(blocks[first], config), adapter_name=first)
    for stream in others:
        model.add_adapter(stream, peft_config(blocks[stream], config))
    # Adding an adapter freezes it, and set_adapter in a loop would freeze the others.
    model.base_model.set_requires_grad(list(blocks), requires_grad=True)
    return model


def peft_config(blocks: range, config: VELoRAConfig) -> Any:
    """PEFT's LoraConfig for the feed-forward layers of some blocks."""
    from peft import LoraConfig

    target = rf"transformer\.resblocks\.({'|'.join(map(str, blocks))})\.mlp\.({'|'.join(LAYERS)})"
    return LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=target, bias="none"
    )


def _flat(layer: str) -> str:
    """A layer's name as the name of a buffer, which must not hold dots."""
    return layer.replace(".", "_")
