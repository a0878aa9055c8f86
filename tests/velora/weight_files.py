"""A small CLIP, and files of its weights in every format that they come in."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

SMALL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2},
}


def small_clip() -> nn.Module:
    torch.manual_seed(0)
    return open_clip.CLIP(**SMALL).eval()


def save_torchscript(model: nn.Module, path: Path, dtype: torch.dtype = torch.half) -> None:
    """As OpenAI published its models: traced, in half precision."""
    inputs = torch.randn(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, inputs, check_trace=False).to(dtype).save(str(path))


def save_training_run(model: nn.Module, path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in model.state_dict().items()}}, path)


FORMATS: dict[str, Callable[[nn.Module, Path], None]] = {
    "safetensors": lambda model, path: save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path),
    "state dict": lambda model, path: torch.save(model.state_dict(), path),
    "old state dict": lambda m, path: torch.save(m.state_dict(), path, _use_new_zipfile_serialization=False),
    "training run": save_training_run,
    "TorchScript": save_torchscript,
    "TorchScript, fp32": lambda model, path: save_torchscript(model, path, torch.float32),
}
