"""`velora train`: adapters and head on a labelled data set, from a backbone or from a checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from app.datasets import CardOptions, is_rendered, open_dataset
from app.train_config import BACKBONE, base_of, config_of, rendering_of
from app.train_progress import Told, memory_gb, watching
from streams.files import replaced_when_whole
from velora.backbones import backbone
from velora.checkpoint import (
    ADAPTER,
    CARD,
    CONFIG,
    Checkpoint,
    build_model,
    save_checkpoint,
    trained_tensors,
)
from velora.config import VELoRAConfig
from velora.devices import choose_device
from velora.loading import Weights, check_digest
from velora.model import VELoRA
from velora.training import metrics
from velora.training import trainer as loop
from velora.training.clips import ClipSet
from velora.training.plan import Plan
from velora.training.start import nearest_class_mean, new_head
from velora.training.windows import fixed_windows, slots
from velora.vit import VisionTower
from velora.weights import load_tower, random_tower

NOTE = "training.json"
SUMMARY = "summary.json"
BASELINE = "nearest_class_mean.json"
_NO_BETTER = "training made it no better: the nearest class mean that it began with is kept"
_STILL_WORSE = "worse than the nearest class mean as yet: try more --epochs; with few clips, --from demo --new-labels"
CACHE = ".frames"
_VAL_WINDOWS = (2, 6)  # a clip: of many clips, and of few
_VAL_FEW = 24  # windows


def train(arguments: argparse.Namespace) -> int:
    """Train, or go on with an interrupted run. Raises ValueError and ModelError for what does not fit."""
    out: Path = arguments.out
    told = Told(arguments.json and _processes().is_main_process)
    plan, base = _plan(arguments), base_of(arguments)
    rendering = dict(base.config.rendering) if base else rendering_of(arguments)
    size = backbone(base.config.backbone if base else arguments.backbone or BACKBONE).image_size
    wanted = None if base is None or arguments.new_labels else base.config.labels
    with _processes().main_process_first():  # the others find the cache full
        sets = {split: _open(arguments, split, size, rendering, wanted, told) for split in ("train", "val")}
    for line in [line for found in sets.values() for line in found.skipped]:
        _say(f"left out: {line}")
    config = config_of(arguments, base, sets["train"].labels, rendering)
    if not is_rendered(arguments.data):  # else only those who rendered them know
        config = dataclasses.replace(config, exposure_us=_exposure_us(sets["train"], rendering))
    tower = None if config.own_towers and base else _tower(config, arguments)
    if tower is not None and not config.own_towers:
        check_digest(config, tower)
        config = dataclasses.replace(config, weights_digest=tower.digest())
    data = _data(sets["train"], sets["val"], config, arguments.sampling)
    if plan.flip and not sets["train"].mirrors:
        _say("--flip is left out: labels of this data set may say left or right")
    _begin(out, plan, config, _origin(arguments, data, base))
    checkpoint, is_new = _start(config, base, tower, data, plan, arguments.dtype)
    baseline = _baseline(out, checkpoint, tower, data, plan.modality, arguments.dtype, is_new)
    told.say("starting", nearest_class_mean=baseline)
    run = loop.Trainer(checkpoint, tower, data, plan, out, dtype=arguments.dtype)
    if run.accelerator.is_main_process:
        _announce(run, data, arguments)
    with watching(run, out, told) as hear:
        best = run.run(hear)
    if run.accelerator.is_main_process:
        told.say("finishing")
        if is_worse(run.progress.best, baseline):
            _say(_NO_BETTER if is_new else _STILL_WORSE)
            best = checkpoint if is_new else best
        told.say("done", **_finish(run, best, data, out, arguments, baseline))
    return 0


def _processes() -> PartialState:
    """Those of a data-parallel run; the first one may read clips for a long time while the others wait."""
    return PartialState(cpu=choose_device("auto").type == "cpu", timeout=timedelta(days=2))


def _say(text: str) -> None:
    """A line on stderr, by one of the processes."""
    if _processes().is_main_process:
        print(f"velora: {text}", file=sys.stderr)


def _open(
    arguments: argparse.Namespace,
    split: str,
    size: int,
    rendering: Mapping[str, Any],
    labels: Sequence[str] | None,
    told: Told,
) -> ClipSet:
    clips = arguments.clips if split == "train" else max(12, arguments.clips // 6)
    cache = arguments.cache or arguments.out / CACHE
    options = CardOptions(clips=clips)
    return open_dataset(
        arguments.data,
        split,
        cache,
        size=size,
        rendering=rendering,
        labels=labels,
        options=options,
        told=told.reading(split),
    )


def _exposure_us(data: ClipSet, rendering: Mapping[str, Any]) -> int:
    """The median time whose events are in an event image."""
    spans = np.concatenate([np.diff(clip.times, axis=1)[:, 0] for clip in data.clips])
    return int(np.median(np.minimum(spans, rendering.get("max_window_us") or spans.max())))


def _plan(arguments: argparse.Namespace) -> Plan:
    named = {field.name for field in dataclasses.fields(Plan)}
    given = {name: value for name, value in vars(arguments).items() if name in named and value is not None}
    return Plan(**given)


def _origin(arguments: argparse.Namespace, data: loop.Data, base: Checkpoint | None) -> dict[str, Any]:
    """What else the weights depend on."""
    clips = [
        (clip.name, zlib.crc32(clip.times.tobytes()), [dataclasses.astuple(span) for span in clip.spans])
        for found in (data.train, data.val)
        for clip in found.clips
    ]
    return {
        "data": arguments.data,
        "sampling": arguments.sampling,
        "from": arguments.base,
        "weights of --from": None if base is None else _digest(base.tensors),
        "weights": "random" if arguments.random_weights else arguments.weights,
        "dtype": arguments.dtype,
        "processes": _processes().num_processes,
        "clips or their labels": hashlib.sha256(json.dumps(clips).encode()).hexdigest()[:16],
        "windows": [len(data.slots), len(data.windows)],
    }


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _begin(out: Path, plan: Plan, config: VELoRAConfig, origin: Mapping[str, Any]) -> None:
    """Note what the run is; refuse to go on with another one, and to overwrite what no run has written."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / NOTE
    new = {**dataclasses.asdict(plan), "config": json.loads(config.to_json()), **origin}
    if note.exists():
        old = _noted(note)
        if odd := ", ".join(sorted(name for name in {*old, *new} if old.get(name) != new.get(name))):
            raise ValueError(f"{out} holds a run with another {odd}: choose another --out, or the same options")
    elif found := [name for name in (CONFIG, ADAPTER, CARD) if (out / name).exists()]:
        raise ValueError(f"{out} holds a {found[0]} that no training has written: choose another --out")
    with replaced_when_whole(note) as part:
        part.write_text(json.dumps(new, indent=1, sort_keys=True), encoding="utf-8")


