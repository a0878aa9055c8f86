"""What is trained: as options say, or as the checkpoint has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.cli import _parser
from app.train_config import base_of, config_of
from velora import load_recognizer
from velora.config import VELoRAConfig
from velora.loading import DEMO


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's checkpoint, as any other is."""
    return shutil.copytree(DEMO, tmp_path_factory.mktemp("models") / "mine")


def asked(*options: str) -> VELoRAConfig:
    arguments = _parser().parse_args(["train", "--data", "cards", "--out", "out", *options])
    return config_of(arguments, base_of(arguments), ("a", "b"), {})


def test_samples_of_windows_are_133_ms_apart_unless_options_or_the_checkpoint_say_otherwise(copy: Path) -> None:
    own_us = load_recognizer("demo").config.sample_period_us
    assert own_us == 33_333
    assert asked().sample_period_us == 133_333
    assert asked("--period-us", "50000").sample_period_us == 50_000
    for base in ("demo", str(copy)):
        assert asked("--from", base).sample_period_us == own_us
        assert asked("--from", base, "--period-us", "50000").sample_period_us == 50_000
    assert asked("--from", str(copy), "--new-labels").sample_period_us == own_us


def test_new_labels_of_the_demo_are_taught_with_longer_windows_than_its_cards_take() -> None:
    assert asked("--from", "demo", "--new-labels").sample_period_us == 133_333
    assert asked("--from", "demo", "--new-labels", "--period-us", "50000").sample_period_us == 50_000


def test_what_begins_from_a_checkpoint_is_not_calibrated_yet() -> None:
    config = asked("--from", "demo")
    assert (config.temperature, config.unsure_below) == (1.0, 0.0) and config.labels == ("a", "b")
