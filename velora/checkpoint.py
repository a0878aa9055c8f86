"""A checkpoint is a folder: config.json, adapter.safetensors (only what was trained) and README.md (the card).

The weights of the backbone are not in it; `velora.weights` finds them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from streams.files import replaced_when_whole
from velora.backbones import backbone
from velora.config import MAX_JSON_CHARS, STREAMS, VELoRAConfig
from velora.encoders import adapter_shapes, bare_state, saved_encoders
from velora.errors import ModelError
from velora.model import VELoRA, make_fusion
from velora.vit import VisionTower
from velora.weights import opened_tensors, read_tensors

CONFIG, ADAPTER, CARD = "config.json", "adapter.safetensors", "README.md"
_FUSER, _TOWER = "fuser.", "tower."
#: tensors whose random values keep the size of what passes them
_SPREAD = r"lora_A|clora\.(down|cores)|(query|key|value|qkv|proj|fc1|fc2|visual_embed)\.weight$|fuser\.text$"


@dataclass(frozen=True)
class Checkpoint:
    """What was trained, and the config that it fits."""

    config: VELoRAConfig
    tensors: Mapping[str, Tensor]  # the LoRA of each stream under PEFT's names, CLoRA's, the fuser's, own towers


def trained_tensors(model: VELoRA) -> dict[str, Tensor]:
    """What a checkpoint stores of a model."""
    tensors = {_FUSER + name: tensor for name, tensor in model.fuser.state_dict().items()}
    for adapter in model.encoders.each_adapter():
        tensors |= adapter.state()
    if model.config.own_towers:
        tensors |= tower_tensors({stream: bare_state(model.encoders.tower_of(stream)) for stream in STREAMS})
    return {name: tensor.detach() for name, tensor in tensors.items()}


def tower_tensors(towers: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of own towers, by stream: those that are equal in all of them once."""
    first, *others = towers.values()
    tensors: dict[str, Tensor] = {}
    for name, tensor in first.items():
        if all(torch.equal(tensor, other[name]) for other in others):
            tensors[_TOWER + name] = tensor
        else:
            tensors |= {f"{_TOWER}{stream}.{name}": tower[name] for stream, tower in towers.items()}
    return tensors


def tensor_shapes(config: VELoRAConfig, stored: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in adapter.safetensors, among whose names are `stored`."""
    with torch.device("meta"):
        fuser = make_fusion(config).state_dict()
        tower = VisionTower(backbone(config.backbone)).state_dict() if config.own_towers else {}
    shapes = adapter_shapes(config) | {_FUSER + name: tuple(tensor.shape) for name, tensor in fuser.items()}
    for name, tensor in tower.items():
        apart = config.own_towers == len(STREAMS) and _TOWER + name not in stored
        stems = [f"{_TOWER}{stream}." for stream in STREAMS] if apart else [_TOWER]
        shapes |= {stem + name: tuple(tensor.shape) for stem in stems}
    return shapes


def is_of_tower(name: str) -> bool:
    """Whether a tensor of a checkpoint belongs to a tower that it brings."""
    return name.startswith(_TOWER)


def random_tensors(config: VELoRAConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Random adapters and head, no B zero, so that every stream has its part in the result."""

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if re.search(r"norm\d?\.weight$|ln_\w+\.weight$|fuser\.scale$", name):
            return torch.ones(shape) * (100 if name == "fuser.scale" else 1)
        spread = re.search(_SPREAD, name)
        return torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if spread else 0.02)

    return {name: draw(name, shape) for name, shape in tensor_shapes(config).items()}


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, card: str) -> None:
    """Write the folder's files, each under a temporary name first, so that none is ever seen half written."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in checkpoint.tensors.items()}
    save_tensors(folder / ADAPTER, tensors)
    _write(folder / CARD, card.encode())
    _write(folder / CONFIG, (checkpoint.config.to_json() + "\n").encode())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file. Raises OSError."""
    with replaced_when_whole(path) as temporary:
        try:
            save_file(dict(tensors), temporary)
        except SafetensorError as error:
            if (number := re.search(r"\(os error (\d+)\)", str(error))) is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def _write(path: Path, data: bytes) -> None:
    with replaced_when_whole(path) as temporary:
        temporary.write_bytes(data)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's folder; its tensors become float32. Raises ModelError that names a missing or broken file."""
    config = load_config(folder / CONFIG)
    fix = f"it does not fit {CONFIG} beside it, copy the whole checkpoint again"
    file = folder / ADAPTER
    tensors = read_tensors(file, tensor_shapes(config, names_in(file, fix=fix)), fix=fix)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{file}: {name} holds numbers that are not finite, train it again")
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


def build_model(checkpoint: Checkpoint, tower: VisionTower | None = None) -> VELoRA:
    """A model for inference, without PEFT: around a bare tower, or around the towers that the checkpoint brings."""
    config, tensors = checkpoint.config, checkpoint.tensors
    towers = {"rgb": tower} if tower is not None else _own_towers(config, tensors)
    model = VELoRA(config, encoders=saved_encoders(config, towers, tensors))
    model.fuser.load_state_dict(_fuser_state(tensors))
    return model.eval().requires_grad_(False)


def build_trainable(checkpoint: Checkpoint, tower: VisionTower | None = None) -> VELoRA:
    """The same, to train further: around a bare tower, which gets PEFT's layers, or around the checkpoint's own."""
    config, tensors = checkpoint.config, checkpoint.tensors
    towers = {"rgb": tower} if tower is not None else _own_towers(config, tensors, apart=True)
    model = VELoRA(config, towers=towers)
    model.fuser.load_state_dict(_fuser_state(tensors))
    with torch.no_grad():
        for adapter in model.encoders.each_adapter():
            for name, tensor in adapter.state().items():
                tensor.copy_(tensors[name])
    return model


def _own_towers(config: VELoRAConfig, tensors: Mapping[str, Tensor], *, apart: bool = False) -> dict[str, VisionTower]:
    """The towers in a checkpoint, by stream; what is stored once is in memory once, unless they are to be `apart`."""
    towers = {}
    for stream in STREAMS if config.own_towers == len(STREAMS) else STREAMS[:1]:
        with torch.device("meta"):
            towers[stream] = VisionTower(backbone(config.backbone))
        state = _tower_state(tensors, stream)
        towers[stream].load_state_dict({n: t.clone() if apart else t for n, t in state.items()}, assign=True)
    return towers


def _tower_state(tensors: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """The state dict of a stream's tower."""
    plain = {name.removeprefix(_TOWER): t for name, t in tensors.items() if name.startswith(_TOWER)}
    own = {name.removeprefix(f"{stream}."): t for name, t in plain.items() if name.startswith(f"{stream}.")}
    shared = {name: t for name, t in plain.items() if not name.startswith(tuple(f"{s}." for s in STREAMS))}
    return shared | own


def _fuser_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_FUSER): t for name, t in tensors.items() if name.startswith(_FUSER)}


def names_in(file: Path, *, fix: str) -> set[str]:
    """The names in a safetensors file. Raises ModelError, which ends with `fix`, for anything else."""
    try:
        with opened_tensors(file) as opened:
            return set(opened.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read as safetensors ({error}): {fix}") from error
