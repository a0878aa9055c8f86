"""Preset "paper": what VELoRA is by the paper, made precise where the paper is silent.

    encode     patch embedding and all blocks but the last, each stream with its own adapter           [n, N, d]
    pool       mean over time + modality embedding:   Z_f   Z_r   Z_e                              each [B, N, d]
    shared     S: the last block with the adapter "fusion", [Z_f ; Z_r ; Z_e] -> Y_f, Y_r, Y_e
    top        the last block on Z_m, its feed-forward output + (alpha / r) B_m A_m LN(Y_m), m = r, e;  then ln_post
    head       class tokens of r and e, concatenated, one linear layer                                    [B, C]

Only class tokens reach the head, so only their rows are computed; and because adapters leave attention alone, S and the
top blocks share their keys and values. Chen et al., arXiv 2412.20064.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.adapter import Route
from velora.backbones import backbone
from velora.config import VELoRAConfig
from velora.encoders import Encoders
from velora.vit import Tower

MODALITIES = ("rgb", "event")


class LowRank(nn.Module):
    """x -> (alpha / r) B A x, with B = 0 at the start."""

    def __init__(self, width: int, config: VELoRAConfig) -> None:
        super().__init__()
        self.scale = config.alpha / config.rank
        self.lora_A = nn.Linear(width, config.rank, bias=False)
        self.lora_B = nn.Linear(config.rank, width, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        gain: Tensor = self.lora_B(self.lora_A(x)) * self.scale
        return gain


class PaperFusion(nn.Module):
    """What is trained beside the adapters of the tower, and the stages of this preset."""

    def __init__(self, config: VELoRAConfig) -> None:
        super().__init__()
        d = backbone(config.backbone).width
        only_head = config.adapter == "none"
        self.head_reads_motion = config.motion == "head"
        self.embedding = nn.ParameterDict(
            {stream: nn.Parameter(torch.zeros(1, 1, d)) for stream in config.streams if not only_head}
        )
        self.top = nn.ModuleDict({name: LowRank(d, config) for name in MODALITIES if not only_head})
        self.head = nn.Linear((3 if self.head_reads_motion else 2) * d, len(config.labels))

    def encode(self, tower: Tower, images: Tensor, route: Route | None) -> Tensor:
        """Normalised images [n, 3, H, W] to tokens [n, N, d]."""
        return tower.run(tower.embed(images), 0, tower.backbone.layers - 1, route)

    def fuse(self, encoders: Encoders, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """Encodings pooled over time [B, N, d] (diff is None for windows of one sample) to logits [B, C]."""
        tower, n = encoders.tower, rgb.shape[1]
        tokens = self._together(rgb, event, diff).to(tower.dtype)
        block = encoders.last_block()
        keys, values = block.keys_values(tokens)
        cls = tokens[:, ::n]  # [B, 3, d]: class tokens of f, r, e; [B, 2, d] without f
        r_e = cls[:, -2:]
        each = _apart(r_e), _of_each(keys, n), _of_each(values, n)
        if self.top:
            wanted = (cls if self.head_reads_motion else r_e), keys, values
            own, shared = block.two_rows(each, wanted, encoders.route_fusion(len(cls)))  # the latter: class rows of Y
            read = torch.cat([own.view_as(r_e) + self._gain(shared[:, -2:]), shared[:, :-2]], dim=1)
        else:
            read = tower.blocks[-1].rows(*each).view_as(r_e)
        features: Tensor = tower.ln_post(read.to(tower.dtype))
        logits: Tensor = self.head(features.flatten(1).to(self.head.weight.dtype))
        return logits

    def reconstruction(self, encoders: Encoders, rgb: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """L_rec: how far S(Z_e) is from Z_r, and S(Z_r) from Z_e, after LN; the targets take no gradient. And L_mean.

        L_mean is how far their mean token is from the targets: L_rec below it has learned something.
        """
        tokens = self._together(rgb, event, None).to(encoders.tower.dtype)
        z_r, z_e = tokens.chunk(2, dim=1)
        route = encoders.route_fusion(2 * len(z_r))
        from_e, from_r = encoders.tower.blocks[-1](torch.cat([z_e, z_r]), route).chunk(2)
        r, e = _norm(z_r).detach(), _norm(z_e).detach()
        return F.mse_loss(_norm(from_e), r) + F.mse_loss(_norm(from_r), e), spread(r) + spread(e)

    def _together(self, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """[Z_f ; Z_r ; Z_e], or [Z_r ; Z_e]."""
        pooled = {"rgb": rgb, "event": event} if diff is None else {"diff": diff, "rgb": rgb, "event": event}
        parts = (z + self.embedding[stream] if self.embedding else z for stream, z in pooled.items())
        return torch.cat(list(parts), dim=1)

    def _gain(self, shared: Tensor) -> Tensor:
        """What Y_r and Y_e [B, 2, d] add to the feed-forward output of the top blocks, [B, 2, d]."""
        normed = _norm(shared.to(self.head.weight.dtype))
        return torch.stack([self.top[name](normed[:, m]) for m, name in enumerate(MODALITIES)], dim=1)


def spread(tokens: Tensor) -> Tensor:
    """How far tokens [B, N, d] are from their mean, in the square; it takes no gradient."""
    own = tokens.detach()
    return (own - own.mean(dim=(0, 1))).square().mean()


def _norm(x: Tensor) -> Tensor:
    """LN without affine, over the features; in float32 at least."""
    return F.layer_norm(x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1:])


def _apart(cls: Tensor) -> Tensor:
    """Class rows [B, 2, d] to sequences of one row, [2 B, 1, d]."""
    return cls.flatten(0, 1).unsqueeze(1)


def _of_each(keys: Tensor, n: int) -> Tensor:
    """Keys or values [B, heads, 3 n, d_h] to those of r and e, the last 2 n, as sequences [2 B, heads, n, d_h]."""
    return torch.stack([keys[:, :, -2 * n : -n], keys[:, :, -n:]], dim=1).flatten(0, 1)
