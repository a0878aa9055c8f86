"""Training each adapter for some steps, against the released loop: image by image, a backbone for each stream, float32.

Each in a process of its own, so that its peak of memory is its own. The released loop runs before the adapters and once
more after them. Weights and pictures are random, which cost the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.bench.asked import Asked
from app.bench.book import Book, Row
from app.bench.worker import Worker, WorkerFailed

if TYPE_CHECKING:
    from velora.training.trainer import Data

ADAPTERS = ("lora", "clora", "none", "full")
_STEPS, _QUICK_STEPS = 4, 2  # the first of which is not counted
_BATCH, _GPU_BATCH = 2, 16  # windows a step
_CLIPS = 16
_LABELS = 14


@dataclass(frozen=True)
class Trained:
    """What came of some steps."""

    seconds: list[float]  # of each step
    batch: int
    dtype: str
    device: str
    gpu_gb: float  # at most in use on the GPU; 0 without one
    peak_gb: float = 0.0  # of memory, at most


def measure(asked: Asked, book: Book) -> None:
    """A row for each adapter and backbone, against the released loop before and after them."""
    if asked.quick:
        book.leave_out(", ".join(ADAPTERS[1:]), "--quick")
    for name in asked.models[:1] if asked.quick else asked.models:
        released = _run(asked, book, name, "released")
        rows = [_row(book, name, way, _run(asked, book, name, way)) for way in ADAPTERS[: 1 if asked.quick else None]]
        if released is not None and not asked.quick:
            released = _joined(released, _run(asked, book, name, "released"))
        against = _row(book, name, "released", released)
        for row in rows:
            if row is None or against is None:
                continue
            if row.what["device"] != against.what["device"]:
                book.leave_out(f"{name}, {row.what['way']} against the released loop", "they ran on different devices")
            else:
                row.figures["released_clips_per_s"] = against.figures["clips_per_s"]
                row.spread["released_clips_per_s"] = against.spread["clips_per_s"]
                row.ratio("train_vs_released", "clips_per_s", "released_clips_per_s")


def _run(asked: Asked, book: Book, name: str, way: str) -> Trained | None:
    book.doing(f"{name}, {way}")
    steps = _QUICK_STEPS if asked.quick else _STEPS
    work: Callable[..., Trained] = released_steps if way == "released" else our_steps
    folder = asked.folder / f"train-{asked.models.index(name)}-{way}"
    with Worker(work, book, weighed=True) as worker:
        try:
            found: Trained = worker.ask(name, way, steps, asked.device, asked.dtype, folder)
        except WorkerFailed as failure:
            book.leave_out(f"{name}, {way}", str(failure))
            return None
    return replace(found, peak_gb=worker.peak_gb)


def _joined(before: Trained, after: Trained | None) -> Trained:
    """Two runs of the same, as one."""
    if after is None:
        return before
    return replace(before, seconds=before.seconds + after.seconds, peak_gb=max(before.peak_gb, after.peak_gb))


def _row(book: Book, name: str, way: str, found: Trained | None) -> Row | None:
    if found is None:
        return None
    row = book.row(model=name, way=way, batch=found.batch, dtype=found.dtype, device=found.device)
    row.what["random_weights"] = True
    row.rate("clips_per_s", found.batch, found.seconds)
    row.figures["peak_gb"] = found.peak_gb
    if found.gpu_gb:
        row.figures["gpu_peak_gb"] = found.gpu_gb
    return row


def our_steps(name: str, adapter: str, steps: int, device: str, dtype: str, folder: Path) -> Trained:
    """`velora train`'s own loop."""
    _only(device)
    import torch

    from velora.backbones import backbone
    from velora.checkpoint import Checkpoint, random_tensors
    from velora.training.batches import batches_an_epoch
    from velora.training.plan import Plan
    from velora.training.trainer import Trainer
    from velora.weights import random_tower

    config = _config(name, adapter)
    data, generator = _data(name), torch.Generator().manual_seed(0)
    batch = min(_batch_size(), len(data.slots))
    plan = Plan(epochs=steps / batches_an_epoch(len(data.slots), batch), batch=batch, patience=0)
    tower = None if config.own_towers else random_tower(backbone(config.backbone).name, generator)
    folder.mkdir(parents=True, exist_ok=True)
    run = Trainer(Checkpoint(config, random_tensors(config, generator)), tower, data, plan, folder, dtype=dtype)
    ends: list[float] = []
    run.run(lambda _: ends.append(time.perf_counter()))
    precision = {"no": "float32", "bf16": "bfloat16"}[run.accelerator.mixed_precision]
    seconds = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    return Trained(seconds, batch, precision, str(run.accelerator.device), _gpu_gb())


