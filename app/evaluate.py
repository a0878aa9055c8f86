"""`velora evaluate`: how good a checkpoint is on labelled clips, in figures and pictures."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from app.console import Console
from app.datasets import CardOptions, is_rendered, open_dataset
from app.model import live_rendering, load_model
from app.report import Evaluation, choose_films, empty_figure, write_report
from velora import Recognizer, VELoRAConfig
from velora.training import metrics
from velora.training.clips import ClipSet
from velora.training.evaluate import Answers, answer, follow

_FILMS = 6
_MOST = 5  # windows of a clip


def evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate, and print a table or JSON. Raises ValueError, ModelError and NoMatplotlib for what does not fit."""
    if arguments.data.startswith("cards:"):
        arguments.data, _, arguments.split = arguments.data.partition(":")
    if arguments.report is not None:
        empty_figure(1, 1)  # raises before hours were spent
    recognizer = load_model(arguments)
    config = recognizer.config
    data = open_dataset(
        arguments.data,
        arguments.split,
        arguments.cache or Path.home() / ".cache" / "velora" / "frames",
        size=recognizer.model.tower.backbone.image_size,
        rendering=_rendering(config, arguments.data),
        labels=config.labels,
        options=CardOptions(clips=arguments.clips, light=arguments.light, speed=arguments.speed),
    )
    for line in data.skipped:
        print(f"velora: left out: {line}", file=sys.stderr)
    with Progress(console=Console(stderr=True)) as bar:
        answers = answer(
            recognizer,
            data,
            arguments.protocol,
            modality=arguments.modality,
            most=_MOST,
            features=arguments.report is not None,
            told=_telling(bar, f"evaluating {len(data.clips)} clips"),
        )
        delay = None
        if arguments.protocol == "stream":
            told = _telling(bar, "following changes")
            delay = delay_ms(follow(recognizer, data, modality=arguments.modality, told=told))
            told(1, 1)  # also where nothing changes
    probabilities = answers.probabilities(config.temperature)
    scores = metrics.score(probabilities, answers.truth, config.labels, unsure_below=config.unsure_below)
    low, high = metrics.bootstrap(probabilities.argmax(axis=1) == answers.truth, answers.clips)
    interval = None if math.isnan(low) else [low, high]
    found = metrics.to_json(scores) | {"top1_interval": interval, "clips": len(data.clips), "delay_ms": delay}
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False), flush=True)
    else:
        _show(found)
    if arguments.report is not None:
        _report(arguments, recognizer, data, answers, probabilities, delay)
    return 0


def _rendering(config: VELoRAConfig, data: str) -> dict[str, object]:
    """Of recordings as live; simulated scenes tell their exposures, and folders of images are drawn already."""
    return dict(config.rendering) if data == "cards" or is_rendered(data) else live_rendering(config)


def _telling(bar: Progress, title: str) -> Callable[[int, int], None]:
    task = bar.add_task(title)
    return lambda done, total: bar.update(task, completed=done, total=total)


def delay_ms(waited: Sequence[int | None]) -> dict[str, float | int | None]:
    """How long after a change of what can be seen the label follows, where it does: the median, and how many do."""
    followed = [delay for delay in waited if delay is not None]
    median = float(np.median(followed)) / 1e3 if followed else None
    return {"median": median, "changes": len(waited), "followed": len(followed)}


def _report(
    arguments: argparse.Namespace,
    recognizer: Recognizer,
    data: ClipSet,
    answers: Answers,
    probabilities: NDArray[np.float64],
    delay: Mapping[str, float | int | None] | None,
) -> None:
    config = recognizer.config
    films = {
        k: data.clips[answers.clips[k]].images(answers.indices[k])
        for k in choose_films(probabilities, answers.truth, _FILMS)
    }
    notes = {
        "model": recognizer.name,
        "data": f"{arguments.data}, split {arguments.split}",
        "protocol": arguments.protocol,
        "modality": arguments.modality,
        "windows": str(len(answers.truth)),
        "device": f"{recognizer.device}, {recognizer.dtype}".replace("torch.", ""),
        "backbone": config.backbone,
        "command": " ".join(["velora", *sys.argv[1:]]),
    }
    if recognizer.random_parts:
        notes["weights"] = f"RANDOM: {', '.join(recognizer.random_parts)}"
    write_report(
        arguments.report,
        Evaluation(
            labels=config.labels,
            probabilities=probabilities,
            truth=answers.truth,
            clips=[data.clips[k].name for k in answers.clips],
            features=answers.features,
            featured=answers.featured,
            films=films,
            unsure_below=config.unsure_below,
            delay_ms=delay,
            notes=notes,
        ),
        title=f"{recognizer.name} on {arguments.data}",
    )
    print(f"{arguments.report}: README.md and pictures", file=sys.stderr)


def _show(found: dict[str, object]) -> None:
    console, table = Console(), Table("label", "windows", "recall", "precision", "f1")
    per_class = found["per_class"]
    assert isinstance(per_class, dict)
    for label, row in per_class.items():
        table.add_row(Text(label), f"{row['windows']:.0f}", *(_percent(row[k]) for k in ("recall", "precision", "f1")))
    console.print(table)
    interval = found["top1_interval"]
    low, high = interval if isinstance(interval, list) else (math.nan, math.nan)
    top5 = f", top-5 {_percent(found['top5'])}" if len(per_class) > metrics.TOP else ""
    console.print(
        f"top-1 {_percent(found['top1'])} ({metrics.told_interval(low, high)}){top5} of "
        f"{found['windows']} windows of {found['clips']} clips; calibration error {_percent(found['ece'])}; "
        f"unsure {_percent(found['unsure'])}{_followed(found['delay_ms'])}"
    )


def _followed(delay: object) -> str:
    if not isinstance(delay, dict) or not delay["changes"]:
        return ""
    after = f", after {delay['median']:.0f} ms in the middle" if delay["followed"] else ""
    return f"; labels follow {delay['followed']} of {delay['changes']} changes{after}"


def _percent(value: object) -> str:
    return "" if value is None else f"{float(str(value)):.1%}"
