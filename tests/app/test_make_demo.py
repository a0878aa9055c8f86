"""The recipe of the demo's model: the same road as for the real one, with a few steps of each stage."""

from __future__ import annotations

import re
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from app.make_demo import BACKBONE, main
from app.pretrain import WINDOW_UNTIL, Pretraining
from velora import load_recognizer
from velora.checkpoint import load_checkpoint
from velora.weights import load_tower


def log_of(out: Path) -> Path:
    """Where a run's stderr is kept."""
    return out.with_suffix(".log")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("recipe")
    with pytest.MonkeyPatch.context() as patch, log_of(out).open("w", encoding="utf-8") as log, redirect_stderr(log):
        patch.setattr("app.train_progress._EVERY_S", 0.0)
        assert main(["--out", str(out), "--quick"]) == 0
    return out


def test_where_stderr_is_no_terminal_each_stage_tells_of_itself(made: Path) -> None:
    text = log_of(made).read_text(encoding="utf-8")
    assert "\nstills: 256 of 256\n" in text
    assert re.search(r"^step \d+ of \d+, backbone: loss [\d.]+, [\d.]+% of held-out stills right$", text, re.MULTILINE)
    assert re.search(r"^step \d+ of \d+, epoch [\d.]+: loss", text, re.MULTILINE)


def test_a_quick_recipe_makes_a_checkpoint_and_a_backbone(made: Path) -> None:
    checkpoint = load_checkpoint(made / "checkpoint")
    assert checkpoint.config.backbone == "demo" and checkpoint.config.trained
    assert checkpoint.config.labels == load_recognizer("demo").config.labels
    assert 0 < checkpoint.config.unsure_below <= 0.9
    assert checkpoint.config.exposure_us == 8_000
    load_tower("demo", file=made / BACKBONE)
    sizes = [path.stat().st_size for path in (made / BACKBONE, *(made / "checkpoint").glob("*.*"))]
    assert sum(sizes) < 12e6


def test_what_is_done_is_not_done_again(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [made / BACKBONE, made / "recipe.json", *(made / "stills").iterdir(), *(made / "frames").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert main(["--out", str(made), "--quick"]) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_plan_of_the_real_one_fits_its_time_at_the_rates_of_two_cores() -> None:
    plan = Pretraining()
    whole = (1 - WINDOW_UNTIL) * plan.images
    assert (plan.images - whole) / 240 + whole / 120 + plan.stills / 90 < 70 * 60


def test_another_recipe_is_not_gone_on_with(made: Path) -> None:
    with pytest.raises(SystemExit, match="other settings"):
        main(["--out", str(made), "--seed", "1", "--quick"])
