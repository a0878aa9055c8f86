"""Small samples and recognisers for the tests of the model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streams.items import Sample, no_events
from velora.backbones import BACKBONES, Backbone
from velora.checkpoint import Checkpoint, build_model, random_tensors
from velora.config import VELoRAConfig
from velora.model import VELoRA
from velora.preprocess import normalize, resize
from velora.recognizer import Recognizer
from velora.weights import random_tower

#: every way to fuse and to adapt, and every switch
VARIANTS: dict[str, dict[str, object]] = {
    "paper": {},
    "paper-clora": {"adapter": "clora", "pairs": 3},
    "paper-none": {"adapter": "none"},
    "paper-full": {"adapter": "full"},
    "paper-motion-to-head": {"motion": "head"},
    "paper-no-motion": {"motion": "off"},
    "released": {"preset": "released"},
    "released-clora": {"preset": "released", "adapter": "clora", "rank": 2},
    "released-none": {"preset": "released", "adapter": "none"},
    "released-full": {"preset": "released", "adapter": "full"},
    "released-tokens": {"preset": "released", "attend_over": "tokens", "own_towers": 3},
    "zero-shot": {"preset": "zero-shot", "adapter": "none", "temperature": 50.0},
}

TINY = Backbone("demo", 64, 3, 2, 8, 32, 16, True, None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small models: a second thread gains little, and loses much where another process runs beside the tests."""
    torch.set_num_threads(1)


def make_config(**changes: object) -> VELoRAConfig:
    config = VELoRAConfig(labels=("left", "right", "up"), backbone="demo", frames=4)
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def make_checkpoint(config: VELoRAConfig, seed: int = 1) -> Checkpoint:
    """Random values for all that a checkpoint holds, with labels that differ."""
    generator = torch.Generator().manual_seed(seed)
    with tiny_backbone():
        tensors = random_tensors(config, generator)
    if "fuser.head.weight" in tensors:
        tensors["fuser.head.weight"] *= 10
    return Checkpoint(config, tensors)


def make_model(config: VELoRAConfig, seed: int = 1) -> VELoRA:
    """For inference, with random weights and a tower of 3 blocks and 17 tokens."""
    with tiny_backbone():
        tower = None if config.own_towers else random_tower("demo", torch.Generator().manual_seed(0))
        return build_model(make_checkpoint(config, seed), tower)


def make_trainable(config: VELoRAConfig) -> VELoRA:
    """As it is at the start of training."""
    torch.manual_seed(0)
    with tiny_backbone():
        return VELoRA(config)


@contextlib.contextmanager
def tiny_backbone() -> Iterator[None]:
    """While models are made, the backbone "demo" is a tiny one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "demo", TINY)
        yield


def make_recognizer(config: VELoRAConfig, *, dtype: torch.dtype = torch.float32, seed: int = 1) -> Recognizer:
    model = make_model(config, seed)
    model.encoders.to(dtype)
    return Recognizer("test", model)


def normalized(recognizer: Recognizer, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Samples as the model's own forward takes them: RGB and event images [1, T, 3, S, S]."""
    config, size = recognizer.config, recognizer.model.tower.backbone.image_size
    rgb, event = ([getattr(sample, name) for sample in samples] for name in ("rgb", "event_image"))
    rgb, event = (normalize(resize(images, size), config.mean, config.std).unsqueeze(0) for images in (rgb, event))
    return rgb, event


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
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, without weights anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VELORA_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def trainable() -> VELoRA:
    """A model with PEFT's adapters, dropout off, as it is at the start of training."""
    return make_trainable(make_config(dropout=0.0))
