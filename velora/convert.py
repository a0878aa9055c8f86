"""From the authors' released checkpoint to a folder of this project: preset "released", with what it needs and no more.

    save_checkpoint(folder, convert(read_released(path), labels).checkpoint, card=…)

The encoders' own weights are left out where they are those of the named backbone, and stored once where they are equal
to each other; half precision stores what came from half precision without loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from velora.backbones import BACKBONES, WELL_KNOWN, Backbone, backbone
from velora.checkpoint import Checkpoint, tensor_shapes, tower_tensors
from velora.config import STREAMS, VELoRAConfig
from velora.errors import ModelError
from velora.released_file import Released
from velora.vit import VisionTower
from velora.weights import load_tower


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint, and what became of the encoders' own weights."""

    checkpoint: Checkpoint
    encoders: str


def convert(
    released: Released, labels: Sequence[str], *, backbone_name: str | None = None, alpha: int = 8
) -> Conversion:
    """The checkpoint of a released file. Raises ModelError where the file lacks something or the labels do not fit."""
    _check_kinds(released)
    name = _fitting(released, backbone_name)
    _check_labels(released, labels)
    own_towers, fate = _encoders(released, name)
    rank = _first(released, ".lora_A.weight").shape[0]
    try:
        config = VELoRAConfig(
            tuple(labels), name, preset="released", rank=rank, alpha=alpha, own_towers=own_towers, trained=True
        )
    except ValueError as error:
        raise ModelError(f"{released.path} and its labels make no model: {error}") from None
    stored = tower_tensors({stream: released.towers[stream] for stream in STREAMS[: own_towers or 1]})
    trained = {n: t if t.dtype == torch.float16 else t.float() for n, t in released.tensors.items()}
    tensors = trained | ({n: _compact(t) for n, t in stored.items()} if own_towers else {})
    wanted = tensor_shapes(config, tensors)
    _check(released, tensors, wanted)
    return Conversion(Checkpoint(config, {n: tensors[n].clone() for n in wanted}), fate)


def _check_kinds(released: Released) -> None:
    """Refuse tensors that are no plain arrays of real numbers, before anything is computed with them."""
    towers = ((f"{s} encoder's {name}", t) for s, tower in released.towers.items() for name, t in tower.items())
    for name, tensor in (*released.tensors.items(), *towers):
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}".replace("torch.", "")
            raise ModelError(f"{released.path}: {name} holds no plain real numbers ({kind}): download the file again")


def _fitting(released: Released, named: str | None) -> str:
    """The backbone with the encoders' shapes, which must be the one that is named, where one is."""
    found, *others = (_shapes(released.towers[stream]) for stream in STREAMS)
    for name in [named] if named else (*WELL_KNOWN, *BACKBONES):
        if found == _backbone_shapes(backbone(name)):
            _check_alike(released, found, others)
            return name
    sizes = ", ".join(f"{key} {[*shape]}" for key, shape in found.items() if key in ("conv1.weight", "proj"))
    wanted = f"not {named}" if named else f"none of {', '.join(WELL_KNOWN)}; --backbone may name another"
    raise ModelError(f"{released.path}: its encoders ({len(found)} tensors, {sizes}) are {wanted}")


def _backbone_shapes(wanted: Backbone) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(VisionTower(wanted).state_dict())


def _shapes(tower: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tower.items()}


def _check_alike(
    released: Released, rgb: Mapping[str, tuple[int, ...]], others: Sequence[Mapping[str, tuple[int, ...]]]
) -> None:
    """Refuse an encoder that is not built as that of "rgb" is."""
    for stream, other in zip(STREAMS[1:], others, strict=True):
        if odd := sorted(dict(rgb.items() ^ other.items())):
            some = ", ".join(odd[:3]) + (", …" if len(odd) > 3 else "")
            raise ModelError(
                f"{released.path}: its {stream} encoder is not built as its rgb encoder is; "
                f"{len(odd)} tensors are in one of them alone, or of another shape: {some}"
            )


def _first(released: Released, end: str) -> Tensor:
    tensor = next((tensor for name, tensor in released.tensors.items() if name.endswith(end)), None)
    if tensor is None or tensor.ndim != 2:
        raise ModelError(f"{released.path} holds no tensor that ends with {end}, so it is no checkpoint of VELoRA")
    return tensor


def _check_labels(released: Released, labels: Sequence[str]) -> None:
    classes = _first(released, "fuser.head.weight").shape[0]
    if len(labels) != classes:
        raise ModelError(f"{released.path} tells {classes} classes apart, but {len(labels)} labels are given")


def _encoders(released: Released, name: str) -> tuple[int, str]:
    """How many towers the checkpoint has to bring, and why, in words."""
    first, *others = (released.towers[stream] for stream in STREAMS)
    if not all(_equal(first, other) for other in others):
        return len(STREAMS), "different ones, stored; what is equal in them once"
    try:
        named = load_tower(name).state_dict()
    except ModelError:
        small = sum(tensor.nbytes for tensor in released.tensors.values()) / 1e6
        return 1, (
            f"equal, stored once; no weights of {name} that can be read are on this machine: "
            f"with them, if they are the same, the folder would be {small:,.1f} MB"
        )
    if _equal(first, named):
        return 0, f"equal to {name}'s own weights, not stored"
    return 1, f"equal, stored once; other weights than {name}'s own"


def _equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(t.float(), theirs[n].float()) for n, t in ours.items())


def _compact(tensor: Tensor) -> Tensor:
    """In half precision where that loses nothing."""
    half = tensor.half()
    return half if torch.equal(half.float(), tensor.float()) else tensor.float()


def _check(released: Released, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse what lacks a tensor, or has one of another shape or with numbers that are not finite."""
    if missing := [name for name in wanted if name not in tensors]:
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelError(f"{released.path} lacks {len(missing)} of the {len(wanted)} tensors that are needed: {some}")
    for name, shape in wanted.items():
        if (found := tuple(tensors[name].shape)) != shape:
            raise ModelError(f"{released.path}: {name} has the shape {[*found]} instead of {[*shape]}")
        if not tensors[name].isfinite().all():
            raise ModelError(f"{released.path}: {name} holds numbers that are not finite")
