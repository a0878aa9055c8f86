"""From camera images to what the tower reads: the one way, for training, evaluation and live use alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def resize(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], size: int) -> Tensor:
    """Images uint8 [H, W, 3] (their sizes may differ) to uint8 [n, 3, size, size].

    Bilinear with antialiasing, aspect ratio ignored, as the released data were made: within one grey level of PIL's
    BILINEAR. Images of that size already stay as they are. Raises ValueError for anything that is not such an image.
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    return torch.cat([_resize(image, size) for image in images])


def _resize(image: NDArray[np.uint8], size: int) -> Tensor:
    if image.shape[:2] == (size, size):
        return torch.tensor(image).permute(2, 0, 1).unsqueeze(0)
    pixels = torch.tensor(image).permute(2, 0, 1).unsqueeze(0)  # [1, 3, H, W], of bytes: torch has a fast way for these
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images uint8 [..., 3, H, W] to float32: (x / 255 - mean) / std for each channel."""
    scale = torch.tensor(std, device=images.device).mul_(255).reciprocal_().view(3, 1, 1)
    shift = torch.tensor(mean, device=images.device).div_(torch.tensor(std, device=images.device)).view(3, 1, 1)
    return images.float() * scale - shift


def difference(rgb: Tensor, event: Tensor) -> Tensor:
    """The motion images u_j = |r_{j-1} - r_j| + |e_{j-1} - e_j| [B, T - 1, 3, H, W] of normalised [B, T, 3, H, W]."""
    return rgb.diff(dim=1).abs_() + event.diff(dim=1).abs_()
