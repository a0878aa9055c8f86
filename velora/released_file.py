"""The authors' checkpoint files: a `.pth` with the states of three CLIPs, under PEFT's names, and of what joins them.

Names vary with the version of PEFT and with data-parallel training; `read_released` makes them uniform and says of
every tensor whether the model needs it. Nothing in a file is executed, and what is not needed is not read into memory.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from velora.adapter import LAYERS
from velora.backbones import backbone
from velora.errors import ModelError
from velora.lora import lora_keys
from velora.vit import VisionTower
from velora.weights import load_torch

TRAINED = "model_state_dict"
ENCODERS = {"rgb": "ViT_model_state_dict", "event": "Event_ViT_model_state_dict", "diff": "frame_ViT_model_state_dict"}

#: names in `model_state_dict`, to the names of ours in a checkpoint
_NAMES = (
    (r"(rgb|event)_embed", r"fuser.embedding.\1"),
    (r"frame_embed", r"fuser.embedding.diff"),
    (r"(blocks|fuse_blocks)\.0\.(.+)", r"fuser.\1.\2"),
    (r"(norm|visual_embed)\.(.+)", r"fuser.\1.\2"),
    (r"self_attention\.(.+)", r"fuser.attention.\1"),
    (r"fc1\.(.+)", r"fuser.head.\1"),
)
_LORA = re.compile(rf"(transformer\.resblocks\.\d+\.mlp\.(?:{'|'.join(LAYERS)}))\.lora_([AB])\.weight")


@dataclass(frozen=True)
class Released:
    """What a file holds of the model; a tensor's key in the file is `part/name`."""

    path: Path
    tensors: dict[str, Tensor] = field(default_factory=dict)  # LoRA and what was trained beside it, by our names
    towers: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # the encoders' own weights, by stream
    used: dict[str, str] = field(default_factory=dict)  # keys in the file, and the part of the model they are
    dropped: dict[str, str] = field(default_factory=dict)  # keys in the file, and why they are not needed


def read_released(path: Path) -> Released:
    """Sort the contents of a file. Raises ModelError, one line that names it, for anything but such a file."""
    parts = _load(path)
    found = Released(path)
    for stream, part in ENCODERS.items():
        found.towers[stream] = {}
        for key, name, tensor in _entries(found, parts, part):
            _take_encoders(found, stream, key, name, tensor)
    for key, name, tensor in _entries(found, parts, TRAINED):
        _take_trained(found, key, name, tensor)
    for part in sorted(parts.keys() - {TRAINED, *ENCODERS.values()}):
        found.dropped[part] = "of the training run"
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        parts = load_torch(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as a checkpoint ({error}): download it again") from None
    wanted = [TRAINED, *ENCODERS.values()]
    if not isinstance(parts, dict) or not all(isinstance(parts.get(part), Mapping) for part in wanted):
        raise ModelError(f"{path} is no checkpoint of the released code, which holds {', '.join(wanted)}")
    return {str(part): state for part, state in parts.items()}


def _entries(found: Released, parts: Mapping[str, Any], part: str) -> Iterator[tuple[str, str, Tensor]]:
    """Key in the file, uniform name and tensor of each entry of a part. Raises ModelError for two of one name."""
    keys: dict[str, str] = {}
    for name, tensor in parts[part].items():
        key, uniform = f"{part}/{name}", _uniform(str(name))
        if not isinstance(tensor, Tensor):
            found.dropped[key] = "no tensor"
        elif uniform in keys:
            raise ModelError(f"{found.path}: {keys[uniform]} and {key} are the same tensor of the model: remove one")
        else:
            keys[uniform] = key
            yield key, uniform, tensor


def _uniform(name: str) -> str:
    """A name without what data-parallel training and PEFT put around it."""
    name = name.removeprefix("module.").removeprefix("base_model.model.").removeprefix("module.")
    name = name.replace(".base_layer.", ".")
    return re.sub(r"\.lora_([AB])\.\w+\.weight$", r".lora_\1.weight", name)


def _take_encoders(found: Released, stream: str, key: str, name: str, tensor: Tensor) -> None:
    if not name.startswith("visual."):
        found.dropped[key] = "text tower, which never runs"
        return
    name = name.removeprefix("visual.")
    found.used[key] = f"{stream} encoder"
    if match := _LORA.fullmatch(name):
        ours = lora_keys(match[1], stream)["AB".index(match[2])]
        found.tensors[ours] = tensor
        found.used[key] = f"{stream} LoRA"
    elif re.sub(r"\.\d+\.", ".0.", name) in _tower_names():
        found.towers[stream][name] = tensor
    else:
        del found.used[key]
        found.dropped[key] = "no part of the vision tower"


@functools.cache
def _tower_names() -> frozenset[str]:
    """Names in a vision tower of one block."""
    with torch.device("meta"):
        tower = VisionTower(dataclasses.replace(backbone("demo"), layers=1))
    return frozenset(tower.state_dict())


def _take_trained(found: Released, key: str, name: str, tensor: Tensor) -> None:
    for pattern, ours in _NAMES:
        if match := re.fullmatch(pattern, name):
            found.tensors[match.expand(ours)] = tensor
            found.used[key] = "fusion and head"
            return
    found.dropped[key] = "the forward never uses it"
