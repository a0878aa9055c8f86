"""Preset "paper": how VELoRA makes one vector of logits from the pooled streams.

    encodings, mean over time + modality embedding:   Z_f   Z_r   Z_e        each [B, N, d]
    shared block S (frozen, LoRA "fusion"):          [Z_f ; Z_r ; Z_e]  ->  Y_r, Y_e
    top block (frozen) on Z_m, its feed-forward output + (alpha / r) B_m A_m LN(Y_m), m = r, e
    ln_post, class tokens of r and e concatenated, one linear layer

Both blocks are the tower's last one. Only class tokens reach the head, so only their rows are computed; and because
LoRA leaves attention alone, S and the top blocks share their keys and values. Chen et al., arXiv 2412.20064.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.backbones import BACKBONES
from velora.config import VELoRAConfig
from velora.lora import STREAMS, route_of
from velora.vit import VisionTower

MODALITIES = ("rgb", "event")


class LowRank(nn.Module):
    """x -> scale * B A x, with B = 0 at the start; adapts d features to d features at rank r."""

    def __init__(self, width: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.lora_A = nn.Linear(width, rank, bias=False)
        self.lora_B = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        gain: Tensor = self.lora_B(self.lora_A(x)) * self.scale
        return gain


class PaperFusion(nn.Module):
    """What is trained beside the LoRA of the tower, and the encode and fuse stages of this preset."""

    def __init__(self, config: VELoRAConfig) -> None:
        super().__init__()
        self.rank = config.rank
        d = BACKBONES[config.backbone].width
        self.embedding = nn.ParameterDict({stream: nn.Parameter(torch.zeros(1, 1, d)) for stream in STREAMS})
        self.top = nn.ModuleDict({name: LowRank(d, config.rank, config.alpha / config.rank) for name in MODALITIES})
        self.head = nn.Linear(2 * d, len(config.labels))

    def encode(self, tower: VisionTower, images: Tensor, streams: Tensor) -> Tensor:
        """Normalised images [n, 3, H, W] and their streams [n] to tokens [n, N, d]: all blocks but the last."""
        route = route_of(streams, len(STREAMS), self.rank)
        return tower.run(tower.embed(images), 0, tower.backbone.layers - 1, route)

    def fuse(self, tower: VisionTower, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """Pooled encodings [B, N, d] (diff is None for windows of one sample) to logits [B, C], float32."""
        pooled = {"rgb": rgb, "event": event} if diff is None else {"diff": diff, "rgb": rgb, "event": event}
        parts = [tokens + self.embedding[stream] for stream, tokens in pooled.items()]
        tokens = torch.cat(parts, dim=1).to(tower.dtype)  # [B, 3 N, d], in the order f, r, e
        n = rgb.shape[1]
        first = tokens.shape[1] - 2 * n  # where r starts
        block = tower.blocks[-1]
        keys, values = block.keys_values(tokens)
        cls = tokens[:, [first, first + n]]  # [B, 2, d]
        everywhere = torch.ones((), device=tokens.device)  # the one adapter of this block, for all rows
        shared = block.rows(cls, keys, values, everywhere)  # class rows of Y_r and Y_e
        top = block.rows(_apart(cls), _of_each(keys, n), _of_each(values, n))  # [2 B, 1, d]
        refined = top.view_as(shared) + self._gain(shared)
        features: Tensor = tower.ln_post(refined.to(tower.dtype))  # [B, 2, d]
        logits: Tensor = self.head(features.flatten(1).to(self.head.weight.dtype))
        return logits

    def _gain(self, shared: Tensor) -> Tensor:
        """What Y_r and Y_e [B, 2, d] add to the feed-forward output of the top blocks, [B, 2, d]."""
        normed = F.layer_norm(shared.to(self.head.weight.dtype), shared.shape[-1:])
        return torch.stack([self.top[name](normed[:, m]) for m, name in enumerate(MODALITIES)], dim=1)


def _apart(cls: Tensor) -> Tensor:
    """Class rows [B, 2, d] to sequences of one row, [2 B, 1, d]."""
    return cls.flatten(0, 1).unsqueeze(1)


def _of_each(keys: Tensor, n: int) -> Tensor:
    """Keys or values [B, heads, 3 n, d_h] to those of r and e, the last 2 n, as sequences [2 B, heads, n, d_h]."""
    return torch.stack([keys[:, :, -2 * n : -n], keys[:, :, -n:]], dim=1).flatten(0, 1)
