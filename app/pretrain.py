"""The backbone of the demo: a small vision transformer, trained on simulated stills; the project's stand-in for CLIP.

It learns to name the card in a picture, and for each patch which card it belongs to, if any ("All Tokens Matter", Jiang
et al., NeurIPS 2021: without the second task, 100,000 pictures are too few to begin to read indices). Stills are made
once and kept on disk; every time they are seen they are moved, turned and scaled anew. At first pictures are seen
through a window about the card, with the positions that it has in the whole: half the patches cost less than half.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from app.pool import pool_of
from streams.cores import usable_cores
from streams.files import replaced_when_whole
from streams.simulation.cards import LABELS, SENSOR
from streams.simulation.stills import Stills
from velora.backbones import Backbone, backbone
from velora.preprocess import normalize, resize
from velora.vit import VisionTower, in_autocast

_NOWHERE = np.nan  # the corners of no card
_TOKENS = 0.5  # weight of the patches' loss
_SMOOTHING = 0.05
_MEAN = _STD = (0.5, 0.5, 0.5)
_AHEAD = 4  # batches
_CLOSEST, _CLOSE_UNTIL = 1.6, 0.5  # cards are seen from close at first, until this share of the steps
_WINDOW, WINDOW_UNTIL = 8, 0.65  # patches of a side, and until which share of the steps


@dataclass(frozen=True, slots=True)
class Pretraining:
    """How long, and how. Defaults are what the demo's backbone was trained with."""

    stills: int = 12 * 4096
    chunk: int = 4096  # stills in a file
    held_out: int = 512  # of the last file, to see how it goes
    images: int = 600_000  # seen, all in all
    batch: int = 64
    rate: float = 2e-3
    warmup: int = 300  # steps
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.images // self.batch


class Batch(NamedTuple):
    """Images uint8 [n, 3, W, W], labels int64 [n], and of each patch its label and its place in the whole image's grid,
    both int64 [n, W / patch size squared]."""

    images: Tensor
    labels: Tensor
    patches: Tensor
    places: Tensor