def _noted(note: Path) -> dict[str, Any]:
    """What a run was. Raises ValueError, and OSError."""
    try:
        old = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        old = None
    if not isinstance(old, dict):
        raise ValueError(f"{note} is damaged: choose another --out")
    return old


def _tower(config: VELoRAConfig, arguments: argparse.Namespace) -> VisionTower:
    if arguments.random_weights:
        _say("RANDOM WEIGHTS: the backbone is untrained, so is what comes of it")
        return random_tower(config.backbone, torch.Generator().manual_seed(0))
    weights = Weights(arguments.weights or "", False)
    return load_tower(config.backbone, weights.tag(config), weights.file)


def _data(train: ClipSet, val: ClipSet, config: VELoRAConfig, sampling: str) -> loop.Data:
    protocols = ("stream", "clip") if sampling == "mix" else (sampling,)
    places = [slot for protocol in protocols for slot in slots(train.clips, config, protocol)]
    most = int(np.clip(_VAL_FEW // max(1, len(val.clips)), *_VAL_WINDOWS))
    windows = [w for protocol in protocols for w in fixed_windows(val.clips, config, protocol, most)]
    if not places:
        raise ValueError("no clip is as long as a window: record longer ones, or train with --sampling clip")
    seen = {place.label for place in places}
    if unseen := [label for k, label in enumerate(config.labels) if k not in seen]:
        shown = ", ".join(unseen[:5]) + (", …" if len(unseen) > 5 else "")
        _say(f"no training clip shows {shown}")
    return loop.Data(train, places, val, windows)


def _start(
    config: VELoRAConfig, base: Checkpoint | None, tower: VisionTower | None, data: loop.Data, plan: Plan, dtype: str
) -> tuple[Checkpoint, bool]:
    """What training starts from, and whether its head was made of the training set's class means."""
    if base is None:
        torch.manual_seed(plan.seed)
        copies = {"rgb": _copy(config, tower)}
        return Checkpoint(config, trained_tensors(VELoRA(config, towers=copies))), False
    if base.config.labels == config.labels:
        return Checkpoint(config, base.tensors), False
    return new_head(Checkpoint(config, base.tensors), tower, data, plan.modality, dtype), True


def _baseline(
    out: Path,
    checkpoint: Checkpoint,
    tower: VisionTower | None,
    data: loop.Data,
    modality: str,
    dtype: str,
    is_new: bool,
) -> float | None:
    """The nearest class mean, worked out once by one process."""
    note = out / BASELINE
    if not note.exists() and _processes().is_main_process:
        found = nearest_class_mean(checkpoint, tower, data, modality, dtype=dtype, new_head=is_new)
        with replaced_when_whole(note) as part:
            part.write_text(json.dumps(found), encoding="utf-8")
    if not _processes().is_main_process:
        return None
    try:
        share = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        share = note
    if not isinstance(share, float | None):
        raise ValueError(f"{note} is damaged: remove it, and the same command makes it anew")
    return share


def _copy(config: VELoRAConfig, tower: VisionTower | None) -> VisionTower:
    """A tower that PEFT may put layers into."""
    copy = VisionTower(backbone(config.backbone))
    if tower is not None:
        copy.load_state_dict(tower.state_dict())
    return copy


def _announce(run: loop.Trainer, data: loop.Data, arguments: argparse.Namespace) -> None:
    accelerator = run.accelerator
    print(
        f"{len(data.train.clips)} clips ({len(data.slots)} windows an epoch) to train, {len(data.windows)} windows of "
        f"{len(data.val.clips)} clips to validate; {len(run.config.labels)} labels; {run.trained:,} parameters are "
        f"trained; {accelerator.num_processes} x {accelerator.device} in {accelerator.mixed_precision}; "
        f"Ctrl-C stops, the same command goes on",
        file=sys.stderr,
    )


def _finish(
    run: loop.Trainer,
    best: Checkpoint,
    data: loop.Data,
    out: Path,
    arguments: argparse.Namespace,
    baseline: float | None,
) -> dict[str, Any]:
    """Fit the temperature and the threshold on validation, write the checkpoint, say how good it is."""
    checkpoint, top1, scores = best, None, "no validation windows"
    if data.windows:
        model = build_model(best, None if best.config.own_towers else _tower(best.config, arguments))
        logits, truth = run.predict(data.val, data.windows, model)
        checkpoint, top1 = calibrated(best, logits, truth)
        scores = f"validation: top-1 {top1:.1%} of {len(truth)} windows"
    if baseline is not None:
        scores += f"; the nearest class mean, untrained: {baseline:.1%}"
    save_checkpoint(out, checkpoint, card=_card(checkpoint.config, run, arguments, scores))
    progress = run.progress
    summary = {
        "validation_top1": top1,
        "nearest_class_mean": baseline,
        "steps": progress.step,
        "minutes": run.spent_s / 60,
        "clips_s": progress.clips_s,
        "trained": run.trained,
        "memory_gb": memory_gb(),
    }
    with replaced_when_whole(out / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    size_mb = sum(tensor.numel() * 4 for tensor in checkpoint.tensors.values()) / 1e6
    print(f"{out}: {scores}; {size_mb:.1f} MB", file=sys.stderr)
    return {"out": str(out), **summary}


def is_worse(best: float | None, baseline: float | None) -> bool:
    """Whether a model would better not have been trained, by validation."""
    return best is not None and baseline is not None and best < baseline


def calibrated(checkpoint: Checkpoint, logits: Tensor, truth: Tensor) -> tuple[Checkpoint, float]:
    """A checkpoint with its temperature and its "unsure" threshold, fitted to logits [n, C]; and its top-1."""
    rows, right = logits.double().numpy(), truth.numpy()
    temperature = float(np.clip(metrics.fit_temperature(rows, right), 1e-2, 1e2))
    probabilities = torch.softmax(logits.double() / temperature, dim=1).numpy()
    threshold = metrics.unsure_threshold(probabilities, right)
    config = dataclasses.replace(checkpoint.config, temperature=temperature, unsure_below=threshold)
    top1 = float((probabilities.argmax(axis=1) == right).mean())
    return dataclasses.replace(checkpoint, config=config), top1


def _card(config: VELoRAConfig, run: loop.Trainer, arguments: argparse.Namespace, scores: str) -> str:
    shown = ", ".join(config.labels[:20]) + (", …" if len(config.labels) > 20 else "")
    return f"""\
# {arguments.out.name}

VELoRA, preset {config.preset}, adapter {config.adapter}, on the backbone {config.backbone}
{f"({config.pretrained})" if config.pretrained else ""}; {run.trained:,} trained parameters.

- Labels: {shown}
- Data: {arguments.data}
- {scores[:1].upper()}{scores[1:]}
- Window: {config.frames} samples, {config.sample_period_us} us apart
- Event images: {dict(config.rendering) or "as released"}
- Temperature {config.temperature:.3f}; below a confidence of {config.unsure_below:.2f} a label counts as unsure
- {run.progress.step} steps, seed {run.plan.seed}; all options in {NOTE}
"""