def released_steps(name: str, _way: str, steps: int, device: str, _dtype: str, _folder: Path) -> Trained:
    """The authors' loop: a step for each clip."""
    device = _only(device)
    import torch

    from app.bench.models import pooled_one_by_one, released_config
    from velora.devices import choose_device
    from velora.encoders import fresh_encoders
    from velora.model import VELoRA
    from velora.preprocess import normalize
    from velora.released import ReleasedFusion
    from velora.vit import VisionTower
    from velora.weights import random_tower

    place, config = choose_device(device), released_config(_config(name, "lora"))
    generator = torch.Generator().manual_seed(0)
    towers: dict[str, VisionTower] = {s: random_tower(config.backbone, generator) for s in config.streams}
    model = VELoRA(config, encoders=fresh_encoders(config, towers)).to(place).train()
    assert isinstance(model.fuser, ReleasedFusion)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    clips = _data(name).train.clips
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        images = torch.from_numpy(clips[step % _CLIPS].images(range(config.frames)))
        truth = torch.tensor([step % len(config.labels)], device=place)
        normal = normalize(images.permute(1, 0, 4, 2, 3).unsqueeze(1).to(place), config.mean, config.std)
        pooled = pooled_one_by_one(model, normal[0], normal[1])
        loss = torch.nn.functional.nll_loss(model.fuse(*pooled), truth)
        loss = loss + model.fuser.reconstruction(model.encoders, *pooled[:2])[0]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.detach().cpu()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return Trained(seconds[1:], 1, "float32", str(place), _gpu_gb())


def _config(name: str, adapter: str) -> Any:
    """Of a backbone, or that of a checkpoint with another adapter."""
    import dataclasses

    from velora import VELoRAConfig
    from velora.checkpoint import CONFIG, load_config

    folder = Path(name)
    if folder.is_dir():
        return dataclasses.replace(load_config(folder / CONFIG), adapter=adapter, own_towers=0, preset="paper")
    return VELoRAConfig(tuple(f"label {k}" for k in range(_LABELS)), name, adapter=adapter)


def _data(name: str) -> Data:
    """Clips of noise, each of one window and a label of its own."""
    from app.bench.fabricated import NoisyClip
    from velora.backbones import backbone
    from velora.training.clips import ClipSet
    from velora.training.trainer import Data
    from velora.training.windows import slots

    config = _config(name, "lora")
    shape = config.frames, backbone(config.backbone).image_size, config.sample_period_us
    clips = tuple(NoisyClip(f"{k}", k % len(config.labels), *shape) for k in range(_CLIPS))
    noise = ClipSet(config.labels, clips)
    return Data(noise, slots(clips, config, "stream"), noise, [])


def _only(device: str) -> str:
    """Before torch looks for GPUs: the training loop takes the first one that it finds. The device's name from then."""
    kind, _, number = device.partition(":")
    if kind == "cpu" or number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number
    return kind


def _batch_size() -> int:
    import torch

    return _GPU_BATCH if torch.cuda.is_available() else _BATCH


def _gpu_gb() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
