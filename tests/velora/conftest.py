"""Small samples and recognisers for the tests of the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from streams.items import Sample, no_events
from velora.backbones import BACKBONES, Backbone
from velora.checkpoint import Checkpoint, build_model, random_tensors
from velora.config import VELoRAConfig
from velora.model import VELoRA
from velora.recognizer import Recognizer
from velora.weights import random_tower

TINY = Backbone("demo", 64, 3, 2, 8, 32, 16, True, None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small models: a second thread gains little, and loses much where another process runs beside the tests."""
    torch.set_num_threads(1)


def make_config(**changes: object) -> VELoRAConfig:
    config = VELoRAConfig(labels=("left", "right", "up"), backbone="demo", frames=4)
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def make_recognizer(config: VELoRAConfig, *, dtype: torch.dtype = torch.float32) -> Recognizer:
    """A recogniser with random weights and a tower of 3 blocks and 17 tokens."""
    generator = torch.Generator().manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "demo", TINY)
        tensors = random_tensors(config, generator)
        tensors["fuser.head.weight"] *= 10
        model = build_model(Checkpoint(config, tensors), random_tower(config.backbone, generator))
    model.tower.to(dtype)
    return Recognizer("test", model)


def make_sample(index: int, *, discontinuity: bool = False, seed: int = 0, size: tuple[int, int] = (26, 34)) -> Sample:
    """A sample of coarse noise that depends on its index and the seed."""
    rng = np.random.default_rng([index, seed])
    rgb, event = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    start = index * 1000
    return Sample(index, start, start + 500, rgb, event, no_events(), True, True, discontinuity, None, 1.5, 2.5)


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    return make_recognizer(make_config())


@pytest.fixture
def trainable() -> VELoRA:
    """A model of the demo's size with PEFT's adapters, dropout off, as it is at the start of training."""
    torch.manual_seed(0)
    return VELoRA(make_config(dropout=0.0))
