"""Run by `accelerate launch`: trains a few steps and leaves what every process ends with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.velora.conftest import tiny_backbone
from tests.velora.training.made import config_of, data_of, start, tower
from velora.training.plan import Plan
from velora.training.trainer import Trainer

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, batch = Path(sys.argv[1]), int(sys.argv[2])
    with tiny_backbone():
        config = config_of(adapter=sys.argv[3])
        plan = Plan(epochs=2, batch=batch, rate=1e-2, drop_modality=0.0, patience=0)
        trainer = Trainer(start(config), tower(), data_of(config), plan, folder, dtype="fp32")
        trainer.run(lambda progress: None)
        rank = trainer.accelerator.process_index
        torch.save({"tensors": trainer._tensors(), "steps": trainer.progress.step}, folder / f"rank{rank}.pt")
