"""`velora info` of models: a checkpoint's folder, or what options describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main
from tests.velora.conftest import make_checkpoint, make_config, tiny_backbone
from velora.checkpoint import save_checkpoint

KEYS = {
    *("frozen_parameters", "adapter_parameters", "other_trainable_parameters", "head_parameters"),
    *("trainable_parameters", "trainable_mib", "total_mib"),
}


def info(*arguments: str) -> int:
    return main(["info", *arguments])


@pytest.mark.parametrize(
    ("options", "trainable"),
    [
        ("--preset paper --adapter lora", 1_234_290),
        ("--preset paper --adapter clora --rank 4 --pairs 4", 347_634),
        ("--preset paper --adapter none", 175_218),
        ("--preset released --adapter lora", 18_326_898),
    ],
)
def test_counts_without_weights(options: str, trainable: int, capsys) -> None:
    described = [*options.split(), "--backbone", "ViT-B-16-quickgelu", "--classes", "114"]
    assert info(*described, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.keys() >= KEYS and facts["trainable_parameters"] == trainable
    assert info(*described) == 0
    assert f"{trainable:,}" in capsys.readouterr().out


def test_the_papers_own_figures(capsys) -> None:
    assert info("--preset", "released", "--classes", "114") == 0
    told = capsys.readouterr().out
    assert "1,843,200      7.03" in told and "1,719.30" in told


def test_a_checkpoint(tmp_path: Path, capsys) -> None:
    with tiny_backbone():
        save_checkpoint(tmp_path, make_checkpoint(make_config(adapter="clora", trained=True)), card="")
        assert info(str(tmp_path)) == 0
        told = capsys.readouterr().out
        assert "left, right, up" in told and "adapter clora (rank 4, 4 pairs of bases), 3 classes" in told
        assert info(str(tmp_path), "--json") == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts.keys() >= KEYS and facts["config"]["labels"] == ["left", "right", "up"]
        assert facts["files"]["adapter.safetensors"] > 4 * facts["trainable_parameters"]


def test_the_bundled_model(capsys) -> None:
    from velora.loading import DEMO

    assert info(str(DEMO)) == 0
    assert "checkpoint, trained" in capsys.readouterr().out
    assert info("demo") == 0  # as other commands call it
    assert "checkpoint, trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "3", "--backbone", "ViT-B-16-SigLIP"], "is timm's vit_base_patch16_siglip_224"),
        (["--classes", "3", "--rank", "1000"], "rank must be a whole number from 1 to 256, not 1000"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str, capsys) -> None:
    assert info(*arguments) == 1
    told = capsys.readouterr().err.strip()
    assert message in told and "\n" not in told


def test_a_folder_that_is_no_checkpoint(tmp_path: Path, capsys) -> None:
    assert info(str(tmp_path)) == 1
    assert "a checkpoint is a folder with config.json" in capsys.readouterr().err


def test_every_backbone_that_is_accepted_can_be_counted(capsys) -> None:
    for backbone in ("xlm-roberta-base-ViT-B-32", "nllb-clip-base", "ViT-L-14-worldwide", "demo"):
        assert info("--preset", "released", "--classes", "3", "--backbone", backbone) == 0


@pytest.mark.parametrize("classes", ["0", "1000000000"])
def test_absurd_numbers_of_classes_are_wrong_usage(classes: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        info("--classes", classes)
    assert caught.value.code == 2 and "must be 1 to 20000" in capsys.readouterr().err


def test_a_strangers_words_neither_steer_the_terminal_nor_flood_it(tmp_path: Path, capsys) -> None:
    fields = {"format_version": 1, "labels": ["a"], "backbone": "demo", "rendering": {"\x1b[2Jx": {}}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert info(str(tmp_path)) == 1
    assert "\x1b" not in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps(fields | {"backbone": "x" * 100_000}))
    assert info(str(tmp_path)) == 1
    assert len(capsys.readouterr().err) < 1000


def test_wrong_usage(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        info("--preset", "paper")
    assert caught.value.code == 2 and "--classes N" in capsys.readouterr().err
