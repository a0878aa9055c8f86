"""Clips made of numbers: a bar stands where the label says, so that a few steps of training learn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tests.velora.conftest import TINY, make_config, tiny_backbone
from velora.checkpoint import Checkpoint, trained_tensors
from velora.config import VELoRAConfig
from velora.model import VELoRA
from velora.training.clips import ClipSet, Span
from velora.training.trainer import Data
from velora.training.windows import fixed_windows, slots
from velora.vit import VisionTower
from velora.weights import random_tower

PERIOD_US = 10_000
LABELS = ("left", "right", "up")


@dataclass
class MadeClip:
    name: str
    spans: Sequence[Span]
    count: int
    seed: int = 0
    period_us: int = PERIOD_US
    broken_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        start = np.arange(self.count) * self.period_us
        self.times = np.stack([start, start + self.period_us], axis=1).astype(np.int64)
        self.present = np.ones((self.count, 2), bool)
        self.breaks = np.isin(np.arange(self.count), [0, *self.broken_at])

    def images(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        size = TINY.image_size
        found = np.empty((len(indices), 2, size, size, 3), np.uint8)
        for image, index in zip(found, indices, strict=True):
            image[:] = np.random.default_rng([self.seed, index]).integers(0, 60)
            label = next((s.label for s in self.spans if s.start_us <= self.times[index, 0] < s.end_us), None)
            if label is not None:
                image[:, :, 10 * label : 10 * label + 10] = 220
            image[:, 0, :, :] = index % 256  # says which sample it is
        return found


def clip(label: int, count: int = 20, seed: int = 0, **more: object) -> MadeClip:
    return MadeClip(f"clip_{label}_{seed}", (Span(0, count * PERIOD_US, label),), count, seed, **more)  # type: ignore[arg-type]


def clip_set(count: int, seed: int = 0) -> ClipSet:
    return ClipSet(LABELS, tuple(clip(k % len(LABELS), seed=seed + k) for k in range(count)))


def config_of(**changes: object) -> VELoRAConfig:
    changes = {"dropout": 0.0, "sample_period_us": 2 * PERIOD_US} | changes
    return make_config(labels=LABELS, **changes)


def tower() -> VisionTower:
    with tiny_backbone():
        return random_tower("demo", torch.Generator().manual_seed(0))


def start(config: VELoRAConfig) -> Checkpoint:
    """Fresh adapters and head."""
    with tiny_backbone():
        torch.manual_seed(0)
        return Checkpoint(config, trained_tensors(VELoRA(config, towers={"rgb": tower()})))


def data_of(config: VELoRAConfig, clips: int = 12) -> Data:
    train, val = clip_set(clips), clip_set(6, seed=100)
    windows = fixed_windows(val.clips, config, "stream", 2)
    return Data(train, slots(train.clips, config, "stream"), val, windows)
