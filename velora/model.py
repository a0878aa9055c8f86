"""VELoRA as a torch module.

    logits = VELoRA(config)(rgb, event)      # normalised images, float [B, T, 3, H, W] -> [B, C]

Images are encoded one by one (in one batched call) and pooled over time by a mean, so `encode` and `fuse` are also the
two halves of streaming: a session encodes each new sample once and fuses the mean of its window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from velora.backbones import BACKBONES
from velora.config import VELoRAConfig
from velora.lora import STREAMS, adapted_layers, insert_lora
from velora.paper import PaperFusion
from velora.preprocess import difference
from velora.vit import VisionTower


class VELoRA(nn.Module):
    """A frozen tower with an adapter for each stream, and the fusion of the streams.

    A `tower` that is given may have its adapters already; a bare one is frozen and gets fresh ones to train.
    """

    def __init__(self, config: VELoRAConfig, *, tower: VisionTower | None = None) -> None:
        super().__init__()
        self.config = config
        self.tower = VisionTower(BACKBONES[config.backbone]) if tower is None else tower
        if all(isinstance(layer, nn.Linear) for _, layer in adapted_layers(self.tower)):
            self.tower.requires_grad_(False)
            insert_lora(self.tower, config)
        self.fuser = PaperFusion(config)

    def encode(self, images: Tensor, streams: Tensor) -> Tensor:
        """Tokens [n, N, d] of normalised images [n, 3, H, W]; streams [n] int64 index `velora.lora.STREAMS`."""
        return self.fuser.encode(self.tower, images, streams)

    def fuse(self, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """Logits [B, C] of encodings pooled over time, float32 [B, N, d]; diff is None where T = 1."""
        return self.fuser.fuse(self.tower, rgb, event, diff)

    def forward(self, rgb: Tensor, event: Tensor) -> Tensor:
        """Logits [B, C] of windows of normalised images, both float [B, T, 3, H, W]."""
        if rgb.shape != event.shape or rgb.ndim != 5:
            raise ValueError(f"rgb and event must both be [B, T, 3, H, W], not {[*rgb.shape]} and {[*event.shape]}")
        batches = [rgb, event, difference(rgb, event)]  # T, T and T - 1 images a window
        counts = torch.tensor([images.shape[0] * images.shape[1] for images in batches], device=rgb.device)
        streams = torch.arange(len(STREAMS), device=rgb.device).repeat_interleave(counts)
        codes = self.encode(torch.cat([images.flatten(0, 1) for images in batches]), streams)
        parts = torch.split(codes, counts.tolist())
        pooled = [_pool(part, images.shape[1]) for part, images in zip(parts, batches, strict=True)]
        return self.fuse(pooled[0], pooled[1], pooled[2] if rgb.shape[1] > 1 else None)


def _pool(codes: Tensor, length: int) -> Tensor:
    """Encodings [B * length, N, d] of windows, one after the other, to their means, float32 [B, N, d]."""
    return codes.reshape(-1, max(length, 1), *codes.shape[1:]).mean(dim=1, dtype=torch.float32)
