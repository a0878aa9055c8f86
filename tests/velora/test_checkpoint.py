"""What is trained survives its folder: for inference, for more training, and every tensor once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.velora.conftest import TINY, VARIANTS, make_checkpoint, make_config, make_trainable, tiny_backbone
from velora.checkpoint import (
    Checkpoint,
    build_model,
    build_trainable,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
    tensor_shapes,
    trained_tensors,
)
from velora.encoders import bare_state
from velora.model import VELoRA
from velora.vit import VisionTower

TRAINED = {name: changes for name, changes in VARIANTS.items() if name != "zero-shot"}


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


def trained_model(variant: str) -> VELoRA:
    model = make_trainable(make_config(**TRAINED[variant], trained=True))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def bare_tower(model: VELoRA) -> VisionTower | None:
    """The frozen tower anew, as a file of weights would give it; None where the checkpoint brings its own."""
    if model.config.own_towers:
        return None
    tower = VisionTower(TINY)
    tower.load_state_dict(bare_state(model.tower))
    return tower


def save(model: VELoRA, folder: Path) -> Checkpoint:
    save_checkpoint(folder, Checkpoint(model.config, trained_tensors(model)), card="# Tiny\n")
    return load_checkpoint(folder)


@pytest.mark.parametrize("variant", TRAINED)
def test_inference_equals_the_model_that_was_trained(tmp_path: Path, variant: str) -> None:
    model = trained_model(variant)
    loaded = save(model, tmp_path)
    assert loaded.config == model.config
    windows = torch.randn(2, 2, 4, 3, TINY.image_size, TINY.image_size)
    with torch.no_grad():
        expected = model(*windows)
        torch.testing.assert_close(build_model(loaded, bare_tower(model))(*windows), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("variant", TRAINED)
def test_training_goes_on_from_it(tmp_path: Path, variant: str) -> None:
    model = trained_model(variant)
    again = build_trainable(save(model, tmp_path), bare_tower(model))
    ours, theirs = trained_tensors(again), trained_tensors(model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    trains = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (again, model)]
    assert trains[0] == trains[1]


@pytest.mark.parametrize("variant", TRAINED)
def test_only_what_was_trained_is_in_the_file(tmp_path: Path, variant: str) -> None:
    model = trained_model(variant)
    save(model, tmp_path)
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter.safetensors").values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    towers = model.config.own_towers
    assert stored == trained if not towers else stored >= trained
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "adapter.safetensors", "README.md"}


@pytest.mark.parametrize("variant", ["released-full", "paper-full"])
def test_training_on_moves_each_tower_by_its_own_gradient_and_nothing_else(variant: str) -> None:
    """Towers that are stored once because they are equal are apart in training, and apart from what was loaded."""
    config = make_config(**TRAINED[variant])
    checkpoint = Checkpoint(config, trained_tensors(make_trainable(config)))
    before = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    reading, model = build_model(checkpoint), build_trainable(checkpoint).eval()
    rgb, event = torch.randn(2, 1, 4, 3, TINY.image_size, TINY.image_size)
    said = reading(rgb, event)
    apart = copy.deepcopy(model)
    for own in (model, apart):
        own(rgb, event)[0, 0].backward()
        torch.optim.SGD([p for p in own.parameters() if p.grad is not None], lr=0.1).step()
    towers = [{s: m.encoders.tower_of(s).conv1.weight for s in config.streams} for m in (model, apart)]
    for stream in config.streams:
        torch.testing.assert_close(towers[0][stream], towers[1][stream])
    if variant == "released-full":
        assert not torch.equal(towers[0]["rgb"], towers[0]["diff"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint.tensors.items())
    assert torch.equal(reading(rgb, event), said)


def test_towers_of_their_own_store_what_they_share_once(tmp_path: Path) -> None:
    config = make_config(preset="released", own_towers=3)
    model = make_trainable(config)
    with torch.no_grad():
        model.encoders.tower_of("diff").proj += 1
    names = set(save(model, tmp_path).tensors)
    assert {"tower.diff.proj", "tower.rgb.proj", "tower.event.proj"} <= names and "tower.proj" not in names
    assert sum(name.startswith("tower.") for name in names) == len(VisionTower(TINY).state_dict()) + 2
    again = build_model(load_checkpoint(tmp_path))
    assert torch.equal(again.encoders.tower_of("diff").proj, again.encoders.tower_of("rgb").proj + 1)
    shared = [again.encoders.tower_of(stream).conv1.weight.data_ptr() for stream in ("rgb", "event", "diff")]
    assert len(set(shared)) == 1


def test_others_may_read_the_files_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    save(trained_model("paper"), tmp_path / "ours")
    assert {path.stat().st_mode for path in (tmp_path / "ours").iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_half_precision_in_the_file_is_widened(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(make_config())
    halved = {name: tensor.half() for name, tensor in checkpoint.tensors.items()}
    save_checkpoint(tmp_path, Checkpoint(checkpoint.config, halved), card="")
    assert {tensor.dtype for tensor in load_checkpoint(tmp_path).tensors.values()} == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_are_known_before_reading(variant: str) -> None:
    config = make_config(**VARIANTS[variant])
    shapes = {name: tuple(tensor.shape) for name, tensor in make_checkpoint(config).tensors.items()}
    assert shapes == tensor_shapes(config)
    if variant != "zero-shot":
        model = make_trainable(config)
        assert {n: tuple(t.shape) for n, t in trained_tensors(model).items()} == tensor_shapes(
            config, trained_tensors(model)
        )


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("velora.checkpoint.save_file", save)
    with pytest.raises(OSError, match="No space left on device") as full:
        save_tensors(tmp_path / "adapter.safetensors", {"a": torch.zeros(1)})
    assert full.value.errno == 28 and full.value.filename == str(tmp_path / "adapter.safetensors")
    assert not list(tmp_path.iterdir())
