"""Finding and reading weights that are on this machine; nothing is downloaded, and nothing in a file is ever executed.

A backbone's file is looked for in $VELORA_WEIGHTS (a file, or a folder), in `~/.cache/velora`, where OpenAI's CLIP
keeps its own, and in the Hugging Face hub's cache, where open_clip or anybody else may have put it. In the first two
its name is `<backbone>.safetensors`, or `<backbone>-<tag>.safetensors` for other weights than the usual ones, or the
name that OpenAI gave it. It may be safetensors, a torch state dict, or OpenAI's TorchScript archive, whatever its
suffix.
"""

from __future__ import annotations

import math
import os
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streams.text import printable, storable
from velora.backbones import HUB_FILE, Backbone, backbone
from velora.errors import ModelError
from velora.torchscript import check_archive, is_torchscript, read_torchscript
from velora.vit import VisionTower

VARIABLE = "VELORA_WEIGHTS"
BUNDLED = Path(__file__).parent / "demo" / "backbone.safetensors"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_HUB_FILES = (HUB_FILE, "open_clip_pytorch_model.bin")
_FLOATS = ("F64", "F32", "F16", "BF16")
# OpenAI's names for its files: they are quickgelu towers, which no other backbone may take for its own
_OPENAI = {
    "ViT-B-16-quickgelu": "ViT-B-16.pt",
    "ViT-B-32-quickgelu": "ViT-B-32.pt",
    "ViT-L-14-quickgelu": "ViT-L-14.pt",
    "ViT-L-14-336-quickgelu": "ViT-L-14-336px.pt",
}
_VISION = "visual."
_ADDED = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # what OpenAI's files hold beside weights


def load_tower(name: str, pretrained: str = "", file: Path | None = None) -> VisionTower:
    """The bare vision tower of a backbone, float32 on the CPU. Raises ModelError if its file is missing or broken.

    `pretrained` is open_clip's tag of the weights (empty: the backbone's usual ones); a `file` given is taken instead.
    """
    file = _checked(file or find_weights(name, pretrained), name, pretrained)
    with torch.device("meta"):
        tower = VisionTower(backbone(name))
    shapes = {key: tuple(tensor.shape) for key, tensor in tower.state_dict().items()}
    tensors = read_weights(file, _vision_part)
    tower.load_state_dict(_fitting(file, tensors, shapes, name, pretrained), assign=True)
    return tower


def read_clip(name: str, pretrained: str = "", file: Path | None = None) -> dict[str, Tensor]:
    """The float32 weights of a whole CLIP, text tower included. Raises ModelError if the file lacks the text tower."""
    file = _checked(file or find_weights(name, pretrained), name, pretrained)
    tensors = {key: tensor.float() for key, tensor in read_weights(file).items() if key not in _ADDED}
    if not {"token_embedding.weight", "text_projection"} <= tensors.keys():
        raise ModelError(f"{file} holds no text tower, which zero-shot needs: {_fix(name, pretrained)}")
    return tensors


def _checked(file: Path, name: str, tag: str) -> Path:
    """Raise ModelError where weights were trained with the other activation: shapes alone would not tell."""
    wanted = backbone(name)
    if is_torchscript(file) and not wanted.quick_gelu:
        raise ModelError(f"{file}: OpenAI's archives need QuickGELU: use {wanted.name}-quickgelu")
    _check_activation(wanted, tag)
    return file


def _check_activation(wanted: Backbone, tag: str) -> None:
    if not tag or tag == wanted.pretrained:
        return
    import open_clip  # takes seconds: only for what is not in our table

    quick = open_clip.get_pretrained_cfg(wanted.name, tag).get("quick_gelu", wanted.quick_gelu)
    if quick != wanted.quick_gelu:
        other = f"{wanted.name}-quickgelu" if quick else wanted.name.removesuffix("-quickgelu")
        raise ModelError(
            f"the weights {tag!r} were trained with {'Quick' if quick else ''}GELU: use the backbone {other}"
        )


