"""A checkpoint is a folder: config.json, adapter.safetensors (only what was trained) and README.md (the card).

The weights of the backbone are not in it; `velora.weights` finds them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from velora.config import MAX_JSON_CHARS, VELoRAConfig
from velora.errors import ModelError
from velora.lora import adapter_shapes, insert_stacked, lora_state
from velora.model import VELoRA
from velora.paper import PaperFusion
from velora.vit import VisionTower
from velora.weights import read_tensors

CONFIG, ADAPTER, CARD = "config.json", "adapter.safetensors", "README.md"
_FUSER = "fuser."


@dataclass(frozen=True)
class Checkpoint:
    """What was trained, and the config that it fits."""

    config: VELoRAConfig
    tensors: Mapping[str, Tensor]  # float32; the LoRA of each stream under PEFT's names, and the fuser's


def trained_tensors(model: VELoRA) -> dict[str, Tensor]:
    """What a checkpoint stores of a model that was trained."""
    fuser = {_FUSER + name: tensor for name, tensor in model.fuser.state_dict().items()}
    return {name: tensor.detach() for name, tensor in (lora_state(model.tower) | fuser).items()}


def tensor_shapes(config: VELoRAConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in adapter.safetensors."""
    with torch.device("meta"):
        fuser = PaperFusion(config).state_dict()
    return {**adapter_shapes(config), **{_FUSER + name: tuple(tensor.shape) for name, tensor in fuser.items()}}


def random_tensors(config: VELoRAConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Random adapters and head, no B zero, so that every stream has its part in the result."""

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        std = shape[-1] ** -0.5 if "lora_A" in name else 0.02
        return torch.randn(shape, generator=generator) * std

    return {name: draw(name, shape) for name, shape in tensor_shapes(config).items()}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, card: str) -> None:
    """Write the folder's files, each under a temporary name first, so that none is ever seen half written."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in checkpoint.tensors.items()}
    save_tensors(folder / ADAPTER, tensors)
    _write(folder / CARD, card.encode())
    _write(folder / CONFIG, (checkpoint.config.to_json() + "\n").encode())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    _write(path, save(dict(tensors)))


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's folder. Raises ModelError that names the file that is missing or broken."""
    config = load_config(folder / CONFIG)
    fix = f"it does not fit {CONFIG} beside it, copy the whole checkpoint again"
    tensors = read_tensors(folder / ADAPTER, tensor_shapes(config), fix=fix)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{folder / ADAPTER}: {name} holds numbers that are not finite, train it again")
    return Checkpoint(config, tensors)


def load_config(path: Path) -> VELoRAConfig:
    """Read a config.json. Raises ModelError that names the file and the field that is wrong."""
    try:
        with path.open(encoding="utf-8") as file:
            return VELoRAConfig.from_json(file.read(MAX_JSON_CHARS + 1))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): a checkpoint is a folder with {CONFIG}") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def build_model(checkpoint: Checkpoint, tower: VisionTower) -> VELoRA:
    """A model for inference around a bare tower; it does not import PEFT."""
    insert_stacked(tower, checkpoint.tensors, checkpoint.config)
    model = VELoRA(checkpoint.config, tower=tower)
    fuser = {name.removeprefix(_FUSER): t for name, t in checkpoint.tensors.items() if name.startswith(_FUSER)}
    model.fuser.load_state_dict(fuser)
    return model.eval().requires_grad_(False)
