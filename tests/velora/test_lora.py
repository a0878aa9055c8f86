"""LoRA: PEFT's own forward, merging and files are what ours equals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from tests.velora.conftest import TINY, make_checkpoint, make_config, make_model, make_trainable, tiny_backbone
from velora.adapter import FUSION, merged
from velora.checkpoint import Checkpoint, build_model, trained_tensors
from velora.config import STREAMS
from velora.encoders import bare_state
from velora.errors import ModelError
from velora.exchange import load_peft, save_peft
from velora.lora import insert_lora
from velora.model import VELoRA
from velora.vit import VisionTower


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


@pytest.fixture
def model() -> VELoRA:
    """With PEFT's adapters whose B are not zero, dropout off."""
    model = make_trainable(make_config(dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model


def open_clip_tower(state: dict[str, torch.Tensor]) -> nn.Module:
    sizes = (TINY.image_size, TINY.patch_size, TINY.width, TINY.layers, TINY.heads, 4.0)
    tower = VisionTransformer(*sizes, output_dim=TINY.output_dim, act_layer=QuickGELU)
    tower.load_state_dict(state)
    return tower.eval()


def test_equals_pefts_own_forward(model: VELoRA) -> None:
    streams = torch.tensor([2, 0, 1, 1, 0])
    for name in ("streams", FUSION):
        adapter = model.encoders.adapters[name]
        own = streams % len(adapter.streams)
        route = model.encoders._route(name, own)
        for layer in adapter.layers:
            pefts = model.tower.get_submodule(layer)
            x = torch.randn(len(own), 3, pefts.in_features)
            ours = route.add(layer, x, pefts.base_layer(x))
            for i, stream in enumerate(own):
                pefts.set_adapter(adapter.streams[stream])
                torch.testing.assert_close(ours[i], pefts(x[i]), atol=1e-5, rtol=1e-5)


def test_saved_tensors_run_without_peft_alike(model: VELoRA) -> None:
    checkpoint = Checkpoint(model.config, trained_tensors(model))
    tower = VisionTower(TINY)
    tower.load_state_dict(bare_state(model.tower))
    again = build_model(checkpoint, tower)
    windows = torch.randn(2, 2, 4, 3, TINY.image_size, TINY.image_size)
    with torch.no_grad():
        torch.testing.assert_close(again(*windows), model.eval()(*windows), atol=1e-5, rtol=1e-5)


def test_refuses_what_peft_has_merged(model: VELoRA) -> None:
    model.tower.get_submodule(model.encoders.adapters["streams"].layers[0]).merge()
    with pytest.raises(ModelError, match="unmerge"):
        model(*torch.randn(2, 1, 4, 3, TINY.image_size, TINY.image_size))


def test_equals_pefts_merging(model: VELoRA) -> None:
    layer = model.encoders.adapters["streams"].layers[3]
    pefts = model.tower.get_submodule(layer)
    plain = pefts.base_layer.weight.clone()
    pefts.merge(adapter_names=["event"])
    theirs = pefts.base_layer.weight - plain
    pefts.unmerge()
    torch.testing.assert_close(model.encoders.adapters["streams"].delta(layer, "event"), theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_streams_go_into_open_clips_tower_through_pefts_files(tmp_path: Path, preset: str) -> None:
    config = make_config(preset=preset)
    checkpoint, ours = make_checkpoint(config), make_model(config).encoders
    save_peft(checkpoint, tmp_path)
    folders = {*STREAMS, FUSION} if preset == "paper" else {*STREAMS}
    assert {path.name for path in tmp_path.iterdir()} == folders
    images = torch.randn(2, 3, TINY.image_size, TINY.image_size)
    for stream in STREAMS:
        theirs = PeftModel.from_pretrained(open_clip_tower(ours.tower.state_dict()), str(tmp_path / stream))
        with torch.no_grad():
            expected = merged(ours.tower, ours.adapters["streams"], stream)(images)
            torch.testing.assert_close(theirs(images), expected, atol=1e-5, rtol=1e-5)
            assert (expected - ours.tower(images)).abs().max() > 1e-2


def test_what_peft_saves_comes_back(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(make_config())
    save_peft(checkpoint, tmp_path / "ours")
    tower = open_clip_tower(make_model(make_config()).tower.state_dict())
    theirs = PeftModel.from_pretrained(tower, str(tmp_path / "ours" / "event"), is_trainable=True)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data *= 2
    theirs.save_pretrained(str(tmp_path / "theirs"))
    (tmp_path / "back").mkdir()
    (tmp_path / "theirs").rename(tmp_path / "back" / "event")
    back = load_peft(checkpoint, tmp_path / "back")
    for name, tensor in checkpoint.tensors.items():
        expected = 2 * tensor if name.startswith("event.") else tensor
        torch.testing.assert_close(back.tensors[name], expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 8}, "rank and alpha are"),
        ({"use_dora": True}, "use_dora is True"),
        ({"alpha_pattern": {"c_fc": 64}}, "alpha_pattern is"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"bias": "all"}, "bias is all"),
        ({"peft_type": "LOHA"}, "peft_type is LOHA"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa"),
        (None, "cannot be read"),
    ],
)
def test_refuses_pefts_folders_that_do_not_fit(tmp_path: Path, change: dict[str, object] | None, message: str) -> None:
    checkpoint = make_checkpoint(make_config())
    save_peft(checkpoint, tmp_path)
    file = tmp_path / "rgb" / "adapter_config.json"
    file.write_text("[" if change is None else json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_peft(checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("base_model.model.transformer.resblocks.0.attn.out_proj.lora_A.weight", 0.0, "holds base_model.* too"),
        ("base_model.model.transformer.resblocks.0.mlp.c_fc.lora_A.weight", float("nan"), "not finite"),
    ],
)
def test_refuses_pairs_that_have_no_place(tmp_path: Path, name: str, value: float, message: str) -> None:
    checkpoint = make_checkpoint(make_config())
    save_peft(checkpoint, tmp_path)
    file = tmp_path / "rgb" / "adapter_model.safetensors"
    save_file(load_file(file) | {name: torch.full((4, TINY.width), value)}, file)
    with pytest.raises(ModelError, match=message):
        load_peft(checkpoint, tmp_path)


def test_only_lora_is_exchanged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adapter is clora"):
        save_peft(make_checkpoint(make_config(adapter="clora")), tmp_path)
    with pytest.raises(ModelError, match="holds none of the folders"):
        load_peft(make_checkpoint(make_config()), tmp_path)


def test_peft_makes_what_the_config_says() -> None:
    tower = VisionTower(TINY)
    peft = insert_lora(tower, {"rgb": range(2), FUSION: range(2, 3)}, make_config(rank=3, alpha=6, dropout=0.25))
    first, last = tower.blocks[0].mlp.c_fc, tower.blocks[2].mlp.c_proj
    assert [*first.lora_A] == ["rgb"] and [*last.lora_A] == [FUSION]
    assert first.r == {"rgb": 3} and first.scaling == {"rgb": 2.0} and first.lora_dropout["rgb"].p == 0.25
    assert sum(p.requires_grad for p in peft.parameters()) == 2 * 3 * 2
