"""Teaching new labels from a handful of clips, as the page does it: how long it takes, and how good it gets.

    python benchmarks/teach.py --work DIR [--task flats] [--clips 8] [--json]

Four classes that the demo's model does not know, simulated: `things` (a hand, a cup, a phone, a pen, moved about),
`flats` (a box, a card's back, a sheet of paper, a phone: all of them rectangles), `directions` (pale sheets that pass
to the left, right, up, down), or `suits` of cards. All clips of a task, a second or two each, are of one table in one
light, as a person would record them; what is shown differs from clip to clip. Those for testing are others. Seconds of
wall time are those of the machine as it is; CPU seconds depend on its load less.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.datasets import open_dataset
from app.label_file import LabelRow, write_label_rows
from app.lessons import Lessons
from app.teach import Teaching
from streams import open_source, write_aedat4
from streams.files import replaced_when_whole
from streams.record import labels_of
from streams.simulation.camera import record
from streams.simulation.cards import REAL_CAMERA, SENSOR, T_START_US
from streams.simulation.deck import RANKS, SUITS, Face, draw_design, draw_face
from streams.simulation.event_model import EventModel
from streams.simulation.scenes import draw_hand
from streams.simulation.script import Poses
from streams.simulation.sensor import SENSORS
from streams.simulation.stage import Actor, Stage
from streams.simulation.things import draw_table, draw_thing, hold
from velora import VELoRAConfig, load_recognizer
from velora.backbones import backbone
from velora.checkpoint import load_checkpoint
from velora.loading import DEMO
from velora.training.clips import ClipSet
from velora.training.evaluate import answer
from velora.training.start import nearest_class_mean, new_head
from velora.training.trainer import Data
from velora.training.windows import fixed_windows, slots
from velora.weights import load_tower

TASKS: Mapping[str, Sequence[str]] = {
    "things": ("hand", "cup", "phone", "pen"),
    "flats": ("box", "card back", "paper", "phone"),
    "directions": ("left", "right", "up", "down"),
    "suits": SUITS,
}
_SEEDS = {"things": 0, "directions": 1, "suits": 2, "flats": 3}
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_LEAD_S, _LONGEST_S = 1.2, 2.0
_TEST = 4  # clips of each class


def main() -> None:
    """Make the clips, teach, test, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", choices=list(TASKS), default="flats")
    parser.add_argument("--clips", type=int, default=8, help="of each class (default: 8)")
    parser.add_argument("--base", default="demo")
    parser.add_argument("--name", default="taught")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("options", nargs="*", help="of `velora train`, behind --, in place of the usual ones")
    arguments = parser.parse_args()
    folder = arguments.work / arguments.task
    simulate(arguments.task, arguments.clips, folder)
    lessons = collect(arguments.task, arguments.clips, folder)
    figures = teach(lessons, arguments, folder / "models") | test(folder, lessons, arguments)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))


def simulate(task: str, clips: int, folder: Path) -> None:
    """The recordings that are not there yet."""
    wanted = [(task, k, n) for k in range(len(TASKS[task])) for n in (*range(clips), *range(1000, 1000 + _TEST))]
    missing = [(*one, path) for one in wanted if not (path := recording(folder, *one[1:])).exists()]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(make, *one) for one in missing]:
            done.result()


def recording(folder: Path, kind: int, number: int) -> Path:
    """Of the clip `number` of a class; those for testing are numbered from 1000."""
    return folder / ("test" if number >= 1000 else "clips") / f"{kind}-{number}.aedat4"


def make(task: str, kind: int, number: int, path: Path) -> None:
    """One recording: a second or two, and what comes before."""
    label = TASKS[task][kind]
    rng = np.random.default_rng([_SEEDS[task], kind, number])
    seconds = _LEAD_S + rng.uniform(1.0, _LONGEST_S)
    cast = passes(label, rng, seconds) if task == "directions" else [moved(task, label, rng, seconds)]
    place = np.random.default_rng(_SEEDS[task])  # the same for all
    lamp = 0.5
    stage = Stage(cast, draw_table(place, *SENSOR), lamp)
    camera = replace(REAL_CAMERA, exposure_us=round(12_000 / lamp))
    model = EventModel(SENSOR[1], SENSOR[0], SENSORS["davis346"], seed=number)
    end_us = T_START_US + round(seconds * 1e6)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as part, write_aedat4(part, SENSOR, SENSOR, compression="zstd") as file:
        for item in record(stage, model, T_START_US, end_us, camera, seed=number):
            file.write(item)
    span = (T_START_US + round(_LEAD_S * 1e6), end_us)
    write_label_rows(labels_of(path), [LabelRow(path.name, *span, label)])


