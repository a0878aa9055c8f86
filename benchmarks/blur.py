"""How much frames are blurred in simulated scenes, and whether a model is right less often where they are.

    python benchmarks/blur.py --cache frames                                    # the bundled model, RGB alone
    python benchmarks/blur.py --cache frames --model DIR --modality both

Blur is the way of a card's middle in pixels while a frame is exposed: the diagonal of the box that holds it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from cards import SPLIT, conditions, opened
from numpy.typing import NDArray

from app.datasets import CardOptions
from streams.simulation.scenes import SENSOR, CardScene, scene
from velora import Recognizer, load_recognizer
from velora.training.evaluate import answer

BINS = (0, 5, 10, 15, np.inf)  # pixels
_STEP_US = 1_000


def main() -> None:
    """Print blurs, and the share of right windows by the blur of the sharpest of their frames."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--modality", choices=["both", "rgb", "event"], default="rgb")
    parser.add_argument("--clips", type=int, default=50, help="scenes of each cell (default: %(default)s)")
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    model = load_recognizer(arguments.model)
    for cell, options in conditions(arguments.clips).items():
        blurs, right = look(model, options, arguments.modality, arguments.cache)
        sharpest = blurs.min(axis=1)
        shares = [right[(low <= sharpest) & (sharpest < high)] for low, high in zip(BINS, BINS[1:], strict=False)]
        told = ", ".join(f"{own.mean():.1%} of {len(own)}" if len(own) else "none" for own in shares)
        print(f"{cell}: blurred by {np.median(blurs):.1f} px, the sharpest of a window by ", end="")
        print(f"{np.median(sharpest):.1f} (medians); right by the sharpest, below 5, 10, 15, beyond: {told}")


def look(
    model: Recognizer, options: CardOptions, modality: str, cache: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of windows that show a card: the blur of their frames, [n, T], and whether the model is right, [n]."""
    data = opened(model, model.config.rendering, options, cache)
    found = answer(model, data, "stream", modality=modality)
    scenes = [scene(SPLIT, options.first + k, light=options.light, speed=options.speed) for k in range(len(data.clips))]
    shown = [k for k in range(len(found.truth)) if model.config.labels[found.truth[k]] != "no card"]
    ends_us = [found.t_end_us[k] - np.arange(model.config.frames) * (model.config.sample_period_us or 0) for k in shown]
    blurs = [[blur(scenes[found.clips[k]], int(end)) for end in ends] for k, ends in zip(shown, ends_us, strict=True)]
    return np.array(blurs), (found.logits.argmax(axis=1) == found.truth)[shown]


def blur(of: CardScene, end_us: int) -> float:
    """Pixels that the card moves while a frame is exposed that ends then."""
    (card,) = (actor for actor in of.cast if actor.label)
    places = card.poses(np.arange(end_us - of.exposure_us, end_us, _STEP_US))[:, :2] * np.array(SENSOR)
    return float(np.linalg.norm(np.ptp(places, axis=0)))


if __name__ == "__main__":
    main()
