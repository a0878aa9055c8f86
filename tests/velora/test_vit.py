"""The tower equals open_clip's, in whole and by rows."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from velora.backbones import backbone
from velora.vit import VisionTower
from velora.weights import random_tower


def open_clip_tower(name: str) -> torch.nn.Module:
    b = backbone(name)
    activation = QuickGELU if b.quick_gelu else torch.nn.GELU
    args = (b.image_size, b.patch_size, b.width, b.layers, b.heads, 4.0)
    return VisionTransformer(*args, output_dim=b.output_dim, act_layer=activation).eval()


@pytest.mark.parametrize("name", ["demo", "ViT-B-16", "ViT-B-16-quickgelu"])
def test_equals_open_clip(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = open_clip_tower(name), VisionTower(backbone(name))
    ours.load_state_dict(theirs.state_dict())
    size = ours.backbone.image_size
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_rows_of_a_block_equal_the_whole_block() -> None:
    block = random_tower("demo", torch.Generator().manual_seed(0)).blocks[0]
    x = torch.randn(2, 9, 192)
    with torch.no_grad():
        rows = block.rows(x[:, [0, 5]], *block.keys_values(x))
        torch.testing.assert_close(rows, block(x)[:, [0, 5]], atol=1e-5, rtol=1e-5)


def test_under_autocast_the_blocks_stay_in_its_dtype_and_elsewhere_in_the_weights() -> None:
    tower = random_tower("demo", torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, 192, 192)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert tower.run(tower.embed(images), 0, 2).dtype == torch.bfloat16
    with torch.no_grad():
        assert tower.run(tower.embed(images), 0, 2).dtype == torch.float32


def test_it_can_be_counted_without_computing_anything() -> None:
    with torch.device("meta"):
        tower, images = VisionTower(backbone("demo")), torch.empty(2, 3, 192, 192)
    assert tower(images).shape == (2, 128)
