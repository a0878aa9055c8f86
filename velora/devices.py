"""Where a model runs, and with which numbers."""

from __future__ import annotations

import torch

from velora.errors import ModelError

_DTYPES = {"fp32": torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """A device by torch's name; "auto" takes a CUDA GPU, else Apple's, else the CPU."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps") from None
    here = {"cpu": True, "mps": mps, "cuda": cuda and (device.index or 0) < torch.cuda.device_count()}
    if not here.get(device.type, False):
        raise ModelError(f"this machine's torch finds no device {name!r}: use --device auto")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The tower's numbers: "fp32", "bf16", or with "auto" bfloat16 where the device computes faster with it."""
    if name != "auto":
        if name not in _DTYPES:
            raise ValueError(f"unknown dtype {name!r}: use auto, fp32 or bf16")
        return _DTYPES[name]
    if device.type == "cuda":
        with torch.cuda.device(device):
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware. Older torch cannot tell: then no."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
