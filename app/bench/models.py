"""Recognisers to measure, most of them with random weights, which cost the same; and the released algorithm."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.bench.asked import Asked
from app.model import random_note
from velora import Recognizer, VELoRAConfig, load_recognizer
from velora.backbones import BACKBONES, backbone
from velora.checkpoint import Checkpoint, build_model, random_tensors
from velora.config import STREAMS
from velora.model import VELoRA, pool
from velora.preprocess import difference
from velora.vit import VisionTower

DEMO = "demo"
USUAL = ("ViT-B-16-quickgelu", DEMO)
_SEED = 0


def load(asked: Asked, name: str, *, dtype: str | None = None) -> Recognizer:
    """The demo, a checkpoint, or a backbone with random weights, of which stderr tells. Raises ModelError."""
    random = is_random(name)
    found = load_recognizer(name, device=asked.device, dtype=dtype or asked.dtype, random_weights=random)
    if note := random_note(found):
        print(f"velora: {found.name}: {note}", file=sys.stderr)
    return found


def is_random(name: str) -> bool:
    """Whether a name means a backbone, which runs with random weights here."""
    return name != DEMO and not Path(name).is_dir()


def varied(recognizer: Recognizer, **changes: Any) -> Recognizer:
    """The same tower with another config, and random adapters and head of it."""
    switches = {"motion": "shared", "attend_over": "batch_of_one"} if "preset" in changes else {}  # of each preset
    config = dataclasses.replace(recognizer.config, **{"own_towers": 0, **switches, **changes})
    model = build_model(Checkpoint(config, _random(config)), recognizer.model.tower)
    return placed(recognizer.name, model, recognizer.device, recognizer.dtype)


def placed(name: str, model: VELoRA, device: torch.device, dtype: torch.dtype) -> Recognizer:
    """A model on a device, its tower where it is."""
    model.encoders.adapters.to(device, dtype)
    model.fuser.to(device)
    model.encoders.prepare()
    return Recognizer(name, model, ("adapters", "head"))


def of_image_size(recognizer: Recognizer, size: int) -> Recognizer:
    """The same shapes with random weights, for images of another size, a multiple of the patches'."""
    shape = recognizer.model.tower.backbone
    other = dataclasses.replace(shape, name=f"{shape.name}@{size}", image_size=size)
    BACKBONES[other.name] = other  # a config must find it
    tower = VisionTower(other).to(recognizer.device, recognizer.dtype).eval().requires_grad_(False)
    config = dataclasses.replace(recognizer.config, backbone=other.name, weights_digest="", own_towers=0)
    model = build_model(Checkpoint(config, _random(config)), tower)
    return placed(other.name, model, recognizer.device, recognizer.dtype)


class ReleasedAlgorithm:
    """What the authors' evaluation computes: images encoded one by one, float32, a backbone for each stream.

    Random weights serve.
    """

    def __init__(self, config: VELoRAConfig, device: torch.device) -> None:
        own = released_config(config)
        self.model = build_model(Checkpoint(own, _random(own))).to(device)

    @torch.inference_mode()
    def __call__(self, rgb: Tensor, event: Tensor) -> Tensor:
        """Log-probabilities [1, C] of a window of normalised images, both [1, T, 3, H, W]."""
        return one_by_one(self.model, rgb, event)


def released_config(config: VELoRAConfig) -> VELoRAConfig:
    """That of the released algorithm on the same backbone."""
    return dataclasses.replace(
        config,
        preset="released",
        adapter="lora",
        motion="shared",
        attend_over="batch",
        own_towers=len(STREAMS),
        weights_digest="",
    )


def one_by_one(model: VELoRA, rgb: Tensor, event: Tensor) -> Tensor:
    """Logits [1, C] of a window, both [1, T, 3, H, W], each image of which is encoded by itself."""
    return model.fuse(*pooled_one_by_one(model, rgb, event))


def pooled_one_by_one(model: VELoRA, rgb: Tensor, event: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Encodings pooled over time, [1, N, d] each; those of the motion are None where there are none."""
    windows = [rgb, event, difference(rgb, event)][: len(model.config.streams)]
    pooled = []
    for stream, images in enumerate(windows):
        number = torch.tensor([stream], device=rgb.device)
        codes = [model.encode(image.unsqueeze(0), number) for image in images[0]]
        pooled.append(pool(torch.stack(codes, dim=1), dim=1))
    return pooled[0], pooled[1], pooled[2] if len(pooled) == len(STREAMS) else None


def check_models(names: tuple[str, ...]) -> None:
    """Raise ValueError that names a model which is neither the demo, a checkpoint's folder, nor a backbone."""
    for name in names:
        if is_random(name):
            backbone(name)


def dtype_name(dtype: torch.dtype) -> str:
    """As people write it."""
    return str(dtype).removeprefix("torch.")


def _random(config: VELoRAConfig) -> dict[str, Tensor]:
    return random_tensors(config, torch.Generator().manual_seed(_SEED))
