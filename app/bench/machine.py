"""What it was measured on."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from streams.cores import usable_cores

_LIBRARIES = (
    "velora-rgbe",
    "torch",
    "numpy",
    "opencv-python",
    "open_clip_torch",
    "peft",
    "lz4",
    "pillow",
    "simplejpeg",
    "aedat",
    "dv-processing",
)


def machine() -> dict[str, Any]:
    """Processor, memory, GPU, and how torch uses them."""
    import torch

    from velora.devices import cpu_has_bf16

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
        "bf16": cpu_has_bf16(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": ", ".join(gpus) or ("Apple MPS" if torch.backends.mps.is_available() else None),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python, and of the libraries that are there."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    """The processor's name, as the system gives it."""
    try:
        named = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        named = None
    return named[1].strip() if named else platform.processor() or platform.machine()
