"""Which of open_clip's models our tower can be, and that it then has their shapes."""

from __future__ import annotations

import subprocess
import sys

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from velora.backbones import WELL_KNOWN, backbone
from velora.vit import VisionTower

LISTED = [name for name in open_clip.list_models() if ":" not in name]


def vision_of(name: str) -> dict[str, object]:
    return open_clip.get_model_config(name)["vision_cfg"]


def supported(name: str) -> bool:
    try:
        return bool(backbone(name))
    except ValueError:
        return False


@pytest.mark.parametrize("name", [name for name in LISTED if supported(name)])
def test_has_open_clips_parameters(name: str) -> None:
    b = backbone(name)
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        activation = QuickGELU if config.get("quick_gelu") else torch.nn.GELU
        options = {k: v for k, v in config["vision_cfg"].items() if k not in ("head_width", "mlp_ratio")}
        heads = options["width"] // config["vision_cfg"].get("head_width", 64)
        theirs = VisionTransformer(
            **options, heads=heads, mlp_ratio=4.0, output_dim=config["embed_dim"], act_layer=activation
        )
        ours = VisionTower(b)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert (ours.blocks[0].attn.heads, b.quick_gelu) == (heads, config.get("quick_gelu", False))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP", "is timm's vit_base_patch16_siglip_224"),
        ("EVA02-B-16", "is timm's eva02_base_patch16_clip_224"),
        ("coca_ViT-B-32", "pools by attention"),
        ("RN50", "is a convolutional network"),
        ("ViT-L-14-CLIPA", "does not pool by a class token"),
        ("ViT-g-14", "has feed-forward layers 4.3637 times as wide"),
        ("ViT-M-16-alt", "has the setting ls_init_value"),
        ("resnet", "unknown backbone 'resnet': it is one of ViT-B-16-quickgelu"),
        ("../model_configs/ViT-B-16", "unknown backbone"),
    ],
)
def test_refuses_in_one_line_that_says_why(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        backbone(name)
    assert "\n" not in str(caught.value) and WELL_KNOWN[0] in str(caught.value)


def test_every_listed_model_is_supported_or_refused() -> None:
    plain = {name for name in LISTED if "timm_model_name" not in vision_of(name)}
    refused = {name for name in LISTED if not supported(name)}
    assert set(LISTED) - plain <= refused and len(refused & plain) < len(plain) / 2
    assert set(WELL_KNOWN) <= plain - refused


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_the_usual_weights_are_open_clips(name: str) -> None:
    listed = open_clip.get_pretrained_cfg(name, backbone(name).pretrained)
    assert listed["hf_hub"].rstrip("/") == backbone(name).hub_repo


def test_open_clip_is_not_imported_for_it() -> None:
    code = "import sys; from velora.backbones import backbone; backbone('ViT-H-14'); print('open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
