"""What the bundled model says of real recordings that show no cards: "no card", or "unsure".

    python benchmarks/strangers.py FOLDER          # every .aedat4 in it

Where a recording is too short for windows of the trained spacing, its samples are taken one after the other.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from streams import RenderConfig, Sample, open_source, synchronize
from streams.errors import StreamError
from streams.simulation.cards import NO_CARD
from velora import Prediction, Recognizer, load_recognizer


def main() -> None:
    """Print a line a recording, and the share over all windows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="demo")
    arguments = parser.parse_args()
    model = load_recognizer(arguments.model)
    total: Counter[str] = Counter()
    for path in sorted(arguments.folder.glob("*.aedat4")):
        try:
            said = Counter("unsure" if p.unsure else p.label for p in predictions(model, path))
        except StreamError as error:
            print(error)
            continue
        total += said
        print(f"{path.name}: {sum(said.values())} windows: {', '.join(f'{k} {n}' for k, n in said.most_common())}")
    right = total[NO_CARD] + total["unsure"]
    print(f"{right / max(total.total(), 1):.1%} of {total.total()} windows are {NO_CARD} or unsure")


def predictions(model: Recognizer, path: Path) -> list[Prediction]:
    """A label for every sample that ends a window."""
    with open_source(path) as source:
        samples = list(synchronize(source, render=RenderConfig(**model.config.rendering)))
        stride = model.config.stride_for(source.sample_period_us)
    if len(samples) <= (model.config.frames - 1) * stride:
        stride = max(1, (len(samples) - 1) // (model.config.frames - 1))
    return _pushed(model, samples, stride)


def _pushed(model: Recognizer, samples: list[Sample], stride: int) -> list[Prediction]:
    session = model.open(stride=stride)
    return [prediction for sample in samples if (prediction := session.push(sample)) is not None]


if __name__ == "__main__":
    main()
