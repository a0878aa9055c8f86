"""The parameter accounting: the paper's figures, the published sizes, and the models that are really built."""

from __future__ import annotations

import pytest

from tests.velora.conftest import VARIANTS, make_config, make_trainable, tiny_backbone
from velora.accounting import account
from velora.config import VELoRAConfig


def at_full_size(**changes: object) -> VELoRAConfig:
    changes.setdefault("backbone", "ViT-B-16-quickgelu")
    return make_config(labels=tuple(map(str, range(114))), **changes)


def test_the_papers_model() -> None:
    facts = account(at_full_size())
    assert facts["trainable_parameters"] == 1_234_290
    assert facts["adapter_parameters"] == 3 * 337_920 + 30_720 + 2 * 6_144
    assert facts["other_trainable_parameters"] == 3 * 768
    assert facts["head_parameters"] == 1536 * 114 + 114
    assert facts["frozen_parameters"] == 86_192_640
    assert (facts["trainable_mib"], facts["total_mib"]) == (4.71, 333.51)
    assert facts["adapters"] == {
        "encoders": {"rgb": 337_920, "event": 337_920, "diff": 337_920},
        "shared block": {"fusion": 30_720},
        "top blocks": {"rgb": 6_144, "event": 6_144},
    }


def test_the_figures_of_the_paper() -> None:
    facts = account(at_full_size(preset="released"))
    paper = facts["paper_accounting"]
    assert paper["clip_parameters"] == 86_192_640 + 63_428_096 + 1
    assert (paper["adapter_parameters_per_clip"], paper["adapter_parameters"]) == (614_400, 1_843_200)
    assert (paper["trainable_mib"], paper["total_mib"]) == (7.03, 1719.3)
    assert facts["adapter_parameters"] == 3 * 368_640
    assert "paper_accounting" not in account(at_full_size())


def test_clora() -> None:
    facts = account(at_full_size(adapter="clora", rank=4, pairs=4))
    assert sum(facts["adapters"]["encoders"].values()) == 127_104
    assert facts["trainable_parameters"] == 347_634


def test_head_only_and_everything() -> None:
    alone = account(at_full_size(adapter="none"))
    assert alone["trainable_parameters"] == alone["head_parameters"] == 1536 * 114 + 114
    full = account(at_full_size(adapter="full"))
    assert full["frozen_parameters"] + full["trainable_parameters"] == 86_192_640 + 12_288 + 2_304 + 175_218
    assert full["frozen_parameters"] == 768 * 512  # the projection into the space of texts takes no part


def test_larger_backbones() -> None:
    large = account(at_full_size(backbone="ViT-L-14"))
    assert large["frozen_parameters"] == 303_966_208
    assert large["adapters"]["encoders"]["rgb"] == 23 * 2 * 4 * 5 * 1024


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "zero-shot"])
def test_equals_the_model_that_is_built(variant: str) -> None:
    config = make_config(**VARIANTS[variant])
    with tiny_backbone():
        facts, model = account(config), make_trainable(config)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert facts["trainable_parameters"] == trainable
    assert facts["frozen_parameters"] + trainable == sum(p.numel() for p in model.parameters())
