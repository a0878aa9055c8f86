"""How many parameters a model has, and which are trained: from its config alone, without weights.

account(config)["trainable_parameters"]          # 1,234,290 for preset "paper" with ViT-B/16 and 114 classes
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import torch

from velora.adapter import FUSION
from velora.backbones import backbone, has_clip_text, text_config
from velora.checkpoint import tensor_shapes
from velora.config import STREAMS, VELoRAConfig
from velora.vit import VisionTower

PER_MIB = 2**20 // 4  # parameters, of 4 bytes


def account(config: VELoRAConfig) -> dict[str, Any]:
    """Parameters by what they are, adapters by stage and stream, and MiB as float32.

    The frozen tower counts once where the streams share it. For preset "released" with LoRA, `paper_accounting` counts
    as the paper does.
    """
    kinds, adapters = _count(config)
    trainable = kinds["adapter"] + kinds["other"] + kinds["head"]
    facts: dict[str, Any] = {
        "frozen_parameters": kinds["frozen"],
        "adapter_parameters": kinds["adapter"],
        "other_trainable_parameters": kinds["other"],
        "head_parameters": kinds["head"],
        "trainable_parameters": trainable,
        "trainable_mib": _mib(trainable),
        "total_mib": _mib(kinds["frozen"] + trainable),
        "adapters": adapters,
    }
    if (config.preset, config.adapter) == ("released", "lora") and has_clip_text(config.backbone):
        facts["paper_accounting"] = _as_in_the_paper(config, kinds["adapter"])
    return facts


def _count(config: VELoRAConfig) -> tuple[Counter[str], dict[str, dict[str, int]]]:
    """Parameters by kind, and those of the adapters by stage and stream."""
    with torch.device("meta"):
        tower = {name: p.numel() for name, p in VisionTower(backbone(config.backbone)).named_parameters()}
    trains = config.adapter == "full"
    unused = tower["proj"] if config.preset == "paper" else 0
    towers = len(config.streams) if config.own_towers == len(STREAMS) else 1
    kinds = Counter(frozen=towers * (unused if trains else sum(tower.values())))
    kinds["other"] = towers * (sum(tower.values()) - unused) if trains else 0
    adapters: dict[str, dict[str, int]] = {}
    for name, shape in tensor_shapes(config).items():
        kind, stage, stream = _kind_of(name)
        if kind == "cores":  # [blocks, S, p, r, r]
            for own in config.streams:
                _add(adapters, stage, f"{own} cores", math.prod(shape) // len(config.streams))
        elif kind == "adapter":
            _add(adapters, stage, stream, math.prod(shape))
        else:
            kinds[kind] += math.prod(shape)
    kinds["adapter"] = sum(sum(streams.values()) for streams in adapters.values())
    return kinds, adapters


def _kind_of(name: str) -> tuple[str, str, str]:
    """What a tensor of a checkpoint is: kind, and stage and stream of an adapter."""
    stream = name.partition(".")[0]
    if name.startswith("tower.") or name in ("fuser.text", "fuser.scale"):
        return "apart", "", ""  # counted as towers, or of the text tower
    if name.startswith("clora."):
        return ("cores" if ".cores." in name else "adapter"), "encoders", "shared bases"
    if stream in STREAMS:
        return "adapter", "encoders", stream
    if stream == FUSION:
        return "adapter", "shared block", FUSION
    if match := re.match(r"fuser\.top\.(\w+)\.", name):
        return "adapter", "top blocks", match[1]
    return ("head" if re.match(r"fuser\.(head|attention)\.", name) else "other"), "", ""


def _add(adapters: dict[str, dict[str, int]], stage: str, stream: str, count: int) -> None:
    streams = adapters.setdefault(stage, {})
    streams[stream] = streams.get(stream, 0) + count


def _as_in_the_paper(config: VELoRAConfig, adapters: int) -> dict[str, Any]:
    """Three whole CLIPs, text towers and the LoRA in them included, and of what is trained the LoRA alone."""
    text = text_config(config.backbone)
    w, layers = text["width"], text["layers"]
    with torch.device("meta"):
        visual = sum(p.numel() for p in VisionTower(backbone(config.backbone)).parameters())
    embeddings = (text["vocab_size"] + text["context_length"] + backbone(config.backbone).output_dim + 2) * w
    clip = visual + embeddings + layers * (12 * w * w + 13 * w) + 1  # and the logit scale
    lora = adapters // len(STREAMS) + layers * config.rank * 10 * w
    return {
        "clip_parameters": clip,
        "adapter_parameters_per_clip": lora,
        "adapter_parameters": len(STREAMS) * lora,
        "trainable_mib": _mib(len(STREAMS) * lora),
        "total_mib": _mib(len(STREAMS) * (clip + lora)),
    }


def _mib(parameters: int) -> float:
    return round(parameters / PER_MIB, 2)
