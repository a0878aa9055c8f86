"""CLIP's vision transformer, with open_clip's parameter names and three things that open_clip's lacks.

A run of blocks can be given a stream for each image (see `velora.adapter`), a block can be computed for a few rows
only, and attention is a plain QKV and scaled dot product, which stays fast in bfloat16 on a CPU.
Dosovitskiy et al., arXiv 2010.11929; Radford et al., arXiv 2103.00020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.adapter import Route, layer_name
from velora.backbones import Backbone


class Attention(nn.Module):
    """Multi-head self-attention, packed as `nn.MultiheadAttention` packs it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, N, d / heads] of all tokens x [B, N, d]."""
        d = self.width
        k, v = F.linear(x, self.in_proj_weight[d:], self.in_proj_bias[d:]).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the rows x [B, R, d] read from the keys and values; [B, R, d]."""
        d = self.width
        queries = split_heads(F.linear(x, self.in_proj_weight[:d], self.in_proj_bias[:d]), self.heads)
        read = attention(queries, keys, values)  # [B, heads, R, d / heads]
        return self._merge(read)

    def read_self(self, x: Tensor) -> Tensor:
        """What each token of x [B, N, d] reads where it sees itself alone: the value and output projections."""
        d = self.width
        merged: Tensor = self.out_proj(F.linear(x, self.in_proj_weight[2 * d :], self.in_proj_bias[2 * d :]))
        return merged

    def forward(self, x: Tensor) -> Tensor:
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in packed)
        read = attention(q, k, v)
        return self._merge(read)

    def _merge(self, read: Tensor) -> Tensor:
        merged: Tensor = self.out_proj(read.transpose(1, 2).flatten(2))
        return merged


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of [B, heads, N, d_h].

    Trained on a CPU, it is spelled out: torch's fused kernel takes three times as long to go back through.
    """
    if q.requires_grad and q.device.type == "cpu":
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, dim=-1)
        return weights.to(v.dtype) @ v  # autocast leaves softmax in float32
    return F.scaled_dot_product_attention(q, k, v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Features [B, N, d] to those of each head, [B, heads, N, d / heads]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def patches_of(images: Tensor, size: int) -> Tensor:
    """Images [n, 3, H, W] to their patches [n, N - 1, 3 size size], row by row, without what is left over at the edges.

    Patches do not overlap, so their convolution is one product, several times as fast on a CPU, there and back.
    """
    rows, columns = images.shape[-2] // size, images.shape[-1] // size
    cut = images[..., : rows * size, : columns * size].reshape(-1, 3, rows, size, columns, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(len(images), rows * columns, -1)


def in_autocast(x: Tensor) -> Tensor:
    """Where autocast is on, x in its dtype: sums and norms of the blocks are then of it too, not of float32."""
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # the first is not for "meta"
    return x.to(torch.get_autocast_dtype(kind)) if on else x


class Mlp(nn.Module):
    """The feed-forward half of a block; its two linear layers are what adapters change."""

    def __init__(self, backbone: Backbone, block: int) -> None:
        super().__init__()
        self.quick_gelu, self.block = backbone.quick_gelu, block
        self.c_fc = nn.Linear(backbone.width, 4 * backbone.width)
        self.c_proj = nn.Linear(4 * backbone.width, backbone.width)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        return self._linear("c_proj", self.activate(self._linear("c_fc", x, route)), route)

    def activate(self, hidden: Tensor) -> Tensor:
        """QuickGELU or GELU, as the weights were trained with."""
        return hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden)

    def gain(self, x: Tensor, route: Route) -> Tensor:
        """The adapters' matrices of both layers without the frozen ones between them, and without LoRA's alpha / r."""
        scale = route.adapter.scale
        hidden = route.gain(layer_name(self.block, "c_fc"), x) / scale
        return route.gain(layer_name(self.block, "c_proj"), self.activate(hidden)) / scale

    def _linear(self, name: str, x: Tensor, route: Route | None) -> Tensor:
        layer = self.get_submodule(name)
        y: Tensor = getattr(layer, "base_layer", layer)(x)  # PEFT wraps the layers whose adapters it trains
        return y if route is None else route.add(layer_name(self.block, name), x, y)


Rows = tuple[Tensor, Tensor, Tensor]  # [B, R, d] of sequences, and their keys and values [B, heads, N, d / heads]


class Block(nn.Module):
    """Pre-norm transformer block. A `route` switches adapters on; None: the frozen block."""

    def __init__(self, backbone: Backbone, index: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(backbone.width)
        self.attn = Attention(backbone.width, backbone.heads)
        self.ln_2 = nn.LayerNorm(backbone.width)
        self.mlp = Mlp(backbone, index)

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x), route)
        return x

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens x [B, N, d], for `rows`."""
        return self.attn.keys_values(self.ln_1(x))

    def rows(self, x: Tensor, keys: Tensor, values: Tensor, route: Route | None = None) -> Tensor:
        """This block's output for the rows x [B, R, d] of a sequence whose keys and values are given."""
        x = x + self.attn.attend(self.ln_1(x), keys, values)
        x = x + self.mlp(self.ln_2(x), route)
        return x

    def two_rows(self, frozen: Rows, adapted: Rows, route: Route | None) -> tuple[Tensor, Tensor]:
        """`rows` of two kinds of sequences: without adapters, and with those of `route`."""
        return self.rows(*frozen), self.rows(*adapted, route)


