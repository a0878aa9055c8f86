"""What training minimises: cross-entropy, plus VELoRA's reconstruction loss, plus CLoRA's diversity term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from velora.clora import CLoRA, sade
from velora.model import VELoRA
from velora.preprocess import normalize
from velora.released import ReleasedFusion


class Losses(NamedTuple):
    """The sum that is minimised, and what it consists of; scalars, and logits [B, C]."""

    total: Tensor
    parts: Mapping[str, Tensor]  # and "reconstruction_gain", over predicting the mean token
    logits: Tensor


class Objective(nn.Module):
    """A model and its losses, as one module, so that data-parallel training sees all of the forward pass."""

    def __init__(
        self, model: VELoRA, *, w_rec: float = 0.0, sade_weight: float = 0.0, sade_normalize: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self._w_rec, self._sade_weight, self._sade_normalize = w_rec, sade_weight, sade_normalize
        if not w_rec and isinstance(model.fuser, ReleasedFusion):
            for part in (model.fuser.blocks, model.fuser.norm):  # what only the reconstruction reads
                part.requires_grad_(False)

    def forward(self, images: Tensor, labels: Tensor, *, diverse: bool) -> Losses:
        """Images uint8 [B, T, 2, 3, S, S] and labels [B]; `diverse` switches the diversity term on."""
        rgb, event = self._normal(images)
        parts: dict[str, Tensor] = {}
        if self._w_rec:
            logits, parts["reconstruction"], mean = self.model.with_reconstruction(rgb, event)
            parts["reconstruction_gain"] = 1 - parts["reconstruction"].detach() / mean.clamp(min=1e-9)
        else:
            logits = self.model(rgb, event)
        parts["cross_entropy"] = F.cross_entropy(logits.float(), labels)
        total = parts["cross_entropy"]
        if self._w_rec:
            total = total + self._w_rec * parts["reconstruction"]
        clora = next((a for a in self.model.encoders.each_adapter() if isinstance(a, CLoRA)), None)
        if diverse and self._sade_weight and clora is not None:
            parts["sade"] = sade(clora, normalize=self._sade_normalize)
            total = total + self._sade_weight * parts["sade"]
        return Losses(total, parts, logits)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [B, C], for evaluation."""
        logits: Tensor = self.model(*self._normal(images)).float()
        return logits

    def _normal(self, images: Tensor) -> tuple[Tensor, Tensor]:
        config = self.model.config
        normal = normalize(images, config.mean, config.std)
        return normal[:, :, 0], normal[:, :, 1]
