"""Random checkpoints in the layout of the authors' released files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.velora.reference import EMBEDDINGS, PARTS


@dataclass(frozen=True)
class Sizes:
    """Of the encoders; the small ones are those of the tests' tiny backbone."""

    width: int = 64
    layers: int = 3
    heads: int = 2
    patch: int = 8
    image: int = 32
    output: int = 16

    @property
    def tokens(self) -> int:
        return 1 + (self.image // self.patch) ** 2


FULL = Sizes(768, 12, 12, 16, 224, 512)


def released_checkpoint(
    sizes: Sizes = Sizes(),  # noqa: B008
    *,
    classes: int = 114,
    encoders: str = "equal",
    style: str = "lora_A.default",
    module: bool = True,
    seed: int = 0,
) -> dict[str, object]:
    """`encoders`: whether their own weights are "equal" or "different"; `style`: how PEFT named things.

    Styles: "lora_A.default" (current PEFT), "lora_A" (as it saves), "no base_layer" (older PEFT).
    """
    g = torch.Generator().manual_seed(seed)
    first = _base(sizes, g)
    checkpoint: dict[str, object] = {}
    for part in PARTS.values():
        base = _base(sizes, g) if encoders == "different" else {name: tensor.clone() for name, tensor in first.items()}
        checkpoint[part] = _named(base | _lora(sizes, g), style) | _text(g)
    trained = _trained(sizes, classes, g)
    checkpoint["model_state_dict"] = {f"module.{name}" if module else name: t for name, t in trained.items()}
    checkpoint["optimizer_state_dict"] = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    checkpoint["epoch"] = 49
    return checkpoint


def _weight(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g) * shape[-1] ** -0.5


def _layer_norm(g: torch.Generator, name: str, d: int) -> dict[str, Tensor]:
    bias = 0.1 * torch.randn(d, generator=g)
    return {f"{name}.weight": 1 + 0.1 * torch.randn(d, generator=g), f"{name}.bias": bias}


def _linear(g: torch.Generator, name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {f"{name}.weight": _weight(g, outputs, inputs), f"{name}.bias": 0.1 * torch.randn(outputs, generator=g)}


def _base(s: Sizes, g: torch.Generator) -> dict[str, Tensor]:
    d = s.width
    tensors = {
        "conv1.weight": 0.1 * torch.randn(d, 3, s.patch, s.patch, generator=g),
        "class_embedding": torch.randn(d, generator=g),
        "positional_embedding": 0.5 * torch.randn(s.tokens, d, generator=g),
        "proj": _weight(g, d, s.output),
    }
    tensors |= _layer_norm(g, "ln_pre", d) | _layer_norm(g, "ln_post", d)
    for i in range(s.layers):
        block = f"transformer.resblocks.{i}"
        tensors |= _layer_norm(g, f"{block}.ln_1", d) | _layer_norm(g, f"{block}.ln_2", d)
        tensors |= {f"{block}.attn.in_proj_weight": _weight(g, 3 * d, d)}
        tensors |= {f"{block}.attn.in_proj_bias": 0.1 * torch.randn(3 * d, generator=g)}
        tensors |= _linear(g, f"{block}.attn.out_proj", d, d)
        tensors |= _linear(g, f"{block}.mlp.c_fc", d, 4 * d) | _linear(g, f"{block}.mlp.c_proj", 4 * d, d)
    return tensors


def _lora(s: Sizes, g: torch.Generator) -> dict[str, Tensor]:
    tensors = {}
    for i in range(s.layers):
        for layer, inputs, outputs in (("c_fc", s.width, 4 * s.width), ("c_proj", 4 * s.width, s.width)):
            stem = f"transformer.resblocks.{i}.mlp.{layer}"
            tensors[f"{stem}.lora_A.weight"] = _weight(g, 4, inputs)
            tensors[f"{stem}.lora_B.weight"] = 0.3 * _weight(g, outputs, 4)
    return tensors


def _named(tensors: dict[str, Tensor], style: str) -> dict[str, Tensor]:
    """Names as PEFT's model around CLIP gives them."""

    def name_of(name: str) -> str:
        if style == "lora_A.default":
            name = name.replace("lora_A", "lora_A.default").replace("lora_B", "lora_B.default")
        stem, _, end = name.rpartition(".")
        if style != "no base_layer" and stem.endswith(("c_fc", "c_proj")):
            name = f"{stem}.base_layer.{end}"
        return f"base_model.model.visual.{name}"

    return {name_of(name): tensor for name, tensor in tensors.items()}


def _text(g: torch.Generator) -> dict[str, Tensor]:
    """A little of the text tower, which takes no part."""
    names = ("token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.base_layer.weight", "text_projection")
    tensors = {f"base_model.model.{name}": _weight(g, 6, 8) for name in names}
    return tensors | {"base_model.model.logit_scale": torch.tensor(4.6)}


def _trained(s: Sizes, classes: int, g: torch.Generator) -> dict[str, Tensor]:
    d = s.width
    tensors = {name: 0.1 * torch.randn(1, 1, d, generator=g) for name in EMBEDDINGS.values()}
    for block in ("blocks.0", "fuse_blocks.0"):
        tensors |= _layer_norm(g, f"{block}.norm1", d) | _layer_norm(g, f"{block}.norm2", d)
        tensors |= _linear(g, f"{block}.attn.qkv", d, 3 * d) | _linear(g, f"{block}.attn.proj", d, d)
        tensors |= _linear(g, f"{block}.mlp.fc1", d, 4 * d) | _linear(g, f"{block}.mlp.fc2", 4 * d, d)
    tensors |= _layer_norm(g, "norm", d) | _linear(g, "visual_embed", s.output, d)
    for name in ("query", "key", "value"):
        tensors |= _linear(g, f"self_attention.{name}", d, d)
    tensors |= _linear(g, "fc1", 10 * d, classes)
    return tensors | _never_used(s, g)


def _never_used(s: Sizes, g: torch.Generator) -> dict[str, Tensor]:
    d = s.width
    tensors = _linear(g, "word_embed", s.output, d) | _linear(g, "cross_model.proj", d, d)
    tensors |= {f"bn.{name}": torch.ones(d) for name in ("weight", "bias", "running_mean", "running_var")}
    tensors |= {name: torch.zeros(1, 1, d) for name in ("tex_embed", "CLS_token")}
    return tensors | {f"{name}.weight": _weight(g, 2, d) for name in ("weight_layer", "remain_weight_layer")}