def random_tower(name: str, generator: torch.Generator) -> VisionTower:
    """A vision tower with random weights, for trying a backbone without them."""
    with torch.device("meta"):
        tower = VisionTower(backbone(name))
    tower = tower.to_empty(device="cpu")
    tower.reset_parameters(generator)
    return tower


def find_weights(name: str, pretrained: str = "") -> Path:
    """The file with a backbone's weights. Raises ModelError that says what to fetch and where to put it."""
    if name == "demo":
        return BUNDLED
    wanted = backbone(name)
    _check_activation(wanted, pretrained)
    for path in _candidates(wanted, pretrained):
        if path.is_file():
            return path
    raise ModelError(_missing(wanted, pretrained))


def _missing(wanted: Backbone, tag: str) -> str:
    """What to do about weights that are not here."""
    what, how = f"no weights for {wanted.name}" + (f" ({tag})" if tag else ""), _fix(wanted.name, tag)
    if not _repo(wanted, tag):
        import open_clip

        what = f"{wanted.name} has no {f'weights tagged {tag!r}' if tag else 'usual weights'}"
        if tags := open_clip.list_pretrained_tags_by_model(wanted.name):
            how = f"--weights takes a file, or one of {', '.join(tags)}"
    return f"{what}: {how}; --random-weights tries the program without"


def _candidates(wanted: Backbone, tag: str) -> Iterator[Path]:
    if variable := os.environ.get(VARIABLE):
        path = Path(variable)
        if not path.exists():
            raise ModelError(f"{VARIABLE} names {variable}, which does not exist: correct it or unset it")
        if path.is_dir():
            yield from (path / name for name in _file_names(wanted, tag))
        elif tag in ("", wanted.pretrained):  # the usual weights; others are asked for by their tag
            yield path
    yield from (_home() / name for name in _file_names(wanted, tag))
    if (tag or wanted.pretrained) == "openai" and wanted.name in _OPENAI:
        yield Path.home() / ".cache" / "clip" / _OPENAI[wanted.name]
    if repo := _repo(wanted, tag):
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(repo, name) for name in _HUB_FILES)
        yield from (Path(path) for path in found if isinstance(path, str))


def _file_names(wanted: Backbone, tag: str) -> list[str]:
    """What a file of weights may be called in our folders, the first choice first."""
    stems = [wanted.name] if tag in ("", wanted.pretrained) else []
    if tag := tag or wanted.pretrained:
        stems.append(f"{wanted.name}-{tag}")
    theirs = _OPENAI.get(wanted.name)
    return [
        *(name for stem in stems for suffix in SUFFIXES if (name := f"{stem}{suffix}") not in _OPENAI.values()),
        *([theirs] if theirs and tag == "openai" else []),
    ]


def _home() -> Path:
    return Path.home() / ".cache" / "velora"


def _repo(wanted: Backbone, tag: str) -> str | None:
    """The repository on the hub with a backbone's weights; None where none is listed."""
    if not tag or (tag == wanted.pretrained and wanted.hub_repo):
        return wanted.hub_repo
    import open_clip  # takes seconds: only for what is not in our table

    repo: str = open_clip.get_pretrained_cfg(wanted.name, tag).get("hf_hub", "").rstrip("/")
    return repo or None


def _fix(name: str, pretrained: str) -> str:
    if name == "demo":
        return "install the package again, which brings this file"
    wanted = backbone(name)
    repo = _repo(wanted, pretrained)
    place = _home() / _file_names(wanted, pretrained)[0]
    fetch = f"`hf download {repo} {HUB_FILE}` fetches them, or put that file" if repo else "put a file of its weights"
    return f"{fetch} at {place}, or set {VARIABLE} to where it is"


def _vision_part(names: Collection[str]) -> dict[str, str]:
    """Of the names in a file those of the vision tower, by their names in it."""
    return {n.removeprefix(_VISION): n for n in names if n.startswith(_VISION)} or {n: n for n in names}


def _everything(names: Collection[str]) -> dict[str, str]:
    return {name: name for name in names}


