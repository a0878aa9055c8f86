"""What `velora train` is asked to train: as the checkpoint has it that it starts from, or as the options say."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.datasets import is_rendered
from streams import RenderConfig
from velora.checkpoint import Checkpoint, load_checkpoint
from velora.config import VELoRAConfig
from velora.loading import DEMO

BACKBONE = "ViT-B-16-quickgelu"
_PERIOD_US = 133_333
_OWN = ("rank", "alpha", "pairs", "frames", "dropout")  # with defaults of VELoRAConfig's own
_FIXED = ("adapter", *_OWN, "preset", "backbone", "motion", "max_window_us")  # by a checkpoint


def base_of(arguments: argparse.Namespace) -> Checkpoint | None:
    """What `--from` names. Raises ValueError where it cannot be trained, and ModelError."""
    if arguments.base is None:
        if arguments.new_labels:
            raise ValueError("--new-labels needs --from CHECKPOINT, whose adapters it keeps")
        return None
    found = load_checkpoint(DEMO if arguments.base == "demo" else Path(arguments.base))
    try:
        RenderConfig(**found.config.rendering)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{arguments.base}: its config.json has a rendering that cannot be used ({error})") from None
    if found.config.attend_over == "batch":
        raise ValueError(
            f"{arguments.base}: no recogniser takes attend_over batch: set batch_of_one in its config.json"
        )
    return found


def rendering_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of event images, where no checkpoint says it. Raises ValueError where they are rendered already."""
    if arguments.max_window_us is None:
        return {}
    if is_rendered(arguments.data):
        raise ValueError(f"--max-window-us: the event images of {arguments.data} are rendered already, leave it out")
    return {"max_window_us": arguments.max_window_us}


def config_of(
    arguments: argparse.Namespace, base: Checkpoint | None, labels: tuple[str, ...], rendering: Mapping[str, Any]
) -> VELoRAConfig:
    """Of what is trained. Raises ValueError for options that contradict the checkpoint."""
    if base is not None:
        return _config_from(base.config, arguments, labels)
    given = {name: getattr(arguments, name) for name in _OWN}
    return VELoRAConfig(
        labels=labels,
        backbone=arguments.backbone or BACKBONE,
        preset=arguments.preset or "paper",
        adapter=arguments.adapter or "lora",
        motion=arguments.motion or "shared",
        sample_period_us=arguments.period_us or _PERIOD_US,
        pretrained="" if arguments.weights is None or Path(arguments.weights).is_file() else arguments.weights,
        rendering=rendering,
        trained=True,
        **{name: value for name, value in given.items() if value is not None},
    )


def _config_from(old: VELoRAConfig, arguments: argparse.Namespace, labels: tuple[str, ...]) -> VELoRAConfig:
    if odd := [name for name in _FIXED if getattr(arguments, name) is not None]:
        name = odd[0].replace("_", "-")
        raise ValueError(f"--{name} is as the checkpoint has it: leave it out, or start without --from")
    is_other = arguments.base == "demo" and arguments.new_labels  # cards take a glance, what is new may take a look
    return dataclasses.replace(
        old,
        labels=labels,
        sample_period_us=arguments.period_us or (_PERIOD_US if is_other else old.sample_period_us),
        temperature=1.0,
        unsure_below=0.0,
        trained=True,
    )
