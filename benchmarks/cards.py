"""How good models are on simulated scenes that they were not trained on: light x speed x modality.

    python benchmarks/cards.py --cache frames [--models demo SEED1 SEED2] [--rgb-only RGB0 RGB1 RGB2] [--whole] [--json]

At most five windows a scene; intervals by resampling scenes. The first model has the table of light and speed; all of
them, which differ in their seeds, have a row each in the second one. `--rgb-only` names models of the same budget that
were trained with events blank (`velora train … --modality rgb`): RGB alone is the better of such a one and of the other
without events. `--whole` adds the first model with event images of whole exposures, not of their last milliseconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets import CardOptions, open_dataset
from streams.simulation.scenes import LIGHTS, SPEEDS
from velora import Recognizer, load_recognizer
from velora.training import metrics
from velora.training.clips import ClipSet
from velora.training.evaluate import answer

NORMAL, DARK, FAST = "normal", "dark", "fast"
MODALITIES = {"both": "both", "rgb": "RGB alone", "event": "events alone"}
Cell = tuple[str, str]


@dataclass(frozen=True)
class Share:
    """Of the windows of some scenes, which were right."""

    right: NDArray[np.bool_]
    clips: NDArray[np.int64]

    @property
    def top1(self) -> float:
        return float(self.right.mean())

    def interval(self) -> tuple[float, float]:
        """95 %, by resampling scenes."""
        return metrics.bootstrap(self.right, self.clips)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.top1:.1%} ({low:.1%} to {high:.1%})"


Answers = dict[str, dict[Cell, Share]]  # by modality


def main() -> None:
    """Print two tables, or a JSON object a row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["demo"], metavar="MODEL")
    parser.add_argument("--rgb-only", nargs="*", default=[], metavar="MODEL", help="as many as --models")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--clips", type=int, default=50, help="scenes of each cell (default: %(default)s)")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    models = [load_recognizer(name) for name in arguments.models]
    rendering = dict(models[0].config.rendering)
    sets = cells(models[0], rendering, arguments.clips, arguments.cache)
    found = [answers_of(model, sets, MODALITIES) for model in models]
    for own, name in zip(found, arguments.rgb_only, strict=False):
        own["rgb"] = better(own["rgb"], answers_of(load_recognizer(name), sets, ["rgb"])["rgb"])
    rows = [*grid(found[0]), *headlines(found)]
    if arguments.whole:
        whole = cells(models[0], rendering | {"max_window_us": None}, arguments.clips, arguments.cache)
        rows.append(headline("whole exposures", answers_of(models[0], whole, MODALITIES)))
    print("\n".join(json.dumps(row) for row in rows) if arguments.json else as_tables(rows))


def cells(model: Recognizer, rendering: dict[str, Any], clips: int, cache: Path) -> dict[Cell, ClipSet]:
    """The scenes of each light and speed."""
    return {
        (light, speed): open_dataset(
            "cards",
            "test",
            cache,
            size=model.model.tower.backbone.image_size,
            rendering=rendering,
            labels=model.config.labels,
            options=CardOptions(clips=clips, light=light, speed=speed),
        )
        for light in LIGHTS
        for speed in SPEEDS
    }


def answers_of(model: Recognizer, sets: dict[Cell, ClipSet], modalities: Sequence[str] | dict[str, str]) -> Answers:
    """What a model says, by modality and cell."""
    return {modality: {cell: share_of(model, data, modality) for cell, data in sets.items()} for modality in modalities}


def share_of(model: Recognizer, data: ClipSet, modality: str) -> Share:
    """One cell's."""
    found = answer(model, data, "stream", modality=modality)
    return Share(found.logits.argmax(axis=1) == found.truth, found.clips)


def better(one: dict[Cell, Share], other: dict[Cell, Share]) -> dict[Cell, Share]:
    """Of two models the better one in each cell."""
    return {cell: max(one[cell], other[cell], key=lambda share: share.top1) for cell in one}


def pooled(shares: dict[Cell, Share], light: str | None = None) -> Share:
    """All cells together, or those of one light."""
    own = [share for cell, share in shares.items() if light in (None, cell[0])]
    numbers = [share.clips + 100_000 * k for k, share in enumerate(own)]  # scenes of two cells are two
    return Share(np.concatenate([share.right for share in own]), np.concatenate(numbers))


def grid(found: Answers) -> list[dict[str, Any]]:
    """A row for each light and speed."""
    return [
        {"light": light, "speed": speed, "scenes": len(np.unique(share.clips))}
        | {modality: shown(found[modality][light, speed]) for modality in MODALITIES}
        for (light, speed), share in found["both"].items()
    ]


def headlines(found: Sequence[Answers]) -> list[dict[str, Any]]:
    """A row for each seed, and their mean with its spread."""
    rows = [headline(f"seed {k}", own) for k, own in enumerate(found)]
    if len(rows) > 1:
        names = [name for name in rows[0] if name != "model"]
        values = np.array([[row[name]["top1"] for name in names] for row in rows])
        spread = values.std(axis=0, ddof=1)
        mean = {
            n: {"top1": m, "shown": f"{m:.1%} ± {s:.1%}"} for n, m, s in zip(names, values.mean(0), spread, strict=True)
        }
        rows.append({"model": "mean, standard deviation"} | mean)
    return rows


def headline(name: str, found: Answers) -> dict[str, Any]:
    """What was promised of a model."""
    return {
        "model": name,
        "all": shown(pooled(found["both"])),
        "normal light": shown(pooled(found["both"], NORMAL)),
        **{f"dark and fast, {words}": shown(found[m][DARK, FAST]) for m, words in MODALITIES.items()},
    }


def shown(share: Share) -> dict[str, Any]:
    """For JSON, and for a table."""
    return {"top1": share.top1, "interval": share.interval(), "shown": str(share)}


def as_tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: rows of the same columns are a table."""
    lines: list[str] = []
    before: list[str] = []
    for row in rows:
        if list(row) != before:
            before = list(row)
            heads = [MODALITIES.get(name, name) for name in row]
            lines += ["", f"| {' | '.join(heads)} |", "| " + " | ".join("---" for _ in row) + " |"]
        texts = [str(value["shown"] if isinstance(value, dict) else value) for value in row.values()]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines[1:])


if __name__ == "__main__":
    main()
