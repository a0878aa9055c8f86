"""The bundled model on what it was not trained on: the bundled recording, and scenes of the test split."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np

from app.cli import main
from streams import RenderConfig, open_source, synchronize
from streams.simulation.scenes import SceneSource, scene
from velora import Prediction, load_recognizer
from velora.recognizer import Recognizer

RECORDINGS = Path(__file__).parents[2] / "recordings"


def predictions(recognizer: Recognizer, source: object, stride: int) -> list[Prediction]:
    render = RenderConfig(**recognizer.config.rendering)
    session = recognizer.open(stride=stride)
    return [p for s in synchronize(source, render=render) if (p := session.push(s))]  # type: ignore[arg-type]


def test_it_names_the_cards_of_the_bundled_recording() -> None:
    with open(RECORDINGS / "cards.labels.csv", newline="") as file:
        spans = [(int(row["start_us"]), int(row["end_us"]), row["label"]) for row in csv.DictReader(file)]
    with open_source(RECORDINGS / "cards.aedat4") as source:
        said = predictions(load_recognizer("demo", device="cpu"), source, 4)
    whole = [(p, label) for p in said for start, end, label in spans if start <= p.t_start_us and p.t_end_us <= end]
    shares = {label: np.mean([p.label == label for p, own in whole if own == label]) for _, label in whole}
    assert len(whole) > 200
    assert np.mean([p.label == label for p, label in whole]) > 0.5, shares


def test_it_is_evaluated_on_recordings_and_told_how_soon_it_follows(tmp_path: Path, capsys) -> None:
    (tmp_path / "set" / "test").mkdir(parents=True)
    for name in ("cards.aedat4", "cards.labels.csv"):
        shutil.copy(RECORDINGS / name, tmp_path / "set" / "test")
    line = ["evaluate", "demo", "--data", str(tmp_path / "set"), "--device", "cpu", "--cache", str(tmp_path / "cache")]
    assert main([*line, "--report", str(tmp_path / "report")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "report" / "scores.json").read_text())
    delay = found["delay_ms"]
    assert delay["changes"] >= 5 and delay["followed"] > delay["changes"] // 2 and 100 < delay["median"] < 1500
    assert f"labels follow {delay['followed']} of {delay['changes']} changes, after {delay['median']:.0f} ms" in told
    assert found["top1_interval"] is None and "one clip: no interval" in told
    assert "| label changes followed |" in (tmp_path / "report" / "README.md").read_text()


def test_it_names_cards_of_scenes_that_it_has_not_seen() -> None:
    recognizer = load_recognizer("demo", device="cpu")
    right = []
    for number in range(8):
        own = scene("test", number, light="normal", speed="slow")
        last = predictions(recognizer, SceneSource(own), 4)[-1]
        right.append(last.label == own.labels[-1][2])
    assert sum(right) >= 4, right
