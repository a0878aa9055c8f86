"""How good features are before anything is trained, and a head to begin with: the nearest class mean.

With a handful of clips a class it is a strong baseline; fine-tuning should start from it, not below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from velora.checkpoint import Checkpoint, build_model
from velora.devices import choose_device, choose_dtype
from velora.errors import ModelError
from velora.model import VELoRA, make_fusion
from velora.preprocess import normalize
from velora.training.batches import load_window, only
from velora.training.clips import ClipSet
from velora.training.trainer import Data
from velora.training.windows import Window
from velora.vit import VisionTower

_MOST = 300  # windows that are looked at
_BATCH = 8


def nearest_class_mean(
    checkpoint: Checkpoint,
    tower: VisionTower | None,
    data: Data,
    modality: str = "both",
    *,
    dtype: str = "auto",
    new_head: bool = False,
) -> float | None:
    """Top-1 on validation of the nearest mean of the head's inputs; None where it cannot be computed.

    `new_head` says that the checkpoint's head is one of `new_head`: its means need not be worked out again.
    """
    if not data.windows or not hasattr(make_fusion(checkpoint.config), "head"):
        return None
    model = build_model(checkpoint, tower)
    if new_head:
        weight, bias = (checkpoint.tensors[f"fuser.head.{name}"] for name in ("weight", "bias"))
    else:
        known = _features(model, data.train, _chosen(data, checkpoint.config.frames), modality, dtype)
        weight, bias = class_means(*known, len(checkpoint.config.labels))
    asked, right = _features(model, data.val, data.windows, modality, dtype)
    return float(((asked @ weight.T + bias).argmax(dim=1) == right).float().mean())


def new_head(
    checkpoint: Checkpoint, tower: VisionTower | None, data: Data, modality: str = "both", dtype: str = "auto"
) -> Checkpoint:
    """The same adapters, and a head for the config's labels that says the nearest class mean."""
    config = checkpoint.config
    own = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("fuser.head.")}
    classes, width = len(config.labels), checkpoint.tensors["fuser.head.weight"].shape[1]
    blank = {"fuser.head.weight": torch.zeros(classes, width), "fuser.head.bias": torch.zeros(classes)}
    model = build_model(Checkpoint(config, own | blank), tower)
    known = _features(model, data.train, _chosen(data, config.frames), modality, dtype)
    weight, bias = class_means(*known, classes)
    return dataclasses.replace(checkpoint, tensors=own | {"fuser.head.weight": weight, "fuser.head.bias": bias})


def _chosen(data: Data, frames: int) -> list[Window]:
    """Windows of the training set, not too many: of each label as many, however few of it there are."""
    labels = np.array([slot.label for slot in data.slots])
    shown = np.unique(labels)
    some = [_spread(np.flatnonzero(labels == label), max(1, _MOST // len(shown))) for label in shown]
    return [data.slots[k].window(frames, None) for k in np.sort(np.concatenate(some))]


def _spread(numbers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """So many of them at most, as far apart as can be."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), most)).astype(int))
    return np.asarray(numbers[places], np.int64)


def class_means(features: Tensor, truth: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, F] and bias [C] of a linear layer whose largest output is the nearest class mean.

    Means count from their centre: what all of them share says nothing, and would drown the rest in half precision.
    """
    own = F.one_hot(truth, classes).to(features)  # [n, C]
    counts = own.sum(dim=0)
    means = own.T @ features / counts.clamp(min=1)[:, None]
    centre = means[counts > 0].mean(dim=0)
    away = means - centre
    bias = -away @ centre - 0.5 * (away**2).sum(dim=1)
    spread = float((features @ away.T + bias)[:, counts > 0].std(correction=0)) or 1.0
    scale = 3.0 / spread  # logits of a few units, as training would make them
    return away * scale, bias * scale - 1e3 * (counts == 0)  # what was never seen is never said


def _features(
    model: VELoRA, clips: ClipSet, windows: Sequence[Window], modality: str, wanted: str
) -> tuple[Tensor, Tensor]:
    """What the head reads of windows, [n, F], and their labels. Raises ModelError where it is not finite."""
    kept: list[Tensor] = []
    head = model.fuser.get_submodule("head")
    handle = head.register_forward_pre_hook(lambda _, read: kept.append(read[0].float().cpu()))
    config, device = model.config, choose_device("auto")
    dtype = choose_dtype(wanted, device)
    model.to(device)  # not below: weights that are moved in inference mode can be trained no more
    fast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    for start in range(0, len(windows), _BATCH):
        images = torch.stack([load_window(clips.clips, window) for window in windows[start : start + _BATCH]])
        normal = normalize(only(images, modality).to(device), config.mean, config.std)
        with fast, torch.inference_mode():
            model(normal[:, :, 0], normal[:, :, 1])
    handle.remove()
    read = torch.cat(kept)
    if not torch.isfinite(read).all():
        raise ModelError("the model's features are not finite: try --dtype fp32, or another --from or --weights")
    return read, torch.tensor([window.label for window in windows])
