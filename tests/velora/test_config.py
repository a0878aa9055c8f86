"""config.json may come from a stranger: each field is checked, and the message names it."""

from __future__ import annotations

import json

import pytest

from tests.velora.conftest import make_config
from velora.config import MAX_JSON_CHARS, VELoRAConfig

GOOD = {"format_version": 1, "labels": ["a", "b"], "backbone": "demo"}


def test_round_trip() -> None:
    config = make_config(labels=("Ä", "b b", "b b"), rendering={"style": "count", "full_scale": 3}, trained=True)
    assert VELoRAConfig.from_json(config.to_json()) == config


def test_defaults() -> None:
    config = VELoRAConfig.from_json(json.dumps(GOOD))
    assert (config.rank, config.alpha, config.frames, config.preset, config.trained) == (4, 8, 8, "paper", False)


BAD = [
    ({"format_version": 2}, "format_version is 2"),
    ({"format_version": True}, "format_version is True"),
    ({"colour": 1}, "unknown field 'colour'"),
    ({"labels": "cards"}, "labels must be a list"),
    ({"labels": []}, "labels must be a list"),
    ({"labels": ["a"] * 20_001}, "labels must be a list"),
    ({"labels": ["a", 2]}, r"labels\[1\]"),
    ({"labels": ["a", "b\x1b[31m"]}, r"labels\[1\]"),
    ({"labels": [" "]}, r"labels\[0\]"),
    ({"labels": ["a" * 201]}, r"labels\[0\]"),
    ({"backbone": "../../etc/passwd"}, "unknown backbone"),
    ({"backbone": ["demo"]}, "backbone must be a name"),
    ({"preset": "released?"}, "preset must be one of paper"),
    ({"preset": "released", "motion": "off"}, "motion is a switch of preset paper"),
    ({"adapter": "none", "motion": "head"}, "motion must be shared or off where adapter is none"),
    ({"frames": 1, "motion": "head"}, "motion needs frames of 2 or more"),
    ({"attend_over": "tokens"}, "attend_over is a switch of preset released"),
    ({"preset": "zero-shot"}, "adapter must be none for preset zero-shot"),
    ({"own_towers": 2}, "own_towers must be one of 0, 1, 3"),
    ({"own_towers": True}, "own_towers must be one of 0, 1, 3"),
    ({"own_towers": 3}, "own_towers of 3 are for preset released"),
    ({"pretrained": "../openai"}, "pretrained must be a tag"),
    ({"backbone": "ViT-B-16-SigLIP"}, "is timm's vit_base_patch16_siglip_224"),
    ({"rank": 10**9}, "rank must be a whole number from 1 to 256"),
    ({"rank": 4.0}, "rank must be a whole number"),
    ({"rank": True}, "rank must be a whole number"),
    ({"frames": 0}, "frames must be"),
    ({"frames": None}, "frames must be"),
    ({"temperature": float("nan")}, "temperature must be"),
    ({"temperature": float("inf")}, "temperature must be"),
    ({"temperature": "1"}, "temperature must be"),
    ({"mean": [0.5, 0.5]}, "mean must be three numbers"),
    ({"std": [0.5, 0.5, 0]}, r"std\[2\] must be"),
    ({"trained": "yes"}, "trained must be true or false"),
    ({"rendering": ["paint"]}, "rendering must be an object"),
    ({"rendering": {"style": {"deep": 1}}}, "rendering.style"),
    ({"rendering": {"tau_us": float("inf")}}, "rendering.tau_us"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(m) for _, m in BAD])
def test_names_the_bad_field_in_one_short_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        VELoRAConfig.from_json(json.dumps(GOOD | change))
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 10_000, "not JSON"),
        ("[]", "not a JSON object"),
        (" " * (MAX_JSON_CHARS + 1), "longer than"),
        ('{"format_version": 1, "labels": ["a"]}', "backbone is missing"),
    ],
    ids=["empty", "nested", "long number", "list", "long", "field missing"],
)
def test_refuses_what_is_no_config(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VELoRAConfig.from_json(text)


def test_sizes_are_bounded_together_too() -> None:
    with pytest.raises(ValueError, match="rank times pairs is at most 1024"):
        VELoRAConfig(("a", "b"), "demo", adapter="clora", rank=64, pairs=64)
    long = VELoRAConfig(("a", "b"), "demo", frames=256, sample_period_us=60_000_000)
    assert long.stride_for(33_333) * 255 <= 7_000
    assert VELoRAConfig(("a", "b"), "demo", sample_period_us=60_000_000).stride_for(33_333) == 1_000
