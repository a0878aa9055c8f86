"""Weights in every format that they come in, whatever the suffix says."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.velora.weight_files import FORMATS, save_torchscript, small_clip
from velora import ModelError
from velora.weights import read_clip, read_weights


@pytest.mark.parametrize("format", FORMATS)
def test_reads_every_format_whatever_its_suffix(tmp_path: Path, format: str) -> None:
    model = small_clip()
    FORMATS[format](model, tmp_path / "weights.bin")
    found = read_weights(tmp_path / "weights.bin")
    expected = model.half().state_dict() if format == "TorchScript" else small_clip().state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_text_towers(tmp_path: Path) -> None:
    model = small_clip()
    save_torchscript(model, tmp_path / "clip.pt")
    names = {name for name, _ in model.named_parameters()}
    assert read_clip("ViT-B-16-quickgelu", file=tmp_path / "clip.pt").keys() == names
    save_file({"visual.proj": torch.ones(2)}, tmp_path / "vision.safetensors")
    with pytest.raises(ModelError, match="vision.safetensors holds no text tower"):
        read_clip("ViT-B-16-quickgelu", file=tmp_path / "vision.safetensors")


def test_nested_modules_keep_their_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5, bias=False)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(tmp_path / "nested.pt"))
    found: dict[str, Tensor] = read_weights(tmp_path / "nested.pt")
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "0.weight": (4, 3),
        "0.bias": (4,),
        "1.0.weight": (5, 4),
    }
