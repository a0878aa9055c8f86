"""`velora train` and `velora evaluate` on folders, as a person runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.cli import main
from app.evaluate import _rendering
from app.train import is_worse
from streams.endings import ENDINGS
from velora import VELoRAConfig
from velora.checkpoint import load_checkpoint

QUICK = ["--backbone", "demo", "--sampling", "clip", "--epochs", "1", "--batch", "4"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated scenes as HARDVS lays images out."""
    out: Path = tmp_path_factory.mktemp("images") / "set"
    options = ["--scenes", "12", "--seconds", "0.4", "--speed", "medium", "--layout", "images", "--out", str(out)]
    assert main(["simulate", "cards", *options]) == 0
    return out


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    out = images.parent / "checkpoint"
    assert main(["train", "--data", str(images), "--out", str(out), *QUICK]) == 0
    return out


def test_images_train_a_checkpoint(trained: Path, images: Path) -> None:
    config = load_checkpoint(trained).config
    assert config.labels == tuple((images / "classes.txt").read_text().splitlines()) and config.trained
    assert config.exposure_us == 0  # the pictures do not tell
    card = (trained / "README.md").read_text()
    assert str(images) in card and "Validation: top-1" in card and "nearest class mean" in card


def test_it_is_evaluated_in_figures_and_pictures(
    trained: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", str(trained), "--data", str(images), "--protocol", "clip", "--json"]
    assert main([*line, "--report", str(trained / "report")]) == 0
    first = capsys.readouterr().out
    found = json.loads(first)
    assert {"top1", "top5", "windows", "per_class", "ece", "top1_interval"} <= found.keys()
    assert found["windows"] >= 2 and 0 <= found["top1"] <= found["top5"] <= 1
    pictures = {path.name for path in (trained / "report").glob("*.png")}
    assert {"confusion.png", "reliability.png", "per_class.png", "features.png", "films.png"} <= pictures
    assert "| command |" in (trained / "report" / "README.md").read_text()
    assert main(line) == 0
    assert capsys.readouterr().out == first  # to the last digit


def test_recordings_are_evaluated_as_they_are_watched(images: Path, tmp_path: Path) -> None:
    config = VELoRAConfig(("a", "b"), "demo", exposure_us=15_000, rendering={"decay_us": 5})
    assert _rendering(config, str(tmp_path)) == {"window_us": 15_000, "decay_us": 5}
    for rendered in ("cards", str(images)):  # which tell their exposures, or have none
        assert _rendering(config, rendered) == {"decay_us": 5}


def test_modalities_and_a_table(trained: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["evaluate", str(trained), "--data", str(images), "--protocol", "clip"]
    for modality in ("rgb", "event"):
        assert main([*line, "--modality", modality]) == 0
        assert "top-1" in capsys.readouterr().out


def test_the_same_command_goes_on_and_another_is_refused(
    trained: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "adapter.safetensors").read_bytes()
    assert main(["train", "--data", str(images), "--out", str(trained), *QUICK]) == 0
    assert (trained / "adapter.safetensors").read_bytes() == before  # it was over
    assert main(["train", "--data", str(images), "--out", str(trained), *QUICK, "--rate", "0.5"]) == 1
    assert "holds a run with another rate: choose another --out" in capsys.readouterr().err


def test_labels_that_were_corrected_are_another_run(
    trained: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (images / "train_label.txt").read_text()
    swapped = [line.rsplit(None, 1)[0] + f" {1 - min(1, int(line.rsplit(None, 1)[1]))}" for line in rows.splitlines()]
    (images / "train_label.txt").write_text("\n".join(swapped))
    try:
        assert main(["train", "--data", str(images), "--out", str(trained), *QUICK]) == 1
    finally:
        (images / "train_label.txt").write_text(rows)
    assert "holds a run with another clips or their labels" in capsys.readouterr().err


def test_a_folder_with_somebodys_files_is_not_overwritten(
    trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("my thesis")
    line = ["train", "--data", str(images), "--out", str(tmp_path), *QUICK, "--cache", str(trained / ".frames")]
    assert main([*line, "--flip"]) == 1
    said = capsys.readouterr().err
    assert "holds a README.md that no training has written: choose another --out" in said
    assert (tmp_path / "README.md").read_text() == "my thesis"


@pytest.mark.parametrize("name", ["training.json", "nearest_class_mean.json"])
def test_a_note_that_is_cut_off_is_named(
    trained: Path, images: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (trained / name).read_bytes()
    (trained / name).write_bytes(b"[")
    try:
        assert main(["train", "--data", str(images), "--out", str(trained), *QUICK]) == 1
    finally:
        (trained / name).write_bytes(whole)
    assert f"{name} is damaged" in capsys.readouterr().err


def test_new_labels_start_from_the_demo(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--from", "demo", "--sampling", "clip", "--epochs", "1", "--cache", str(images.parent / "cache")]
    assert main(["train", "--data", str(images), "--out", str(tmp_path / "a"), *options, "--adapter", "clora"]) == 1
    assert "--adapter is as the checkpoint has it" in capsys.readouterr().err
    (images / "classes.txt").rename(images / "names.txt")
    try:
        assert main(["train", "--data", str(images), "--out", str(tmp_path / "b"), *options]) == 1
        assert "train with --new-labels" in capsys.readouterr().err
        more = ["--new-labels", "--period-us", "50000"]
        assert main(["train", "--data", str(images), "--out", str(tmp_path / "b"), *options, *more]) == 0
    finally:
        (images / "names.txt").rename(images / "classes.txt")
    assert "nearest class mean" in capsys.readouterr().err
    config = load_checkpoint(tmp_path / "b").config
    assert config.labels[0].startswith(("action_", "class ")) and config.sample_period_us == 50_000


def test_progress_and_result_are_json_lines(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--from", "demo", "--new-labels", "--sampling", "clip", "--epochs", "1", "--w-rec", "0", "--json"]
    (images / "classes.txt").rename(images / "names.txt")
    try:
        assert main(["train", "--data", str(images), "--out", str(tmp_path / "a"), *options]) == 0
    finally:
        (images / "names.txt").rename(images / "classes.txt")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in said)) == [
        "reading",
        "starting",
        "training",
        "finishing",
        "done",
    ]
    read = [line for line in said if line["phase"] == "reading"]
    assert {line["split"] for line in read} == {"train", "val"} and read[-1]["step"] == read[-1]["steps"]
    trained = [line for line in said if line["phase"] == "training"]
    assert [line["step"] for line in trained] == list(range(1, trained[-1]["steps"] + 1))
    assert trained[-1]["seconds_left"] == 0 and 0 <= trained[-1]["validation"] <= 1 and trained[-1]["loss"] > 0
    done, summary = said[-1], json.loads((tmp_path / "a" / "summary.json").read_text())
    assert done["out"] == str(tmp_path / "a") and done["steps"] == trained[-1]["steps"]
    assert {name: done[name] for name in summary} == summary and 0 <= done["validation_top1"] <= 1
    assert done["validation_top1"] >= done["nearest_class_mean"] - 1e-6  # else what it began with is kept
    assert said[len(read)]["nearest_class_mean"] == done["nearest_class_mean"]


def test_a_log_gets_a_line_now_and_then(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.train_progress._EVERY_S", 0.0)
    assert main(["train", "--data", str(images), "--out", str(tmp_path / "a"), *QUICK]) == 0
    lines = re.findall(r"^step (\d+) of (\d+), epoch .* clips/s, .* (\d+) min left$", capsys.readouterr().err, re.M)
    steps = int(lines[0][1])
    assert [(int(step), int(of)) for step, of, _ in lines] == [(k, steps) for k in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("best", "baseline", "worse"), [(0.5, 0.75, True), (0.75, 0.75, False), (0.8, 0.75, False), (None, 0.75, False)]
)
def test_what_training_made_worse_is_not_kept(best: float | None, baseline: float, worse: bool) -> None:
    assert is_worse(best, baseline) == worse and not is_worse(best, None)


def test_a_run_below_its_untrained_baseline_says_so_and_what_helps(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.train.nearest_class_mean", lambda *_, **__: 1.01)  # which nothing reaches
    line = ["train", "--data", str(images), "--out", str(tmp_path), "--cache", str(images.parent / "cache")]
    assert main([*line, *QUICK]) == 0
    assert "worse than the nearest class mean as yet: try more --epochs" in capsys.readouterr().err


@pytest.mark.parametrize("number", ENDINGS)
def test_ctrl_c_or_a_request_to_all_of_it_stops_cleanly_and_the_run_goes_on(
    images: Path, tmp_path: Path, number: signal.Signals
) -> None:
    line = ["train", "--data", str(images), "--out", str(tmp_path / "run"), *QUICK, "--epochs", "40", "--patience", "0"]
    line += ["--cache", str(images.parent / "checkpoint" / ".frames")]
    heed = f"import signal; signal.signal({int(number)}, signal.SIG_DFL)"  # it may be ignored in a background job
    code = f"{heed}; import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    program = [sys.executable, "-c", code, *line]
    root = Path(__file__).parents[2]
    running = subprocess.Popen(program, cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    log = tmp_path / "run" / "tensorboard"  # begins with the training itself
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5)
    os.killpg(running.pid, number)  # as terminals, `timeout` and schedulers do: those that read windows hear it, too
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in said
    assert (tmp_path / "run" / "training.pt").exists()


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--data", str(tmp_path), "--backbone", "demo"], "holds neither labels.csv nor train_label.txt"),
        (["--data", "nowhere", "--backbone", "demo"], "nowhere is no folder"),
        (["--data", "cards", "--new-labels"], "--new-labels needs --from"),
        (["--data", "cards", "--backbone", "demo", "--clips", "1", "--rate", "-1"], "rate must be 0 or more"),
    ):
        assert main(["train", "--out", str(tmp_path / "out"), *options]) == 1
        assert message in capsys.readouterr().err


def test_images_that_are_rendered_already_are_not_rendered_otherwise(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "--data", str(images), "--out", str(tmp_path), "--max-window-us", "8000", *QUICK]
    assert main(line) == 1
    assert "are rendered already" in capsys.readouterr().err
