"""Finding and reading weights: safetensors on this machine, never a download.

A backbone is looked for in $VELORA_WEIGHTS (a file, or a folder of `<backbone>.safetensors`), in `~/.cache/velora`, and
in the Hugging Face hub's cache, where open_clip or anybody else may have put it. The demo's own ships with the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from velora.backbones import BACKBONES, HUB_FILE, Backbone
from velora.errors import ModelError
from velora.vit import VisionTower

VARIABLE = "VELORA_WEIGHTS"
BUNDLED = Path(__file__).parent / "demo" / "backbone.safetensors"


def load_tower(name: str) -> VisionTower:
    """The bare vision tower of a backbone, float32 on the CPU. Raises ModelError if its file is missing or broken."""
    backbone = BACKBONES[name]
    file = find_backbone(name)
    with torch.device("meta"):
        tower = VisionTower(backbone)
    shapes = {key: tuple(tensor.shape) for key, tensor in tower.state_dict().items()}
    tower.load_state_dict(read_tensors(file, shapes, prefix="visual.", fix=_fix(backbone)), assign=True)
    return tower


def random_tower(name: str, generator: torch.Generator) -> VisionTower:
    """A vision tower with random weights, for trying a backbone without them."""
    with torch.device("meta"):
        tower = VisionTower(BACKBONES[name])
    tower = tower.to_empty(device="cpu")
    tower.reset_parameters(generator)
    return tower


def find_backbone(name: str) -> Path:
    """The file with a backbone's weights. Raises ModelError that says what to fetch and where to put it."""
    backbone = BACKBONES[name]
    if backbone.hub_repo is None:
        return BUNDLED
    for path in _candidates(backbone, backbone.hub_repo):
        if path.is_file():
            return path
    raise ModelError(f"no weights for {name}: {_fix(backbone)}; --random-weights tries the program without them")


def _candidates(backbone: Backbone, repo: str) -> Iterator[Path]:
    if variable := os.environ.get(VARIABLE):
        path = Path(variable)
        if not path.exists():
            raise ModelError(f"{VARIABLE} names {variable}, which does not exist: correct it or unset it")
        yield path / f"{backbone.name}.safetensors" if path.is_dir() else path
    yield _home(backbone)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, HUB_FILE)
    if isinstance(cached, str):
        yield Path(cached)


def _home(backbone: Backbone) -> Path:
    return Path.home() / ".cache" / "velora" / f"{backbone.name}.safetensors"


def _fix(backbone: Backbone) -> str:
    if backbone.hub_repo is None:
        return "install the package again, which brings this file"
    return (
        f"fetch {HUB_FILE} of the Hugging Face repository {backbone.hub_repo} "
        f"and save it as {_home(backbone)}, or set {VARIABLE} to where it is"
    )


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], *, fix: str, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of `shapes`, as float32, from a safetensors file, where names may carry `prefix`; others are ignored.

    Raises ModelError, which names the file and ends with `fix`, for anything that is not as expected.
    """
    try:
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            tensors = {}
            for key, shape in shapes.items():
                name = key if key in stored else prefix + key
                if name not in stored:
                    raise ModelError(f"{path} has no tensor {key}: {fix}")
                found = tuple(file.get_slice(name).get_shape())
                if found != shape:
                    raise ModelError(f"{path}: {key} has the shape {[*found]} instead of {[*shape]}: {fix}")
                tensors[key] = file.get_tensor(name).float()
            return tensors
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be read as safetensors ({reason}): {fix}") from error