def make_stills(folder: Path, plan: Pretraining, told: Callable[[int], None]) -> None:
    """Draw what is not there yet, in files of `plan.chunk` stills, by all cores; `told` hears how many are there."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        (folder / f"{plan.seed}_{k:03d}.npz", (plan.seed, k), plan.chunk)
        for k in range(math.ceil(plan.stills / plan.chunk))
    ]
    missing = [job for job in wanted if not job[0].exists()]
    done = len(wanted) - len(missing)
    told(done * plan.chunk)
    with pool_of(usable_cores()) as pool:
        for _ in pool.map(_make_chunk, *zip(*missing, strict=True)) if missing else ():  # which cancels the rest
            done += 1
            told(done * plan.chunk)


def _make_chunk(path: Path, seed: tuple[int, int], count: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    size = backbone("demo").image_size
    images, labels = np.empty((count, size, size, 3), np.uint8), np.empty(count, np.int64)
    corners = np.full((count, 4, 2), _NOWHERE, np.float32)
    for k, still in zip(range(count), Stills(seed), strict=False):
        images[k] = resize([still.image], size)[0].permute(1, 2, 0).numpy()
        labels[k] = still.label
        if still.corners is not None:
            corners[k] = (still.corners + 0.5) * size / np.array(SENSOR) - 0.5
    with replaced_when_whole(path) as part, part.open("wb") as file:
        np.savez(file, images=images, labels=labels, corners=corners)


class Shelf:
    """The stills on disk, as batches that are different every time."""

    def __init__(self, folder: Path, plan: Pretraining) -> None:
        self._files = [np.load(path) for path in sorted(folder.glob(f"{plan.seed}_*.npz"))]
        self._images = [file["images"] for file in self._files]
        self._labels = np.concatenate([file["labels"] for file in self._files])
        self._corners = np.concatenate([file["corners"] for file in self._files])
        self._plan = plan

    def batches(self, first: int) -> Iterator[Batch]:
        """From step `first` to the last one; a few are prepared ahead."""
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(self._batch, step) for step in range(first, min(first + _AHEAD, self._plan.steps))]
            for step in range(first, self._plan.steps):
                batch = coming.pop(0).result()
                if step + _AHEAD < self._plan.steps:
                    coming.append(pool.submit(self._batch, step + _AHEAD))
                yield batch

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Images uint8 [n, 3, S, S] that are not trained on, and their labels."""
        images = torch.from_numpy(self._images[-1][-self._plan.held_out :]).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self._labels[-self._plan.held_out :])

    def _batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self._plan.seed, step])
        total, count = len(self._labels) - self._plan.held_out, self._plan.batch
        epoch, place = divmod(step * count, total)
        order = np.random.default_rng([self._plan.seed, 1 << 20, epoch]).permutation(total)
        chosen = np.take(order, np.arange(place, place + count), mode="wrap")
        closest = 1 + (_CLOSEST - 1) * max(0.0, 1 - step / (_CLOSE_UNTIL * self._plan.steps))
        side = _WINDOW if step < WINDOW_UNTIL * self._plan.steps else _grid()
        seen = [self._moved(int(k), rng, closest, side) for k in chosen]
        labels = self._labels[chosen]
        patches = [_patch_labels(one.corners, int(own), side) for one, own in zip(seen, labels, strict=True)]
        places = [_places(*one.place, side) for one in seen]
        return Batch(
            torch.from_numpy(np.stack([one.image for one in seen])).permute(0, 3, 1, 2),
            torch.from_numpy(labels),
            torch.from_numpy(np.stack(patches)),
            torch.from_numpy(np.stack(places)),
        )

    def _moved(self, k: int, rng: np.random.Generator, closest: float, side: int) -> _Seen:
        """A still, turned, shifted, up to `closest` times as close, and seen through `side` x `side` patches."""
        image, shape = self._images[k // self._plan.chunk][k % self._plan.chunk], backbone("demo")
        size, patch = shape.image_size, shape.patch_size
        turn, stretch = rng.normal(0, 0.1), np.exp(rng.normal(0, 0.05))
        scale = np.exp(rng.normal(0, 0.08)) * closest ** rng.random()
        c, s = np.cos(turn), np.sin(turn)
        onto = scale * np.array([[c * stretch, -s], [s * stretch, c]])
        middle = np.full(2, (size - 1) / 2)
        seen = np.nan_to_num(self._corners[k].mean(axis=0), nan=middle[0])
        target = middle + (seen - middle) * rng.uniform(0, 1) ** (closest - 1) + rng.uniform(-0.07, 0.07, 2) * size
        place = np.round(target / patch - side / 2 + rng.uniform(-1, 1, 2)).clip(0, _grid() - side).astype(int)
        shift = target - place * patch - onto @ seen
        edge = (255, 255, 255) if (image[0, 0] == 255).all() else None
        mode = cv2.BORDER_CONSTANT if edge else cv2.BORDER_REFLECT
        extent = (side * patch, side * patch)
        warped = cv2.warpAffine(
            image, np.column_stack([onto, shift]), extent, borderMode=mode, borderValue=edge or (0, 0, 0)
        )
        corners = (self._corners[k] @ onto.T + shift).astype(np.float32)
        return _Seen(np.asarray(warped, np.uint8), corners, (int(place[1]), int(place[0])))


class _Seen(NamedTuple):
    """A still through a window, uint8 [W, W, 3], the corners of its card there, and its first row and column."""

    image: NDArray[np.uint8]
    corners: NDArray[np.float32]
    place: tuple[int, int]


def _grid() -> int:
    """Patches of a side of the whole image."""
    return backbone("demo").image_size // backbone("demo").patch_size


def _places(row: int, column: int, side: int) -> NDArray[np.int64]:
    """The places, in the whole grid, of the patches of a window."""
    within = np.arange(side)
    return ((row + within)[:, None] * _grid() + column + within).ravel()


def _patch_labels(corners: NDArray[np.float32], label: int, side: int) -> NDArray[np.int64]:
    """The card's label for the patches whose middle is on it, that of "no card" for the others."""
    grid = np.zeros((side, side), np.uint8)
    if not np.isnan(corners).any():
        cv2.fillConvexPoly(grid, np.round((corners + 0.5) / backbone("demo").patch_size - 0.5).astype(np.int32), 1)
    return np.where(grid.ravel() > 0, label, len(LABELS) - 1).astype(np.int64)


class Pupil(nn.Module):
    """The tower and what it is taught with, which is thrown away afterwards."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower = tower
        with torch.no_grad():
            tower.positional_embedding[1:] = 0.3 * _waves(tower.backbone)
        self.whole = nn.Linear(tower.backbone.output_dim, len(LABELS))
        self.patch = nn.Linear(tower.backbone.width, len(LABELS))

    def forward(self, images: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images and the places of their patches to logits of the image [n, C] and of its patches."""
        tower = self.tower
        patches = tower.project(images) + tower.positional_embedding[1:][places]
        cls = (tower.class_embedding + tower.positional_embedding[0]).expand(len(images), 1, -1)
        entering = in_autocast(tower.ln_pre(torch.cat([cls, patches], dim=1)))
        tokens = tower.ln_post(tower.run(entering, 0, tower.backbone.layers))
        return self.whole(tokens[:, 0] @ self.tower.proj), self.patch(tokens[:, 1:])


def _waves(shape: Backbone) -> Tensor:
    """Where a patch is, as sine waves of its row and column, [N - 1, d]: a better start than noise."""
    side, quarter = shape.image_size // shape.patch_size, shape.width // 4
    angles = torch.arange(side)[:, None] * 30.0 ** -torch.linspace(0, 1, quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, d / 2]
    rows, columns = waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)
    return torch.cat([rows, columns], dim=1)


