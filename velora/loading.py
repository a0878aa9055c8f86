"""From a name or a folder to a recogniser."""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from velora.checkpoint import Checkpoint, build_model, is_of_tower, load_checkpoint, load_config, random_tensors
from velora.config import VELoRAConfig
from velora.devices import choose_device, choose_dtype
from velora.errors import ModelError
from velora.model import VELoRA
from velora.recognizer import Recognizer
from velora.vit import VisionTower
from velora.weights import BUNDLED, SUFFIXES, find_weights, load_tower, random_tower, read_clip
from velora.zero_shot import MEAN, STD, text_features

DEMO = Path(__file__).parent / "demo"
ZERO_SHOT = "zero-shot"
ZERO_SHOT_BACKBONE = "ViT-B-16-quickgelu"
_SEED = 0

# The frozen towers in use, by file, device and dtype: recognisers of one backbone share one.
_towers: weakref.WeakValueDictionary[tuple[object, ...], VisionTower] = weakref.WeakValueDictionary()
_towers_lock = threading.Lock()


def load_recognizer(
    name_or_path: str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "auto",
    weights: str | None = None,
    random_weights: bool = False,
    labels: Sequence[str] | None = None,
    backbone: str | None = None,
) -> Recognizer:
    """A recogniser, ready to run.

    `name_or_path` is "demo" (bundled), the folder of a checkpoint, the name of a backbone (the demo's labels and random
    adapters, to try its speed), or "zero-shot" (CLIP and your own `labels`, on `backbone`; without training).
    `weights` is open_clip's tag of the backbone's weights, or a file of them; `random_weights` replaces them by random
    ones. Recognisers of one backbone share its weights in memory. Raises ModelError, one line that says what to do,
    where something is missing or broken, and ValueError for arguments that do not fit; downloads nothing.
    """
    name = os.fspath(name_or_path)
    if (name == ZERO_SHOT) != (labels is not None):
        raise ValueError(f"labels are for {ZERO_SHOT}, and it needs them")
    if backbone is not None and name != ZERO_SHOT:
        raise ValueError(f"backbone is for {ZERO_SHOT}: {name} has its own")
    place = choose_device(device), choose_dtype(dtype, choose_device(device))
    source = Weights(weights or "", random_weights)
    if name == ZERO_SHOT:
        checkpoint, random_parts = _zero_shot(labels or (), backbone or ZERO_SHOT_BACKBONE, source)
    else:
        checkpoint, random_parts = _find(name, source)
    model, random_tower = _place(checkpoint, source, *place)
    parts = ("backbone", *random_parts) if random_tower else random_parts
    recognizer = Recognizer(Path(name).name or name, model, parts)
    recognizer.rehearse()
    return recognizer


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights of a backbone come from: open_clip's tag, a file, nowhere in particular, or chance."""

    wanted: str
    random: bool

    def __post_init__(self) -> None:
        if not self.file and (Path(self.wanted).suffix in SUFFIXES or os.sep in self.wanted):
            raise ModelError(f"{self.wanted}: no such file of weights")

    @property
    def file(self) -> Path | None:
        return Path(self.wanted) if Path(self.wanted).is_file() else None

    def tag(self, config: VELoRAConfig) -> str:
        """The tag to look for."""
        return config.pretrained if self.file else self.wanted or config.pretrained


def _find(name: str, source: Weights) -> tuple[Checkpoint, tuple[str, ...]]:
    """The checkpoint that a name or path means, and which of its parts have not been trained."""
    if name == "demo" or Path(name).is_dir():
        checkpoint = load_checkpoint(DEMO if name == "demo" else Path(name))
        return checkpoint, () if checkpoint.config.trained else ("adapters", "head")
    config = load_config(DEMO / "config.json")
    try:
        config = dataclasses.replace(config, backbone=name, weights_digest="", trained=False)
    except ValueError as error:
        raise ModelError(f"no model {name!r}: give the folder of a checkpoint, or a backbone ({error})") from None
    return Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(_SEED))), ("adapters", "head")


def _zero_shot(labels: Sequence[str], name: str, source: Weights) -> tuple[Checkpoint, tuple[str, ...]]:
    """CLIP with text features of the labels, as a checkpoint; its text features are random where its weights are."""
    if name == "demo":
        raise ModelError(f"the demo's backbone has no text tower: name your labels with {ZERO_SHOT_BACKBONE}, say")
    tag = "" if source.file else source.wanted
    config = VELoRAConfig(
        tuple(labels), name, tag, preset="zero-shot", adapter="none", mean=MEAN, std=STD, trained=True
    )
    if source.random:
        return Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(_SEED))), ("text tower",)
    state = read_clip(name, tag, source.file)
    return Checkpoint(config, {f"fuser.{key}": t for key, t in text_features(name, config.labels, state).items()}), ()


def _place(checkpoint: Checkpoint, source: Weights, device: torch.device, dtype: torch.dtype) -> tuple[VELoRA, bool]:
    """A checkpoint's model on a device, and whether its tower has random weights."""
    if checkpoint.config.own_towers:
        if source.wanted:
            raise ModelError("this checkpoint brings its own encoders: leave --weights out")
        # Moved before the towers are made of them: what is stored once stays in memory once.
        tensors = {n: t.to(device, dtype) if is_of_tower(n) else t for n, t in checkpoint.tensors.items()}
        model, random = build_model(Checkpoint(checkpoint.config, tensors)), False
    else:
        tower, random = _tower(checkpoint.config, source, device, dtype)
        if not random:
            check_digest(checkpoint.config, tower)
        model = build_model(checkpoint, tower)
    model.encoders.adapters.to(device, dtype)
    model.fuser.to(device)
    model.encoders.prepare()
    return model, random


def _tower(config: VELoRAConfig, source: Weights, device: torch.device, dtype: torch.dtype) -> tuple[VisionTower, bool]:
    """The frozen tower of a backbone, shared by all models that use it now; and whether its weights are random."""
    name, tag = config.backbone, source.tag(config)
    bundled = name == "demo"
    if bundled and source.wanted and not source.file:
        raise ModelError("the demo's backbone comes with its weights: leave --weights out, or choose another --model")
    if source.random and not bundled:
        generator = torch.Generator().manual_seed(_SEED)
        return _shared(("random", name, device, dtype), lambda: random_tower(name, generator).to(device, dtype)), True
    file = source.file or find_weights(name, tag)
    stat = file.stat()
    key = (name, file, stat.st_mtime_ns, stat.st_size, device, dtype)
    tower = _shared(key, lambda: load_tower(name, tag, file).to(device, dtype))
    return tower, file == BUNDLED and not load_config(DEMO / "config.json").trained


def check_digest(config: VELoRAConfig, tower: VisionTower) -> None:
    """Raise ModelError where a checkpoint was trained with other weights than the tower has."""
    if config.weights_digest not in ("", tower.digest()):
        tag = f", which were {config.pretrained}" if config.pretrained else ""
        raise ModelError(
            f"the checkpoint was trained on other weights of {config.backbone}{tag}: --weights takes their tag or file"
        )


def _shared(key: tuple[object, ...], make: Callable[[], VisionTower]) -> VisionTower:
    with _towers_lock:
        tower = _towers.get(key)
        if tower is None:
            tower = _towers[key] = make().eval().requires_grad_(False)
        return tower
