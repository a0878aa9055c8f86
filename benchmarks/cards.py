"""How good the bundled model is on simulated scenes that it was not trained on: light x speed x modality.

    python -m benchmarks.cards --clips 50 --cache frames [--rgb-only CHECKPOINT] [--json]

At most five windows a scene; intervals by resampling scenes. `--rgb-only` names a model of the same budget that was
trained with events blank (`velora train … --modality rgb`): RGB alone is the better of it and of the bundled one
without events.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.datasets import CardOptions, open_dataset
from streams.simulation.scenes import LIGHTS, SPEEDS
from velora import Recognizer, load_recognizer
from velora.training import metrics
from velora.training.clips import ClipSet
from velora.training.evaluate import answer


def main() -> None:
    """Print a table, or a JSON object a cell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rgb-only", metavar="CHECKPOINT")
    parser.add_argument("--clips", type=int, default=50, help="scenes of each cell (default: %(default)s)")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = list(cells(arguments))
    if arguments.json:
        for row in rows:
            print(json.dumps(row))
        return
    print("| light | speed | both | RGB alone | events alone | scenes |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        shown = (f"{row[name][0]:.1%} ({row[name][1]:.1%} to {row[name][2]:.1%})" for name in ("both", "rgb", "event"))
        print(f"| {row['light']} | {row['speed']} | {' | '.join(shown)} | {row['scenes']} |", flush=True)


def cells(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Top-1 with its interval in every cell, and over all of them."""
    model = load_recognizer(arguments.model)
    other = load_recognizer(arguments.rgb_only) if arguments.rgb_only else None
    for light in LIGHTS:
        for speed in SPEEDS:
            data = open_dataset(
                "cards",
                "test",
                arguments.cache,
                size=model.model.tower.backbone.image_size,
                rendering=dict(model.config.rendering),
                labels=model.config.labels,
                options=CardOptions(clips=arguments.clips, light=light, speed=speed),
            )
            row: dict[str, Any] = {"light": light, "speed": speed, "scenes": len(data.clips)}
            row |= {modality: top1(model, data, modality) for modality in ("both", "rgb", "event")}
            if other is not None:
                row["rgb"] = max(row["rgb"], top1(other, data, "rgb"))
            yield row


def top1(model: Recognizer, data: ClipSet, modality: str) -> tuple[float, float, float]:
    """Top-1 and the ends of its 95 % interval."""
    found = answer(model, data, "stream", modality=modality)
    right = found.logits.argmax(axis=1) == found.truth
    return float(right.mean()), *metrics.bootstrap(right, found.clips)


if __name__ == "__main__":
    main()
