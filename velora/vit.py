"""CLIP's vision transformer, with open_clip's parameter names and three things that open_clip's lacks.

A run of blocks can be given a stream for each image (adapters, see `velora.lora`), a block can be computed for a few
rows only, and attention is a plain QKV and scaled dot product, which stays fast in bfloat16 on a CPU.
Dosovitskiy et al., arXiv 2010.11929; Radford et al., arXiv 2103.00020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.backbones import Backbone
from velora.lora import adapted_linear


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
        return self._split(k), self._split(v)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the rows x [B, R, d] read from the keys and values; [B, R, d]."""
        d = self.width
        queries = self._split(F.linear(x, self.in_proj_weight[:d], self.in_proj_bias[:d]))
        read = F.scaled_dot_product_attention(queries, keys, values)  # [B, heads, R, d / heads]
        return self._merge(read)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = map(self._split, F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1))
        read = F.scaled_dot_product_attention(q, k, v)
        return self._merge(read)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _merge(self, read: Tensor) -> Tensor:
        merged: Tensor = self.out_proj(read.transpose(1, 2).flatten(2))
        return merged


class Mlp(nn.Module):
    """The feed-forward half of a block; its two linear layers are what LoRA adapts."""

    def __init__(self, width: int, quick_gelu: bool) -> None:
        super().__init__()
        self.quick_gelu = quick_gelu
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, route: Tensor | None = None) -> Tensor:
        hidden = adapted_linear(self.c_fc, x, route)
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden)
        return adapted_linear(self.c_proj, hidden, route)


class Block(nn.Module):
    """Pre-norm transformer block. `route` (see `velora.lora.route_of`) switches adapters on; None: the frozen block."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(backbone.width)
        self.attn = Attention(backbone.width, backbone.heads)
        self.ln_2 = nn.LayerNorm(backbone.width)
        self.mlp = Mlp(backbone.width, backbone.quick_gelu)

    def forward(self, x: Tensor, route: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x), route)
        return x

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens x [B, N, d], for `rows`."""
        return self.attn.keys_values(self.ln_1(x))

    def rows(self, x: Tensor, keys: Tensor, values: Tensor, route: Tensor | None = None) -> Tensor:
        """This block's output for the rows x [B, R, d] of a sequence whose keys and values are given."""
        x = x + self.attn.attend(self.ln_1(x), keys, values)
        x = x + self.mlp(self.ln_2(x), route)
        return x


class Transformer(nn.Module):
    """Holds the blocks under the name that open_clip gives them."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(backbone) for _ in range(backbone.layers))


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

    @property
    def blocks(self) -> Sequence[Block]:
        return cast("Sequence[Block]", self.transformer.resblocks)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images [n, 3, H, W] to the tokens [n, N, d] that enter the first block."""
        patches = self.conv1(images.to(self.dtype)).flatten(2).transpose(1, 2)  # [n, N - 1, d]
        cls = self.class_embedding.expand(len(images), 1, -1)
        tokens: Tensor = self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding)
        return tokens

    def run(self, x: Tensor, start: int, stop: int, route: Tensor | None = None) -> Tensor:
        """Tokens [n, N, d] through the blocks [start, stop)."""
        for block in self.blocks[start:stop]:
            x = block(x, route)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """CLIP's image features [n, output_dim] of normalised images [n, 3, H, W], without adapters."""
        x = self.run(self.embed(images), 0, self.backbone.layers)
        features: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return features

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
