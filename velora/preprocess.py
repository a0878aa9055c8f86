"""From camera images to what the tower reads: the one way, for training, evaluation and live use alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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
    _check(images)
    return torch.cat([_resize(image, size) for image in images])


def resize_to(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """As `resize`, on a device; a GPU gets the images as they are, through pinned memory, and resizes them itself.

    It does so in float32, and may differ by a grey level.
    """
    if device.type != "cuda":
        return resize(images, size).to(device)
    _check(images)
    return torch.cat([resize_floats(_sent(image, device), size) for image in images])


def _sent(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [1, 3, H, W] on a GPU, which copies it while the host goes on."""
    pinned = torch.empty(image.shape, dtype=torch.uint8, pin_memory=True)
    pinned.numpy()[:] = image
    return pinned.to(device, non_blocking=True).permute(2, 0, 1).unsqueeze(0)


def resize_floats(pixels: Tensor, size: int) -> Tensor:
    """Images uint8 [n, 3, H, W] to uint8 [n, 3, size, size] by way of float32, for devices that resize nothing else."""
    if pixels.shape[2:] == (size, size):
        return pixels
    scaled = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def _check(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> None:
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")


def _resize(image: NDArray[np.uint8], size: int) -> Tensor:
    image = np.ascontiguousarray(image)  # torch takes none that is reversed, as OpenCV's BGR often is
    if image.shape[:2] == (size, size):
        return torch.tensor(image).permute(2, 0, 1).unsqueeze(0)
    pixels = torch.tensor(image).permute(2, 0, 1).unsqueeze(0)  # [1, 3, H, W], of bytes: torch has a fast way for these
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images uint8 [..., 3, H, W] to float32: (x / 255 - mean) / std for each channel."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    return images.float() * scale - shift


@lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [3, 1, 1] both; kept, since a GPU would be waited for whenever they are sent there."""
    with torch.inference_mode(False):
        scale = torch.tensor(std).mul_(255).reciprocal_().view(3, 1, 1)
        shift = torch.tensor(mean).div_(torch.tensor(std)).view(3, 1, 1)
        return scale.to(device), shift.to(device)


def difference(rgb: Tensor, event: Tensor) -> Tensor:
    """The motion images u_j = |r_{j-1} - r_j| + |e_{j-1} - e_j| [B, T - 1, 3, H, W] of normalised [B, T, 3, H, W]."""
    return rgb.diff(dim=1).abs_() + event.diff(dim=1).abs_()
