"""The vision towers that a config may name: open_clip's models of a plain kind, and the small one of the demo.

Shapes come from the files that the installed open_clip brings; they are read without importing it, which takes seconds.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUB_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True, slots=True)
class Backbone:
    """Shape of one CLIP vision transformer, and where its usual weights are published."""

    name: str
    width: int  # d, features of a token
    layers: int
    heads: int
    patch_size: int  # pixels
    image_size: int  # pixels, square
    output_dim: int  # of CLIP's joint space
    quick_gelu: bool
    hub_repo: str | None  # on the Hugging Face hub; None: no usual weights, or they come with this package
    pretrained: str = ""  # open_clip's tag of those weights

    @property
    def tokens(self) -> int:
        """N: the class token and one token a patch."""
        return 1 + (self.image_size // self.patch_size) ** 2


# OpenAI's weights were trained with QuickGELU, LAION's with GELU: each name gets the weights that fit its activation.
_USUAL = {
    "ViT-B-16-quickgelu": ("openai", "timm/vit_base_patch16_clip_224.openai"),
    "ViT-B-16": ("laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    "ViT-B-32-quickgelu": ("openai", "timm/vit_base_patch32_clip_224.openai"),
    "ViT-B-32": ("laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    "ViT-L-14-quickgelu": ("openai", "timm/vit_large_patch14_clip_224.openai"),
    "ViT-L-14": ("laion2b_s32b_b82k", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
    "ViT-L-14-336-quickgelu": ("openai", "timm/vit_large_patch14_clip_336.openai"),
}
WELL_KNOWN = tuple(_USUAL)

_DEMO = Backbone("demo", 192, 6, 3, 16, 192, 128, False, None)

#: those looked up so far, by name
BACKBONES = {"demo": _DEMO}

_KNOWN_FIELDS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}


def backbone(name: str) -> Backbone:
    """A backbone by its name. Raises ValueError, one line, for what is unknown or not a plain CLIP transformer."""
    if name not in BACKBONES:
        BACKBONES[name] = _read(name)
    return BACKBONES[name]


def has_clip_text(name: str) -> bool:
    """Whether a backbone has a text tower of CLIP's own kind."""
    return name != "demo" and "hf_model_name" not in text_config(name)


def text_config(name: str) -> dict[str, Any]:
    """The sizes of a backbone's text tower as open_clip has them: width, heads, layers, vocab_size, context_length."""
    text: dict[str, Any] = _config_of(name)["text_cfg"]
    return text


def _read(name: str) -> Backbone:
    config = _config_of(name)
    vision = config["vision_cfg"]
    if reason := next(_unfit(vision), None):
        raise ValueError(f"backbone {name} {reason}: choose a plain vision transformer, such as {WELL_KNOWN[0]}")
    pretrained, repo = _USUAL.get(name, ("", None))
    return Backbone(
        name=name,
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        patch_size=vision["patch_size"],
        image_size=vision["image_size"],
        output_dim=config["embed_dim"],
        quick_gelu=config.get("quick_gelu", False),
        hub_repo=repo,
        pretrained=pretrained,
    )


def _unfit(vision: dict[str, Any]) -> Iterator[str]:
    """Why our tower cannot be this one."""
    if "timm_model_name" in vision:
        yield f"is timm's {vision['timm_model_name']}"
    if vision.get("attentional_pool"):
        yield "pools by attention"
    if not isinstance(vision["layers"], int):
        yield "is a convolutional network"
    if vision.get("pool_type", "tok") != "tok":
        yield "does not pool by a class token"
    if vision.get("mlp_ratio", 4.0) != 4.0:
        yield f"has feed-forward layers {vision['mlp_ratio']} times as wide as its tokens instead of 4"
    if unknown := sorted(set(vision) - _KNOWN_FIELDS):
        yield f"has the setting {unknown[0]}"


def _config_of(name: str) -> dict[str, Any]:
    """open_clip's config of a model that it lists."""
    folder = _folder()
    if name not in {path.stem for path in folder.glob("*.json")}:  # the name may come from a stranger
        raise ValueError(
            f"unknown backbone {name!r}: it is one of {', '.join(WELL_KNOWN)}, or another ViT of open_clip"
        )
    config: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return config


def _folder() -> Path:
    spec = importlib.util.find_spec("open_clip")
    if not spec or not spec.submodule_search_locations:
        raise ModuleNotFoundError("open_clip is not installed: pip install open_clip_torch")
    return Path(spec.submodule_search_locations[0]) / "model_configs"