def moved(task: str, label: str, rng: np.random.Generator, seconds: float) -> Actor:
    """A thing, or a card in a hand, that is moved about."""
    sprite: Face = card(label, rng) if task == "suits" else draw_thing(rng, label)
    start_us, lasts = T_START_US - 1_000_000, seconds + 2
    hand = draw_hand(rng, str(rng.choice(["slow", "medium"])), lasts)
    return Actor(start_us, start_us + round(lasts * 1e6), lambda: sprite, lambda t: hand.poses((t - start_us) / 1e6))


def card(suit: str, rng: np.random.Generator) -> Face:
    """A card of a suit, of any rank but the joker."""
    return hold(draw_face(RANKS[rng.integers(len(RANKS) - 1)], suit, draw_design(rng)), rng)[0]


def passes(label: str, rng: np.random.Generator, seconds: float) -> list[Actor]:
    """Sheets, one after the other, that cross the image in one direction."""
    cast, start_us = list[Actor](), T_START_US - 300_000
    while start_us < T_START_US + seconds * 1e6:
        lasts_us = round(rng.uniform(0.6, 1.0) * 1e6)
        cast.append(one_pass(label, rng, start_us, lasts_us))
        start_us += lasts_us
    return cast


def one_pass(label: str, rng: np.random.Generator, start_us: int, lasts_us: int) -> Actor:
    """One sheet of paper, through the image from side to side."""
    sprite, way = draw_thing(rng, "paper"), np.array(_WAYS[label])
    middle = np.array([*(0.5 + 0.25 * rng.uniform(-1, 1, 2) * (way == 0)), rng.uniform(-0.3, 0.3), 0, 0, 0.8])
    reach = np.array([*(0.75 * way), 0, 0, 0, 0])

    def poses(t_us: np.ndarray) -> Poses:
        share = np.clip((t_us - start_us) / lasts_us, 0, 1)[:, None]
        return np.asarray(middle + reach * (2 * share - 1))

    return Actor(start_us, start_us + lasts_us, lambda: sprite, poses)


def collect(task: str, clips: int, folder: Path) -> Lessons:
    """The clips, cut out of the recordings as a person would mark them."""
    lessons = Lessons(folder / f"lessons-{clips}")
    if sum(lessons.counts().values()) != clips * len(TASKS[task]):
        lessons.clear()
        for kind, label in enumerate(TASKS[task]):
            for path in (recording(folder, kind, number) for number in range(clips)):
                with open_source(path) as source:
                    start_us, end_us = source.span_us or (0, 0)
                start_us += round(_LEAD_S * 1e6)
                lessons.add(lambda path=path: open_source(path), start_us, end_us, label)  # type: ignore[misc]
    return lessons


def teach(lessons: Lessons, arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Teach; how long it took, and how good the model is on what was held out of the clips."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    more = {"options": arguments.options} if arguments.options else {}
    teaching = Teaching(lessons, arguments.base, out, arguments.name, **more)
    training_began = None
    while not teaching.wait(0.2):
        if training_began is None and teaching.state().phase == "training":
            training_began = time.perf_counter() - began
    state = teaching.state()
    if state.model is None:
        raise SystemExit(f"teach: {state.message}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "seconds_before_training": round(training_began or 0, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1),
        "steps": state.step,
        "nearest_class_mean": state.nearest_class_mean,
        "validation": state.validation,
    }


def test(folder: Path, lessons: Lessons, arguments: argparse.Namespace) -> dict[str, Any]:
    """How good the model is on clips that it was never shown, beside the one that it began as."""
    recognizer = load_recognizer(folder / "models" / arguments.name)
    config, tower = recognizer.config, load_tower(recognizer.config.backbone, "", None)
    found = answer(recognizer, opened(folder, "test", config), "stream")
    right = found.logits.argmax(axis=1) == found.truth
    base = load_checkpoint(DEMO if arguments.base == "demo" else Path(arguments.base))
    known, asked = opened(lessons.folder, "train", config), opened(folder, "test", config)
    windows = fixed_windows(asked.clips, config, "stream", 5)
    data = Data(known, slots(known.clips, config, "stream"), asked, windows)
    begun = new_head(replace(base, config=config), tower, data)
    before = nearest_class_mean(begun, tower, data, new_head=True)
    return {"test": round(float(right.mean()), 4), "test_before": before, "test_windows": len(right)}


def opened(folder: Path, split: str, config: VELoRAConfig) -> ClipSet:
    """The lessons, or the clips for testing."""
    size, rendering = backbone(config.backbone).image_size, dict(config.rendering)
    return open_dataset(str(folder), split, folder / ".frames", size=size, rendering=rendering, labels=config.labels)


if __name__ == "__main__":
    main()