class Progress(NamedTuple):
    """How pretraining goes: steps done, mean loss and share of right labels of late, images a second, and the share of
    right labels among stills that are not trained on."""

    step: int
    loss: float
    right: float
    rate: float
    held_out: float


def pretrain(stills: Path, state: Path, plan: Pretraining, told: Callable[[Progress], None]) -> VisionTower:
    """Train a tower, or go on from `state`, which is written every so often; stopped, it goes on where it was."""
    torch.manual_seed(plan.seed)
    pupil = Pupil(VisionTower(backbone("demo")))
    optimizers = _optimizers(pupil, plan)
    first = _resume(state, pupil, optimizers)
    began, recent = time.perf_counter(), (3.0, 0.0)
    shelf = Shelf(stills, plan)
    for step, batch in enumerate(shelf.batches(first), first):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["initial_lr"] * _share(step, plan)
        loss, right = _learn(pupil, optimizers, batch)
        recent = (0.98 * recent[0] + 0.02 * loss, 0.98 * recent[1] + 0.02 * right)
        if (step + 1) % 200 == 0 or step + 1 == plan.steps:
            rate = (step + 1 - first) * plan.batch / (time.perf_counter() - began)
            told(Progress(step + 1, *recent, rate, _right(pupil, *shelf.held_out())))
        if (step + 1) % 500 == 0 or step + 1 == plan.steps:
            _keep(state, pupil, optimizers, step + 1)
    return pupil.tower.eval().requires_grad_(False)


def _optimizers(pupil: Pupil, plan: Pretraining) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices of the blocks, AdamW for the rest."""
    blocks = [p for p in pupil.tower.transformer.parameters() if p.ndim == 2]
    known = {id(p) for p in blocks}
    others = [p for p in pupil.parameters() if id(p) not in known]
    made: list[torch.optim.Optimizer] = [
        torch.optim.Muon(blocks, lr=plan.rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for group in (group for optimizer in made for group in optimizer.param_groups):
        group["initial_lr"] = plan.rate
    return made


@torch.inference_mode()
def _right(pupil: Pupil, images: Tensor, labels: Tensor) -> float:
    """The share of right labels."""
    with torch.autocast("cpu", torch.bfloat16):
        features = [pupil.tower(normalize(part, _MEAN, _STD)) for part in torch.split(images, 64)]
        said = [pupil.whole(part).argmax(dim=1) for part in features]
    return float((torch.cat(said) == labels).float().mean())


def _learn(pupil: Pupil, optimizers: list[torch.optim.Optimizer], batch: Batch) -> tuple[float, float]:
    images = normalize(batch.images, _MEAN, _STD)
    with torch.autocast("cpu", torch.bfloat16):
        whole, patch = pupil(images, batch.places)
    loss = F.cross_entropy(whole.float(), batch.labels, label_smoothing=_SMOOTHING)
    loss = loss + _TOKENS * F.cross_entropy(patch.float().flatten(0, 1), batch.patches.flatten())
    pupil.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach()), float((whole.argmax(dim=1) == batch.labels).float().mean())


def _share(step: int, plan: Pretraining) -> float:
    """Of the learning rate: rises, then falls along a cosine."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(1, plan.steps - plan.warmup)))


def _resume(state: Path, pupil: Pupil, optimizers: list[torch.optim.Optimizer]) -> int:
    if not state.exists():
        return 0
    stored = torch.load(state, weights_only=True)
    pupil.load_state_dict(stored["pupil"])
    for optimizer, own in zip(optimizers, stored["optimizers"], strict=True):
        optimizer.load_state_dict(own)
    return int(stored["step"])


def _keep(state: Path, pupil: Pupil, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    with replaced_when_whole(state) as part:
        own = [optimizer.state_dict() for optimizer in optimizers]
        torch.save({"pupil": pupil.state_dict(), "optimizers": own, "step": step}, part)
