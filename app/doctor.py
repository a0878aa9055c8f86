"""`velora doctor`: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from streams.cores import usable_cores

_LIBRARIES = (
    "torch",
    "numpy",
    "opencv-python",
    "gradio",
    "peft",
    "open_clip_torch",
    "dv-processing",
    "lz4",
    "zstandard",
)
#: What each is for, its package, and the module that it brings.
_OPTIONAL = (
    ("reader of Prophesee and .es files", "faery", "faery"),
    ("reader of HDF5 files", "h5py", "h5py"),
    ("compressed HDF5 files", "hdf5plugin", "hdf5plugin"),
    ("videos of recordings", "av", "av"),
    ("columns for pandas and others", "pyarrow", "pyarrow"),
    ("pictures of reports", "matplotlib", "matplotlib"),
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at: "ok", "note" (works without), or "bad" (something will fail)."""

    state: Literal["ok", "note", "bad"]
    what: str
    found: str
    fix: str = ""


def doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; exit code 1 where something is bad."""
    bad = False
    for finding in findings():
        bad |= finding.state == "bad"
        if arguments.json:
            print(json.dumps(asdict(finding), ensure_ascii=False), flush=True)
        else:
            mark = {"ok": "+", "note": "-", "bad": "!"}[finding.state]
            fix = f"\n    {finding.fix}" if finding.fix else ""
            print(f"{mark} {finding.what}: {finding.found}{fix}", flush=True)
    return 1 if bad else 0


def findings() -> Iterator[Finding]:
    """Everything that is looked at, cheap things first."""
    yield Finding("ok", "system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    for look in (_libraries, _compute, _models, _cameras, _readers):
        try:
            yield from look()
        except Exception as error:  # of a library that is missing or broken: the rest is looked at all the same
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Finding("bad", look.__name__.strip("_"), found, "pip install --force-reinstall velora-rgbe")


def _libraries() -> Iterator[Finding]:
    found, missing = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", "libraries", ", ".join(found))
    if missing:
        yield Finding("bad", "missing libraries", ", ".join(missing), f"pip install {' '.join(missing)}")
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        yield Finding("bad", "OpenCV", str(error), "apt-get install libgl1 libglib2.0-0")


def _compute() -> Iterator[Finding]:
    import torch

    from velora.devices import cpu_has_bf16

    cores = usable_cores()
    bf16 = "bf16 instructions" if cpu_has_bf16() else "no bf16 instructions (fp32 is used)"
    yield Finding("ok", "processor", f"{cores} cores, {bf16}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        yield Finding("ok", "GPU", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
    elif torch.backends.mps.is_available():
        yield Finding("ok", "GPU", "Apple MPS")
    else:
        yield Finding("note", "GPU", "none that torch can use; everything runs on the processor")


def _models() -> Iterator[Finding]:
    from recordings import bundled
    from velora.backbones import WELL_KNOWN
    from velora.errors import ModelError
    from velora.weights import find_weights

    names = ", ".join(bundled())
    yield (
        Finding("ok", "bundled recordings", names)
        if names
        else Finding("bad", "bundled recordings", "none", "reinstall")
    )
    for name in WELL_KNOWN:
        try:
            yield Finding("ok", f"weights of {name}", str(find_weights(name)))
        except ModelError as error:
            yield Finding("note", f"weights of {name}", "not here", str(error))


def _cameras() -> Iterator[Finding]:
    from app.doctor_cameras import cameras

    yield from cameras()


def _readers() -> Iterator[Finding]:
    for what, package, module in _OPTIONAL:
        if importlib.util.find_spec(module) is None:
            yield Finding("note", what, "not installed", f"pip install {package}")
        else:
            yield Finding("ok", what, f"{package} {version(package)}")
