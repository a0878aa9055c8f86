"""The report of an evaluation: files of fabricated answers, and which windows are shown."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.report import Evaluation, NoMatplotlib, bubble_chart, choose_films, write_report

pytest.importorskip("matplotlib")

PICTURES = ["confusion.png", "features.png", "films.png", "motion.png", "per_class.png", "reliability.png"]


def fabricate(classes: int, windows: int, *, absent: int | None = None, skill: float = 2.0) -> Evaluation:
    """Answers on windows of five to a clip; none is of class `absent`, all are wrong where skill is very low."""
    rng = np.random.default_rng(classes)
    truth = np.repeat(rng.integers(classes, size=-(-windows // 5)), 5)[:windows]
    truth[truth == absent] = 0
    odds = np.exp(rng.normal(size=(windows, classes)) + skill * np.eye(classes)[truth])
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    features = rng.normal(size=(windows, 16)) + 3 * rng.normal(size=(classes, 16))[truth]
    return Evaluation(
        labels=tuple(f"class {k}" for k in range(classes)),
        probabilities=probabilities,
        truth=truth,
        clips=[f"clip{k // 5}" for k in range(windows)],
        features=features.astype(np.float32),
        featured=np.arange(len(features)),
        films={k: film(k) for k in choose_films(probabilities, truth, 4)},
        unsure_below=0.5,
        delay_ms={"median": 412.0, "changes": 7, "followed": 6},
        notes={"model": "fabricated", "command": "velora evaluate <MODEL> | tee log"},
    )


def film(seed: int) -> np.ndarray:
    """A dark square that moves over noise, and its outline on white; uint8 [T, 2, S, S, 3]."""
    images = np.full((8, 2, 64, 64, 3), 255, np.uint8)
    images[:, 0] = np.random.default_rng(seed).integers(90, 200, (64, 64, 3))
    for t in range(8):
        images[t, 0, 20:40, 5 * t : 5 * t + 20] = 30
        images[t, 1, 20:40, 5 * t] = (255, 0, 0)
        images[t, 1, 20:40, 5 * t + 20] = (0, 0, 255)
    return images


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("classes", "windows"), [(3, 60), (300, 900)])
def test_every_file_is_written_and_whole(classes: int, windows: int, tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "report", fabricate(classes, windows), title="Fabricated")
    folder = tmp_path / "new" / "report"
    assert written(folder) == sorted(["README.md", "scores.json", *PICTURES])
    for name in PICTURES:
        with Image.open(folder / name) as image:
            image.load()
            assert image.format == "PNG" and min(image.size) >= 300 and max(image.size) < 4000
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# Fabricated\n") and "| model | fabricated |" in readme
    assert sorted(re.findall(r"!\[[^]]+\]\(([^)]+)\)", readme)) == PICTURES
    assert all(f"| class {k} |" in readme for k in range(classes))
    assert r"velora evaluate \<MODEL\> \| tee log" in readme


def test_the_figures_are_those_of_the_metrics(tmp_path: Path) -> None:
    three = fabricate(3, 2)
    three = dataclasses.replace(
        three,
        probabilities=np.array([[0.8, 0.1, 0.1], [0.4, 0.35, 0.25]]),
        truth=np.array([0, 1]),
        clips=["one", "one"],
        films={},
    )
    write_report(tmp_path, three, title="Two windows")
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert (scores["top1"], scores["windows"], scores["unsure"]) == (0.5, 2, 0.5)
    assert scores["per_class"]["class 2"]["recall"] is None
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| top-1 | **50.0%** (one clip: no interval) |" in readme
    assert "| 50.0%; right among the others: 100.0% |" in readme
    assert "| class 0 | 1 | 100.0% | 50.0% | 66.7% |" in readme and "| class 2 | 0 | - | - | - |" in readme


@pytest.mark.parametrize(
    "evaluation",
    [
        fabricate(4, 40, absent=2),
        fabricate(3, 30, skill=-50.0),  # everything wrong
        fabricate(1, 10),
        fabricate(2, 1),
        fabricate(20, 40),
        dataclasses.replace(fabricate(2, 10), features=np.zeros((10, 1), np.float32)),
        dataclasses.replace(fabricate(2, 10), labels=("$5$ and $", "a\nb " + "long " * 20)),
    ],
    ids=["absent class", "all wrong", "one class", "one window", "20 classes", "no variance", "odd labels"],
)
def test_odd_evaluations_are_drawn(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report(tmp_path, evaluation, title="Odd")
    assert written(tmp_path) == sorted(["README.md", "scores.json", *PICTURES])


def test_what_there_is_nothing_to_draw_of_is_left_out_also_from_an_earlier_report(tmp_path: Path) -> None:
    whole = fabricate(3, 20)
    write_report(tmp_path, whole, title="Whole")
    still = {k: images[:1] for k, images in whole.films.items()}
    write_report(tmp_path, dataclasses.replace(whole, films=still), title="Still")
    assert "motion.png" not in written(tmp_path) and "films.png" in written(tmp_path)
    write_report(tmp_path, dataclasses.replace(whole, films={}, features=None), title="Bare")
    bare = ["confusion.png", "per_class.png", "reliability.png"]
    assert written(tmp_path) == sorted(["README.md", "scores.json", *bare])
    assert sorted(re.findall(r"\((\w+\.png)\)", (tmp_path / "README.md").read_text(encoding="utf-8"))) == bare


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, fabricate(3, 30), title="Same")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_windows_leave_no_folder(tmp_path: Path) -> None:
    empty = dataclasses.replace(fabricate(2, 5), probabilities=np.empty((0, 2)), truth=np.empty(0, int), clips=[])
    with pytest.raises(ValueError, match="no windows"):
        write_report(tmp_path / "report", empty, title="Empty")
    assert written(tmp_path) == []


def test_films_are_the_best_and_the_worst() -> None:
    confidence = np.array([0.6, 0.9, 0.7, 0.9, 0.8, 0.95])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    truth = np.array([0, 0, 0, 0, 1, 1])
    assert choose_films(probabilities, truth, 4) == [1, 3, 5, 4]
    assert choose_films(probabilities, truth, 3) == [1, 3, 5]
    assert choose_films(probabilities, truth, 5) == [1, 3, 2, 5, 4]
    assert choose_films(probabilities, np.zeros(6, int), 4) == [5, 1, 3, 4]  # none is wrong
    assert choose_films(probabilities, np.ones(6, int), 4) == [5, 1, 3, 4]  # none is right
    assert choose_films(probabilities, truth, 50) == [1, 3, 2, 0, 5, 4]


def test_bubbles(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "bubbles.png"
    bubble_chart(path, [("LoRA", 3600.0, 0.81, 1_234_290), ("none", 600.0, 0.6, 175_218)])
    with Image.open(path) as image:
        image.load()
    assert written(path.parent) == ["bubbles.png"]
    with pytest.raises(ValueError, match="nothing to draw"):
        bubble_chart(path, [])


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NoMatplotlib, match=r"pip install 'velora-rgbe\[train\]'"):
        write_report(tmp_path / "report", fabricate(2, 5), title="None")
    assert written(tmp_path) == []
