"""The tower equals open_clip's, in whole and by rows."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from velora.backbones import BACKBONES
from velora.vit import VisionTower
from velora.weights import random_tower


def open_clip_tower(name: str) -> torch.nn.Module:
    b = BACKBONES[name]
    activation = QuickGELU if b.quick_gelu else torch.nn.GELU
    args = (b.image_size, b.patch_size, b.width, b.layers, b.heads, 4.0)
    return VisionTransformer(*args, output_dim=b.output_dim, act_layer=activation).eval()


@pytest.mark.parametrize("name", ["demo", "ViT-B-16", "ViT-B-16-quickgelu"])
def test_equals_open_clip(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = open_clip_tower(name), VisionTower(BACKBONES[name])
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", [b for b in BACKBONES.values() if b.name != "demo"], ids=lambda b: b.name)
def test_table_is_open_clips(backbone: object) -> None:
    b = BACKBONES[backbone.name]  # type: ignore[attr-defined]
    config = open_clip.get_model_config(b.name)
    vision = config["vision_cfg"]
    assert (b.width, b.layers, b.patch_size, b.image_size, b.output_dim, b.quick_gelu, b.heads) == (
        vision["width"],
        vision["layers"],
        vision["patch_size"],
        vision["image_size"],
        config["embed_dim"],
        config.get("quick_gelu", False),
        vision["width"] // vision.get("head_width", 64),
    )
    repositories = {
        open_clip.get_pretrained_cfg(b.name, tag).get("hf_hub", "").rstrip("/")
        for tag in open_clip.list_pretrained_tags_by_model(b.name)
    }
    assert b.hub_repo in repositories


def test_rows_of_a_block_equal_the_whole_block() -> None:
    block = random_tower("demo", torch.Generator().manual_seed(0)).blocks[0]
    x = torch.randn(2, 9, 192)
    with torch.no_grad():
        rows = block.rows(x[:, [0, 5]], *block.keys_values(x))
        torch.testing.assert_close(rows, block(x)[:, [0, 5]], atol=1e-5, rtol=1e-5)
