"""Windows to batches of images: the random choices of training, all drawn from a seed, an epoch and a place in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from velora.training.clips import Clip
from velora.training.windows import Slot, Window

MODALITIES = ("both", "rgb", "event")

Place = tuple[int, int]  # epoch, position among the slots


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is changed at random, alike for all images of a window."""

    flip: bool = False  # left and right
    crop: float = 1.0  # smallest share of each side that is kept
    drop_modality: float = 0.0  # of windows: how often the RGB or the event images are blank
    modality: str = "both"  # the other one is always blank

    def apply(self, images: Tensor, rng: np.random.Generator, *, both: bool = True) -> Tensor:
        """Images uint8 [T, 2, 3, S, S] to the same, changed; one that has not `both` modalities keeps its only one."""
        if self.crop < 1:
            images = _cropped(images, self.crop, rng)
        if self.flip and rng.random() < 0.5:
            images = images.flip(-1)
        if self.modality == "both" and rng.random() < self.drop_modality and both:
            return blank(images, int(rng.integers(2)))
        return only(images, self.modality)


def blank(images: Tensor, modality: int) -> Tensor:
    """Without RGB (0: black) or without events (1: white), as a sample is that lacks them; uint8 [..., 2, 3, S, S]."""
    images = images.clone()
    images[..., modality, :, :, :] = 255 * modality
    return images


def only(images: Tensor, modality: str) -> Tensor:
    """What is left where one of MODALITIES alone is to be seen."""
    return images if modality == "both" else blank(images, 1 if modality == "rgb" else 0)


class Windows(Dataset[tuple[Tensor, int]]):
    """Random windows of slots, images uint8 [T, 2, 3, S, S] and label, by their `Place`."""

    def __init__(
        self, clips: Sequence[Clip], slots: Sequence[Slot], frames: int, augmentation: Augmentation, seed: int
    ) -> None:
        self._clips, self._slots, self._frames = clips, slots, frames
        self._augmentation, self._seed = augmentation, seed

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, place: Place) -> tuple[Tensor, int]:
        rng = np.random.default_rng([self._seed, *place])
        window = self._slots[place[1]].window(self._frames, rng)
        both = bool(self._clips[window.clip].present[list(window.indices)].any(axis=0).all())
        return self._augmentation.apply(load_window(self._clips, window), rng, both=both), window.label


class EpochBatches(Sampler[list[Place]]):
    """Batches of places, epoch after epoch, each in its own order, from batch `first` to batch `last`."""

    def __init__(self, count: int, batch: int, seed: int, first: int, last: int) -> None:
        self._count, self.batch_size, self._seed, self._span = count, min(batch, count), seed, range(first, last)
        self.drop_last = True  # what accelerate asks, as it does for `batch_size`

    def __len__(self) -> int:
        return len(self._span)

    def __iter__(self) -> Iterator[list[Place]]:
        for number in self._span:
            epoch, place = divmod(number, batches_an_epoch(self._count, self.batch_size))
            order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
            start = place * self.batch_size
            yield [(epoch, int(k)) for k in order[start : start + self.batch_size]]


def batches_an_epoch(count: int, batch: int) -> int:
    """Whole batches in an epoch; what is left over waits for another one."""
    return max(1, count // max(1, min(batch, count)))


def load_window(clips: Sequence[Clip], window: Window) -> Tensor:
    """Images uint8 [T, 2, 3, S, S] of a window; each sample is read once."""
    wanted, places = np.unique(window.indices, return_inverse=True)
    images = torch.from_numpy(clips[window.clip].images(wanted.tolist()))  # [k, 2, S, S, 3]
    return images[torch.from_numpy(places)].permute(0, 1, 4, 2, 3).contiguous()


def _cropped(images: Tensor, smallest: float, rng: np.random.Generator) -> Tensor:
    size = images.shape[-1]
    height, width = (round(size * rng.uniform(smallest, 1)) for _ in range(2))
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    cut = images[..., top : top + height, left : left + width].flatten(0, 1).float()
    whole = F.interpolate(cut, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return whole.round_().clamp_(0, 255).to(torch.uint8).reshape(images.shape)
