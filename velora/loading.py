"""From a name or a folder to a recogniser."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from velora.backbones import BACKBONES
from velora.checkpoint import Checkpoint, build_model, load_checkpoint, load_config, random_tensors
from velora.devices import choose_device, choose_dtype
from velora.errors import ModelError
from velora.recognizer import Recognizer
from velora.vit import VisionTower
from velora.weights import load_tower, random_tower

DEMO = Path(__file__).parent / "demo"
_SEED = 0


def load_recognizer(
    name_or_path: str | os.PathLike[str], *, device: str = "auto", dtype: str = "auto", random_weights: bool = False
) -> Recognizer:
    """A recogniser, ready to run.

    `name_or_path` is "demo" (bundled), the name of a backbone (the demo's labels and random adapters, to try its
    speed), or the folder of a checkpoint. `random_weights` replaces a backbone's weights by random ones. Raises
    ModelError, one line that says what to do, where something is missing or broken; downloads nothing.
    """
    name = os.fspath(name_or_path)
    checkpoint, random_parts = _find(name)
    where = choose_device(device)
    numbers = choose_dtype(dtype, where)
    tower, random_backbone = _tower(checkpoint, random_weights)
    model = build_model(checkpoint, tower)
    model.fuser.to(where)
    model.tower.to(where, numbers)
    parts = ("backbone", *random_parts) if random_backbone else random_parts
    return Recognizer(Path(name).name or name, model, parts)


def _find(name: str) -> tuple[Checkpoint, tuple[str, ...]]:
    """The checkpoint that a name or path means, and which of its parts have not been trained."""
    if name == "demo" or (name not in BACKBONES and Path(name).is_dir()):
        checkpoint = load_checkpoint(DEMO if name == "demo" else Path(name))
        return checkpoint, () if checkpoint.config.trained else ("adapters", "head")
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise ModelError(f"no model {name!r}: give the folder of a checkpoint, or one of {known}")
    config = dataclasses.replace(load_config(DEMO / "config.json"), backbone=name, trained=False)
    return Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(_SEED))), ("adapters", "head")


def _tower(checkpoint: Checkpoint, random_weights: bool) -> tuple[VisionTower, bool]:
    """The bare tower of a checkpoint, and whether its weights are random."""
    config = checkpoint.config
    bundled = BACKBONES[config.backbone].hub_repo is None
    if random_weights and not bundled:
        return random_tower(config.backbone, torch.Generator().manual_seed(_SEED)), True
    return load_tower(config.backbone), bundled and not load_config(DEMO / "config.json").trained