class Transformer(nn.Module):
    """Holds the blocks under the name that open_clip gives them."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(backbone, i) for i in range(backbone.layers))


class LastBlock(Protocol):
    """What computes rows of the last block: a `Block`, or one that is prepared for inference."""

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]: ...
    def two_rows(self, frozen: Rows, adapted: Rows, route: Route | None) -> tuple[Tensor, Tensor]: ...


class Tower(Protocol):
    """What turns images to tokens: a `VisionTower`, or one that is prepared for inference."""

    backbone: Backbone
    ln_post: nn.LayerNorm
    proj: nn.Parameter

    def embed(self, images: Tensor) -> Tensor: ...
    def run(self, x: Tensor, start: int, stop: int, route: Route | None = None) -> Tensor: ...
    def __call__(self, images: Tensor) -> Tensor: ...


class VisionTower(nn.Module):
    """CLIP's vision transformer; `load_state_dict` takes the `visual.` part of an open_clip model."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        d, patch = backbone.width, backbone.patch_size
        self.conv1 = nn.Conv2d(3, d, kernel_size=patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(d))
        self.positional_embedding = nn.Parameter(torch.empty(backbone.tokens, d))
        self.ln_pre = nn.LayerNorm(d)
        self.transformer = Transformer(backbone)
        self.ln_post = nn.LayerNorm(d)
        self.proj = nn.Parameter(torch.empty(d, backbone.output_dim))
        if not self.proj.is_meta:  # drawing random numbers on the meta device would import torch's compiler: a second
            self.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        return self.conv1.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.conv1.weight.device

    def digest(self) -> str:
        """Sixteen digits by which trained weights are known, in whatever dtype they are."""
        parts = (self.class_embedding, self.proj)
        stored = [part.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy() for part in parts]
        return hashlib.sha256(b"".join(part.tobytes() for part in stored)).hexdigest()[:16]

    @property
    def blocks(self) -> Sequence[Block]:
        return cast("Sequence[Block]", self.transformer.resblocks)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images [n, 3, H, W] to the tokens [n, N, d] that enter the first block."""
        return self.tokens(self.project(images))

    def project(self, images: Tensor) -> Tensor:
        """Normalised images [n, 3, H, W] to their projected patches [n, N - 1, d]: `conv1`, as a product."""
        patches = patches_of(images.to(self.dtype), self.backbone.patch_size)
        return F.linear(patches, self.conv1.weight.flatten(1))

    def tokens(self, patches: Tensor) -> Tensor:
        """Projected patches [n, N - 1, d] to the tokens [n, N, d] that enter the first block."""
        cls = self.class_embedding.expand(len(patches), 1, -1)
        return in_autocast(self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding))

    def run(self, x: Tensor, start: int, stop: int, route: Route | None = None) -> Tensor:
        """Tokens [n, N, d] through the blocks [start, stop)."""
        for block in self.blocks[start:stop]:
            x = block(x, route)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """CLIP's image features [n, output_dim] of normalised images [n, 3, H, W], without adapters."""
        return features(self, self, images)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Random weights, of the scales that CLIP starts its training from."""
        d, layers = self.backbone.width, self.backbone.layers
        stds = {"attn.in_proj_weight": d**-0.5, "mlp.c_fc.weight": (2 * d) ** -0.5, "conv1.weight": 0.02}
        out_std = (d * 2 * layers) ** -0.5
        stds |= {"attn.out_proj.weight": out_std, "mlp.c_proj.weight": out_std}
        for name, parameter in self.named_parameters():
            if ".bias" in name or "_bias" in name:
                parameter.zero_()
            elif "ln_" in name:
                parameter.fill_(1.0)
            else:
                std = next((std for end, std in stds.items() if name.endswith(end)), d**-0.5)
                parameter.normal_(std=std, generator=generator)


def features(through: Tower, tower: VisionTower, images: Tensor) -> Tensor:
    """CLIP's image features [n, output_dim] of normalised images, by a tower's weights; `through` its first blocks."""
    last = tower.blocks[-1]
    x = through.run(through.embed(images), 0, tower.backbone.layers - 1)
    cls = last.rows(x[:, :1], *last.keys_values(x))
    found: Tensor = tower.ln_post(cls[:, 0]) @ tower.proj
    return found
