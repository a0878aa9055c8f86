"""Both presets equal the slow reference that was written from the specification, at full depth, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.velora.conftest import TINY, make_checkpoint, make_config, make_model
from tests.velora.fabricate import Sizes, released_checkpoint
from tests.velora.reference import paper, released
from velora.backbones import BACKBONES
from velora.checkpoint import Checkpoint, build_model
from velora.convert import convert
from velora.model import VELoRA
from velora.released_file import read_released

DEEP = Sizes(layers=12)
LABELS = tuple(map(str, range(114)))


@pytest.fixture(scope="module", autouse=True)
def deep_backbone() -> Iterator[None]:
    """The backbone "demo" is tiny and twelve blocks deep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "demo", replace(TINY, layers=DEEP.layers))
        yield


def windows(batch: int, frames: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    rgb, event = torch.randn(2, batch, frames, 3, TINY.image_size, TINY.image_size, generator=generator).double()
    return rgb, event


@pytest.fixture(scope="module", params=["equal", "different"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / f"{request.param}.pth"
    torch.save(released_checkpoint(DEEP, encoders=request.param), path)
    return path


def converted(file: Path, **switches: object) -> VELoRA:
    checkpoint = convert(read_released(file), LABELS).checkpoint
    config = replace(checkpoint.config, **switches)
    return build_model(Checkpoint(config, {name: t.float() for name, t in checkpoint.tensors.items()})).double()


@pytest.mark.parametrize("attend_over", ["batch_of_one", "tokens", "batch"])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_released(file: Path, attend_over: str, batch: int) -> None:
    model = converted(file, attend_over=attend_over)
    logits, reconstruction, _ = model.with_reconstruction(*windows(batch))
    parts = torch.load(file, weights_only=True)
    expected = released(parts, *windows(batch), heads=DEEP.heads, attend_over=attend_over)
    torch.testing.assert_close(logits, expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(reconstruction, expected[1], atol=1e-6, rtol=0)
    assert logits.std() > 0.5
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(batch).double())


@torch.no_grad()
def test_what_released_attends_over_matters(file: Path) -> None:
    results = [converted(file, attend_over=over)(*windows(3)) for over in ("batch_of_one", "tokens", "batch")]
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(results, results[1:] + results[:1], strict=True))


PAPER = [("shared", 1, 8), ("shared", 3, 8), ("shared", 2, 1), ("head", 3, 8), ("off", 3, 8), ("off", 2, 1)]


@pytest.mark.parametrize(("motion", "batch", "frames"), PAPER)
@torch.no_grad()
def test_paper(motion: str, batch: int, frames: int) -> None:
    config = make_config(motion=motion, frames=frames)
    checkpoint, model = make_checkpoint(config), make_model(config).double()
    logits, reconstruction, _ = model.with_reconstruction(*windows(batch, frames))
    tower = model.tower.state_dict()
    expected = paper(tower, checkpoint.tensors, *windows(batch, frames), heads=TINY.heads, motion=motion)
    torch.testing.assert_close(logits, expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(reconstruction, expected[1], atol=1e-6, rtol=0)
    assert logits.std() > 0.05


@pytest.mark.parametrize("preset", ["paper", "released"])
@torch.no_grad()
def test_neither_tells_the_direction_of_time(preset: str) -> None:
    model = make_model(make_config(preset=preset)).double()
    rgb, event = windows(2)
    torch.testing.assert_close(model(rgb.flip(1), event.flip(1)), model(rgb, event), atol=1e-9, rtol=0)
