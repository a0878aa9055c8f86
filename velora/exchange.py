"""Exchange of LoRA with PEFT: one folder for each stream, as `PeftModel.save_pretrained` writes it.

    save_peft(load_checkpoint("my-model"), "peft")           # peft/rgb, peft/event, peft/diff, peft/fusion
    PeftModel.from_pretrained(open_clip_model.visual, "peft/rgb")

The names are those of CLIP's vision tower in open_clip, which ours share.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from velora.checkpoint import Checkpoint, names_in, save_tensors
from velora.config import VELoRAConfig
from velora.encoders import adapter_shapes, blocks_of
from velora.errors import ModelError
from velora.lora import peft_config
from velora.weights import read_tensors

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_FIX = "save it with PEFT again, from the same backbone"
#: What settings must be; other beginnings, such as PiSSA's, change the backbone itself.
_PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, "gaussian")}
_ABSENT = (  # what must not be set
    *("alpha_pattern", "rank_pattern", "lora_bias", "fan_in_fan_out", "modules_to_save", "layers_to_transform"),
    *("layer_replication", "target_parameters", "trainable_token_indices", "exclude_modules"),
)


def save_peft(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint's LoRA pairs, a folder for each stream. Raises ValueError where it has no LoRA."""
    for stream, own in _blocks(checkpoint.config).items():
        settings = peft_config(own, checkpoint.config)
        settings.inference_mode = True
        settings.save_pretrained(folder / stream)
        prefix = f"{stream}."
        pairs = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
        save_tensors(folder / stream / _TENSORS, pairs)


def load_peft(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """A checkpoint with the LoRA pairs of the streams that are in a folder; the other tensors stay.

    Raises ModelError that names the file which is missing, broken, or does not fit the checkpoint's rank and alpha.
    """
    tensors = dict(checkpoint.tensors)
    streams = [stream for stream in _blocks(checkpoint.config) if (folder / stream).is_dir()]
    if not streams:
        raise ModelError(f"{folder} holds none of the folders {', '.join(_blocks(checkpoint.config))}")
    for stream in streams:
        _check(folder / stream / _CONFIG, checkpoint.config)
        prefix = f"{stream}."
        shapes = {
            n.removeprefix(prefix): s for n, s in adapter_shapes(checkpoint.config).items() if n.startswith(prefix)
        }
        pairs = read_tensors(folder / stream / _TENSORS, shapes, fix=_FIX)
        _check_pairs(folder / stream / _TENSORS, shapes, pairs)
        tensors |= {prefix + name: tensor for name, tensor in pairs.items()}
    return dataclasses.replace(checkpoint, tensors=tensors)


def _blocks(config: VELoRAConfig) -> dict[str, range]:
    """The blocks of each stream whose pairs are LoRA's."""
    if config.adapter != "lora":
        raise ValueError(f"only LoRA goes into PEFT's folders, and adapter is {config.adapter}")
    return blocks_of(config)


def _check(file: Path, config: VELoRAConfig) -> None:
    """Refuse pairs that PEFT would use otherwise than we do."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        found = {key: settings[key] for key in ("r", "lora_alpha")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise ModelError(f"{file} cannot be read as PEFT's settings of LoRA ({reason}): {_FIX}") from None
    if found != {"r": config.rank, "lora_alpha": config.alpha}:
        raise ModelError(f"{file}: rank and alpha are {[*found.values()]} instead of {[config.rank, config.alpha]}")
    for key, value in settings.items():
        if value not in _PLAIN.get(key, (value,)) or (key in _ABSENT or key.startswith("use_")) and value:
            raise ModelError(f"{file}: {key} is {str(value)[:60]}, and only plain LoRA can be taken over")


def _check_pairs(file: Path, expected: Mapping[str, object], pairs: Mapping[str, Tensor]) -> None:
    """Refuse a file with more than the pairs, or with numbers that are not finite."""
    if odd := sorted(names_in(file, fix=_FIX) - expected.keys()):
        raise ModelError(f"{file} holds {odd[0]} too, which has no place here: adapt c_fc and c_proj alone")
    for name, tensor in pairs.items():
        if not tensor.isfinite().all():
            raise ModelError(f"{file}: {name} holds numbers that are not finite")
