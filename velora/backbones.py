"""The vision towers that a config may name: open_clip's names and shapes, and the small one of the demo."""

from __future__ import annotations

from dataclasses import dataclass

HUB_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True, slots=True)
class Backbone:
    """Shape of one CLIP vision transformer, and where its weights are published."""

    name: str
    width: int  # d, features of a token
    layers: int
    heads: int
    patch_size: int  # pixels
    image_size: int  # pixels, square
    output_dim: int  # of CLIP's joint space
    quick_gelu: bool
    hub_repo: str | None  # on the Hugging Face hub; None: the weights come with this package

    @property
    def tokens(self) -> int:
        """N: the class token and one token a patch."""
        return 1 + (self.image_size // self.patch_size) ** 2


# OpenAI's weights were trained with QuickGELU, LAION's with GELU: each name gets the weights that fit its activation.
_TABLE = (
    Backbone("ViT-B-16-quickgelu", 768, 12, 12, 16, 224, 512, True, "timm/vit_base_patch16_clip_224.openai"),
    Backbone("ViT-B-16", 768, 12, 12, 16, 224, 512, False, "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    Backbone("ViT-B-32-quickgelu", 768, 12, 12, 32, 224, 512, True, "timm/vit_base_patch32_clip_224.openai"),
    Backbone("ViT-L-14-quickgelu", 1024, 24, 16, 14, 224, 768, True, "timm/vit_large_patch14_clip_224.openai"),
    Backbone("ViT-L-14", 1024, 24, 16, 14, 224, 768, False, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
    Backbone("demo", 192, 6, 3, 16, 224, 128, True, None),
)

BACKBONES = {backbone.name: backbone for backbone in _TABLE}