def read_weights(path: Path, select: Callable[[Collection[str]], Mapping[str, str]] = _everything) -> dict[str, Tensor]:
    """The tensors in a file of any format that CLIP's weights come in, as stored.

    `select` says which of the names in the file are wanted, and under which names. Raises ModelError that names the
    file.
    """
    try:
        tensors = _read_any(path, select)
        _check_plain(tensors, path.stat().st_size)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as weights ({_reason(error)}): fetch it again") from None
    return tensors


def _read_any(path: Path, select: Callable[[Collection[str]], Mapping[str, str]]) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        with opened_tensors(path) as stored:
            return {name: stored.get_tensor(key) for name, key in select(stored.keys()).items()}
    tensors = read_torchscript(path) if is_torchscript(path) else _read_torch(path)
    return {name: tensors[key] for name, key in select(tensors).items()}


def _check_plain(tensors: Mapping[str, Tensor], size: int) -> None:
    """Refuse what a hostile file may give its tensors: no values, or a thousand times as many as the file has."""
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name} is no plain tensor")
    if sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors.values()) > 2 * size:
        raise ValueError("its tensors claim to be larger than the file")


def _reason(error: Exception) -> str:
    """The first line of an error, without what would change a terminal."""
    line = str(error).partition("\n")[0][:200]
    return printable(line) or type(error).__name__


def _read_torch(path: Path) -> dict[str, Tensor]:
    """A state dict, perhaps that of a training run with its `module.` prefixes."""
    loaded = load_torch(path)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict):
        raise ValueError("it is no state dict")
    return {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def load_torch(path: Path) -> object:
    """What torch.save wrote, tensors and plain containers only, mapped into memory where its format allows.

    Raises OSError for a file that cannot be opened, and ValueError for anything else in it and for damage of any kind.
    """
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to say about a file is said in an error
            return _load_mapped(path)
    except (OSError, pickle.UnpicklingError) as error:
        if isinstance(error, OSError) and error.filename:  # it cannot be opened; without a name, a seek went astray
            raise
        raise ValueError("it is damaged, or holds more than tensors") from None  # torch's text advises an unsafe way
    except Exception as error:  # of a damaged file torch raises whatever it stumbles over
        raise ValueError(_reason(error)) from None


def _load_mapped(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def _fitting(
    file: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], name: str, pretrained: str
) -> dict[str, Tensor]:
    """The tensors of `shapes` as float32. Raises ModelError for those that are missing or of another shape."""
    for key, shape in shapes.items():
        if key not in tensors:
            raise ModelError(f"{file} has no tensor {key}, so it is not {name}: {_fix(name, pretrained)}")
        if (found := tuple(tensors[key].shape)) != shape:
            raise ModelError(
                f"{file}: {key} has the shape {[*found]} instead of {[*shape]}, so it is not {name}: "
                + _fix(name, pretrained)
            )
    return {key: tensors[key].float() for key in shapes}


@contextmanager
def opened_tensors(path: Path) -> Iterator[Any]:
    """A file of safetensors, open. Raises ModelError for a path that they cannot take; else as `safe_open`."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ModelError(f"{storable(str(path))} is no path in UTF-8, which safetensors need: rename it") from None
    with safe_open(path, framework="pt") as file:
        yield file


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], *, fix: str) -> dict[str, Tensor]:
    """The tensors of `shapes`, as float32, from a safetensors file; others are ignored.

    Raises ModelError, which names the file and ends with `fix`, for anything that is not as expected.
    """
    try:
        with opened_tensors(path) as file:
            stored = set(file.keys())
            for key, shape in shapes.items():
                if key not in stored:
                    raise ModelError(f"{path} has no tensor {key}: {fix}")
                if (dtype := file.get_slice(key).get_dtype()) not in _FLOATS:
                    raise ModelError(f"{path}: {key} holds {dtype} instead of floating-point numbers: {fix}")
                found = tuple(file.get_slice(key).get_shape())
                if found != shape:
                    raise ModelError(f"{path}: {key} has the shape {[*found]} instead of {[*shape]}: {fix}")
            return {key: file.get_tensor(key).float() for key in shapes}
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be read as safetensors ({reason}): {fix}") from error
