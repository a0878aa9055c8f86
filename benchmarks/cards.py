"""How good models are on simulated scenes that they were not trained on: light x speed x modality.

    python benchmarks/cards.py --cache frames                                             # the bundled model, "seed 0"
    python benchmarks/cards.py --cache frames --whole --as "seed 0, whole exposures"
    python benchmarks/cards.py --cache frames --model DIR --as "seed 1"
    python benchmarks/cards.py --cache frames --model DIR --as "RGB only, seed 1" --modality rgb

Which windows a model gets right is kept in docs/cards.json, so that models that take hours to train may be asked on
different days; docs/cards.md is written from all that is there. `--whole` draws all events of an exposure, not those of
its last milliseconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.datasets import CardOptions, open_dataset
from streams.files import replaced_when_whole
from streams.simulation.scenes import LIGHTS, SPEEDS
from velora import Recognizer, load_recognizer
from velora.training import metrics
from velora.training.clips import ClipSet
from velora.training.evaluate import answer

DOCS = Path(__file__).parents[1] / "docs"
KEPT, TABLES = DOCS / "cards.json", DOCS / "cards.md"
SPLIT = "test"
NORMAL, DARK_FAST = "normal ", "dark fast"
MODALITIES = {"both": "both", "rgb": "RGB alone", "event": "events alone"}
SEED, RGB_ONLY, BUNDLED = "seed ", "RGB only, ", "seed 0"
_ABOUT = """\
Top-1 of windows, at most five a scene, with 95 % intervals by resampling scenes. Seed 0 is the model that the package
brings; other seeds are other trainings of its adapters; "made anew" is its recipe run another time, backbone
included; "whole exposures" is read with all events of an exposure, not those of its last milliseconds. "RGB only" are
models of the same budget that were trained with events blank: in the rows of the seeds RGB alone is, in each cell,
the better of such a one and of the seed's own model without events. Written by `python benchmarks/cards.py`, as is
`cards.json`, which has every window."""
#: which windows are right, by modality and cell ("dark fast"): a word a scene, a "1" or "0" a window
Answers = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Share:
    """Of the windows of some scenes, those that are right."""

    right: NDArray[np.bool_]
    scenes: NDArray[np.int64]

    @classmethod
    def of(cls, answers: Mapping[str, str], begin: str = "") -> Share:
        """All cells whose names begin so."""
        words = " ".join(words for cell, words in answers.items() if cell.startswith(begin)).split()
        right = np.array([letter == "1" for letter in "".join(words)])
        return cls(right, np.repeat(np.arange(len(words)), [len(word) for word in words]))

    @property
    def top1(self) -> float:
        return float(self.right.mean())

    def __str__(self) -> str:
        low, high = metrics.bootstrap(self.right, self.scenes)
        return f"{self.top1:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    """Ask one model, keep what it said, and write the tables anew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--weights", metavar="FILE", help="of its backbone, where it is not the bundled one")
    parser.add_argument("--as", dest="name", default=BUNDLED, metavar="NAME", help="its row (default: %(default)s)")
    parser.add_argument("--modality", nargs="+", choices=list(MODALITIES), default=list(MODALITIES))
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--clips", type=int, default=50, help="scenes of each cell (default: %(default)s)")
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    model = load_recognizer(arguments.model, weights=arguments.weights)
    rendering = dict(model.config.rendering) | ({"max_window_us": None} if arguments.whole else {})
    sets = {
        cell: opened(model, rendering, options, arguments.cache)
        for cell, options in conditions(arguments.clips).items()
    }
    answers = {
        modality: {cell: words(model, data, modality) for cell, data in sets.items()} for modality in arguments.modality
    }
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}  # now: others may have written it
    kept.setdefault(arguments.name, {}).update(answers)
    with replaced_when_whole(KEPT) as part:
        part.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")
    TABLES.write_text(tables(kept), encoding="utf-8")
    print(TABLES.read_text(encoding="utf-8"))


def conditions(clips: int) -> dict[str, CardOptions]:
    """The scenes of each light and speed: of one, other scenes than of another."""
    return {
        f"{light} {speed}": CardOptions(clips=clips, first=k * clips, light=light, speed=speed)
        for k, (light, speed) in enumerate(product(LIGHTS, SPEEDS))
    }


def opened(model: Recognizer, rendering: Mapping[str, object], options: CardOptions, cache: Path) -> ClipSet:
    """Scenes as a model takes them."""
    size, labels = model.model.tower.backbone.image_size, model.config.labels
    return open_dataset("cards", SPLIT, cache, size=size, rendering=rendering, labels=labels, options=options)


def words(model: Recognizer, data: ClipSet, modality: str) -> str:
    """One cell's answers."""
    found = answer(model, data, "stream", modality=modality)
    letters = np.where(found.logits.argmax(axis=1) == found.truth, "1", "0")
    return " ".join("".join(letters[found.clips == scene]) for scene in np.unique(found.clips))


def tables(kept: Mapping[str, Answers]) -> str:
    """Markdown: light x speed of the bundled model, then what was promised, of each model."""
    parts = ["# The bundled model on scenes that it was not trained on", _ABOUT]
    whole = [name for name, own in kept.items() if name.startswith(SEED) and own.keys() == MODALITIES.keys()]
    if BUNDLED in whole:
        parts.append(_grid(kept[BUNDLED]))
    heads = ["", "all", "normal light", *(f"dark and fast, {name}" for name in MODALITIES.values())]
    parts.append(_headlines(heads, {name: headline(_best(kept, name)) for name in whole}))
    alone = {name: own["rgb"] for name, own in kept.items() if name.startswith(RGB_ONLY)}
    if alone:
        cells = {name: [Share.of(own, which) for which in ("", NORMAL, DARK_FAST)] for name, own in alone.items()}
        parts.append(_headlines(["", "all", "normal light", "dark and fast"], cells))
    return "\n\n".join(parts) + "\n"


def headline(answers: Answers) -> list[Share]:
    """What was promised of a model."""
    cells = answers["both"]
    return [Share.of(cells), Share.of(cells, NORMAL), *(Share.of(answers[m], DARK_FAST) for m in MODALITIES)]


def _headlines(heads: Sequence[str], models: Mapping[str, Sequence[Share]]) -> str:
    """A row a model, and how much seeds differ; a name with more after its seed is none of them."""
    rows = [[name, *map(str, shares)] for name, shares in models.items()]
    seeds = [[share.top1 for share in shares] for name, shares in models.items() if name[-1].isdigit()]
    if len(seeds) > 1:
        spread = zip(np.mean(seeds, axis=0), np.std(seeds, axis=0, ddof=1), strict=True)
        rows.append([f"mean and standard deviation of {len(seeds)}", *(f"{m:.1%} ± {s:.1%}" for m, s in spread)])
    return _table(heads, rows)


def _best(kept: Mapping[str, Answers], name: str) -> Answers:
    """A model's answers; RGB alone in each cell by the better of it and of the model that was trained on RGB alone."""
    own, other = kept[name], kept.get(RGB_ONLY + name, {}).get("rgb", {})
    pairs = {cell: [words, other.get(cell, words)] for cell, words in own["rgb"].items()}
    return {**own, "rgb": {cell: max(pair, key=lambda words: words.count("1")) for cell, pair in pairs.items()}}


def _grid(answers: Answers) -> str:
    rows = [
        [*cell.split(), str(len(words.split())), *(str(Share.of(answers[modality], cell)) for modality in MODALITIES)]
        for cell, words in answers["both"].items()
    ]
    return _table(["light", "speed", "scenes", *MODALITIES.values()], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
