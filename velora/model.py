"""VELoRA as a torch module.

    logits = VELoRA(config)(rgb, event)      # normalised images, float [B, T, 3, H, W] -> [B, C]

Images are encoded one by one (in one batched call) and pooled over time by a mean, so `encode` and `fuse` are also the
two halves of streaming: a session encodes each new sample once and fuses the mean of its window.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from velora.backbones import backbone
from velora.config import STREAMS, VELoRAConfig
from velora.encoders import Encoders, fresh_encoders
from velora.paper import PaperFusion
from velora.preprocess import difference
from velora.released import ReleasedFusion
from velora.vit import VisionTower
from velora.zero_shot import ZeroShotFusion

Fusion = PaperFusion | ReleasedFusion | ZeroShotFusion
_FUSIONS: dict[str, type[Fusion]] = {
    "paper": PaperFusion,
    "released": ReleasedFusion,
    "zero-shot": ZeroShotFusion,
}


def make_fusion(config: VELoRAConfig) -> Fusion:
    """The stages of a preset, with fresh parameters."""
    return _FUSIONS[config.preset](config)


class VELoRA(nn.Module):
    """Encoders (towers and adapters), and the fusion of the streams.

    Without `encoders` it gets fresh adapters to train, around the bare `towers` (by stream; one under "rgb" serves
    all), or around one with random weights.
    """

    def __init__(
        self,
        config: VELoRAConfig,
        *,
        towers: Mapping[str, VisionTower] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        if encoders is None:
            encoders = fresh_encoders(config, towers or {"rgb": VisionTower(backbone(config.backbone))})
        self.encoders = encoders
        self.fuser = make_fusion(config)

    @property
    def tower(self) -> VisionTower:
        """The tower of all streams, or of the RGB images where each stream has its own."""
        return self.encoders.tower

    def encode(self, images: Tensor, streams: Tensor) -> Tensor:
        """Encodings of normalised images [n, 3, H, W], for example [n, N, d]; streams [n] int64 index `STREAMS`."""
        return self.encoders.encode(images, streams, self.fuser.encode)

    def fuse(self, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """Logits [B, C] of encodings pooled over time; diff is None where T = 1, or the model reads no motion."""
        return self.fuser.fuse(self.encoders, rgb, event, diff)

    def forward(self, rgb: Tensor, event: Tensor) -> Tensor:
        """Logits [B, C] of windows of normalised images, both float [B, T, 3, H, W]."""
        return self.fuse(*self.pooled(rgb, event))

    def with_reconstruction(self, rgb: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [B, C], and the scalars L_rec and L_mean: for training, from one encoding of the images."""
        pooled = self.pooled(rgb, event)
        if isinstance(self.fuser, ZeroShotFusion):
            raise ValueError("zero-shot recognition is not trained: it has no reconstruction loss")
        return self.fuse(*pooled), *self.fuser.reconstruction(self.encoders, *pooled[:2])

    def pooled(self, rgb: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encodings of windows, pooled over time; those of the motion are None where there are none."""
        if rgb.shape != event.shape or rgb.ndim != 5:
            raise ValueError(f"rgb and event must both be [B, T, 3, H, W], not {[*rgb.shape]} and {[*event.shape]}")
        batches = [rgb, event]
        if "diff" in self.config.streams and rgb.shape[1] > 1:
            batches.append(difference(rgb, event))  # T - 1 images a window
        counts = torch.tensor([images.shape[0] * images.shape[1] for images in batches], device=rgb.device)
        streams = torch.arange(len(batches), device=rgb.device).repeat_interleave(counts)
        codes = self._encode_distinct(torch.cat([images.flatten(0, 1) for images in batches]), streams)
        parts = zip(torch.split(codes, counts.tolist()), batches, strict=True)
        pooled = [pool(part.reshape(*images.shape[:2], *part.shape[1:]), dim=1) for part, images in parts]
        return pooled[0], pooled[1], pooled[2] if len(pooled) == len(STREAMS) else None

    def _encode_distinct(self, images: Tensor, streams: Tensor) -> Tensor:
        """As `encode`, but blanks are encoded once, so that a modality that is left out costs next to nothing."""
        kept, places = _distinct(images, streams)
        if len(kept) == len(images):
            return self.encode(images, streams)
        return self.encode(images[kept], streams[kept])[places]


def _distinct(images: Tensor, streams: Tensor) -> tuple[Tensor, Tensor]:
    """Which images [n, 3, H, W] to encode, of those of one colour one a stream, and where each image's code will be.

    Decided on the CPU: it is about a few hundred rows, each step on a GPU would wait, and MPS lacks some of them.
    """
    least, most = (extreme.cpu() for extreme in torch.aminmax(images.flatten(2), dim=2))
    streams = streams.cpu()
    blank = (least == most).all(dim=1).nonzero()[:, 0]
    first = torch.arange(len(images))
    if len(blank) > 1:
        keys = torch.cat([streams[blank, None].to(least.dtype), least[blank]], dim=1)
        colours, group = torch.unique(keys, dim=0, return_inverse=True)
        firsts = torch.full((len(colours),), len(images))
        first[blank] = firsts.scatter_reduce(0, group, blank, "amin")[group]
    kept, places = torch.unique(first, return_inverse=True)
    return kept.to(images.device), places.to(images.device)


def pool(codes: Tensor, dim: int) -> Tensor:
    """The mean of encodings over time, in float32 at least."""
    return codes.mean(dim=dim, dtype=torch.promote_types(codes.dtype, torch.float32))
