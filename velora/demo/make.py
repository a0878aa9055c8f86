"""Write the bundled model, seeded and untrained.

    python -m velora.demo.make

Labels are those of playing cards; nothing here has learnt to tell them apart.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from velora.checkpoint import Checkpoint, build_model, random_tensors, save_checkpoint, save_tensors
from velora.config import VELoRAConfig
from velora.vit import VisionTower
from velora.weights import BUNDLED, random_tower

SEED = 0
LABELS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "JOKER", "no card")

CARD = """\
# The demo model

A small VELoRA (a vision transformer of 6 blocks, 192 features wide) that ships with the program, so that it runs
offline and at once. It would tell playing cards apart, shown to a camera or simulated.

**Its weights are random: it has not been trained, and its labels mean nothing.** They change with the picture, which
is enough to try the program. The program says so wherever it shows them.

- Labels: {labels}
- Window: 8 samples, {period} us apart
- Made by: `python -m velora.demo.make` (seed {seed})
"""


def make(folder: Path) -> None:
    """Write config, adapters, card and the backbone in half precision into a folder."""
    generator = torch.Generator().manual_seed(SEED)
    config = VELoRAConfig(labels=LABELS, backbone="demo", sample_period_us=133_333)
    tower = random_tower("demo", generator)
    sharpen(tower)
    save_tensors(folder / BUNDLED.name, {name: tensor.half() for name, tensor in tower.state_dict().items()})
    tensors = random_tensors(config, generator)
    tensors["fuser.head.weight"] *= 8
    tensors["fuser.head.bias"] = -build_model(Checkpoint(config, tensors), tower)(*clips(generator)).mean(dim=0)
    card = CARD.format(labels=", ".join(LABELS), period=config.sample_period_us, seed=SEED)
    save_checkpoint(folder, Checkpoint(config, tensors), card=card)


@torch.no_grad()
def sharpen(tower: VisionTower) -> None:
    """Stronger queries and keys: where attention is even, every picture looks the same to the class token."""
    for block in tower.blocks:
        block.attn.in_proj_weight[: 2 * tower.backbone.width] *= 2.5


def clips(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Soft moving pictures and a coloured bar on white, each [4, 8, 3, 192, 192], to centre the labels on."""
    coarse = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    picture = F.interpolate(coarse, (192, 192), mode="bilinear")
    rgb = torch.stack([picture.roll(8 * t, dims=3) for t in range(8)], dim=1)
    event = torch.ones_like(rgb)
    for clip, t in itertools.product(range(4), range(8)):
        left = 40 * clip + 8 * t
        event[clip, t, :, 50:150, left : left + 10] = torch.tensor([0.7, -0.8, -0.8]).view(3, 1, 1)
    return rgb, event


if __name__ == "__main__":
    make(BUNDLED.parent)
