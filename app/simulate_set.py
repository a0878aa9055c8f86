"""`velora simulate cards --scenes N`: a labelled set of simulated scenes, as recordings or as HARDVS lays images out.

    recordings:  {train,val,test}/scene_0001.aedat4 and a labels.csv (recording,start_us,end_us,label) in each folder
    images:      <class>/<clip>/<clip>_aps/00000000.png (RGB) and <clip>_dvs/00000000.png (events),
                 {train,val,test}_label.txt (`class_dir/clip frames label` a line, labels from 0), classes.txt

A scene is in one split alone. What is there already is not made again, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import Progress

from app.simulate import replaced_when_whole, write_labels
from streams import Sample, open_source, synchronize, write_aedat4
from streams.simulation.cards import LABELS, SENSOR, card_labels, simulate_cards

NOTE = "set.json"
SPLITS = ("train", "val", "test")
_OPTIONS = ("scenes", "seed", "seconds", "lamp", "grey", "ranks", "layout")
_SHARES = (0.7, 0.85, 1.0)  # where each split ends


@dataclass(frozen=True)
class Scene:
    """One scene of a set."""

    number: int
    split: str
    seed: int
    seconds: float
    lamp: float | None
    colour: bool
    ranks: tuple[str, ...] | None

    @property
    def name(self) -> str:
        return f"scene_{self.number:04d}"

    @property
    def labels(self) -> list[tuple[int, int, str]]:
        """What it shows: (start_us, end_us, label)."""
        return card_labels(self.seconds, self.seed, self.ranks)


def simulate_set(arguments: argparse.Namespace) -> int:
    """Make the set. Raises ValueError for options that do not fit."""
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; with --scenes, --out names a folder")
    scenes = list(_scenes(arguments))
    _begin(out, arguments)
    make = make_images if arguments.layout == "images" else make_recording
    workers, context = min(os.cpu_count() or 1, len(scenes)), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_heed_no_interrupt) as pool:
        waiting = [pool.submit(make, scene, out) for scene in scenes]
        try:
            with Progress(console=Console(stderr=True)) as bar:
                task = bar.add_task(f"simulating {len(scenes)} scenes", total=len(scenes))
                for done in as_completed(waiting):
                    done.result()
                    bar.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    (_index_images if arguments.layout == "images" else _index_recordings)(out, scenes)
    counts = ", ".join(f"{sum(scene.split == split for scene in scenes)} {split}" for split in SPLITS)
    print(f"{out}: {counts}", file=sys.stderr)
    return 0


def _scenes(arguments: argparse.Namespace) -> Iterator[Scene]:
    """The scenes, of consecutive seeds; the first are for training."""
    count: int = arguments.scenes
    ranks = None if arguments.ranks is None else tuple(arguments.ranks)
    card_labels(1.0, 0, ranks)  # refuses unknown ranks before anything is written
    for k in range(count):
        split = next(s for s, end in zip(SPLITS, _SHARES, strict=True) if k < round(end * count))
        seconds, seed = arguments.seconds or 10.0, arguments.seed + k
        yield Scene(k, split, seed, seconds, arguments.lamp, not arguments.grey, ranks)


def _begin(out: Path, arguments: argparse.Namespace) -> None:
    """Note what the set is made with; refuse to go on with one that was made otherwise."""
    wanted = {name: getattr(arguments, name) for name in _OPTIONS}
    note = out / NOTE
    if note.exists():
        found = json.loads(note.read_text(encoding="utf-8"))
        if odd := [name for name in _OPTIONS if found.get(name) != wanted[name]]:
            was = ", ".join(f"--{name} {found.get(name)}" for name in odd)
            raise ValueError(f"{out} holds a set that was made with {was}: choose another --out, or the same options")
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds other things: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(note) as part:
        part.write_text(json.dumps(wanted), encoding="utf-8")


def _heed_no_interrupt() -> None:
    """In the workers: Ctrl-C is for the parent, which lets them finish what they are at."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_recording(scene: Scene, out: Path) -> None:
    """A scene as a recording in the folder of its split."""
    path = out / scene.split / f"{scene.name}.aedat4"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_whole(path) as part:
            _write(scene, part)


def _write(scene: Scene, path: Path) -> None:
    with write_aedat4(path, SENSOR, SENSOR, compression="zstd", camera="cards") as file:
        items = simulate_cards(scene.seconds, scene.seed, ranks=scene.ranks, lamp=scene.lamp, colour=scene.colour)
        for item in items:
            file.write(item)


def _index_recordings(out: Path, scenes: list[Scene]) -> None:
    for split in SPLITS:
        rows = [(f"{scene.name}.aedat4", *span) for scene in scenes if scene.split == split for span in scene.labels]
        if rows:
            with replaced_when_whole(out / split / "labels.csv") as part:
                write_labels(part, rows)


def make_images(scene: Scene, out: Path) -> None:
    """A scene as clips of images, one for each span that it shows one thing in, and a list of them in `.scenes`."""
    listed = out / ".scenes" / f"{scene.name}.txt"
    if listed.exists():
        return
    listed.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{scene.name}.", dir=out) as folder:
        recording = Path(folder) / "scene.aedat4"
        _write(scene, recording)
        with open_source(recording) as source:
            samples = list(synchronize(source))
        lines = [_write_clip(scene, k, span, samples, Path(folder), out) for k, span in enumerate(scene.labels)]
    with replaced_when_whole(listed) as part:
        part.write_text("".join(lines), encoding="utf-8")


def _write_clip(
    scene: Scene, k: int, span: tuple[int, int, str], samples: list[Sample], folder: Path, out: Path
) -> str:
    """Images of the samples inside a span; returns the clip's line in a list, or nothing for a span without frames."""
    start_us, end_us, label = span
    inside = [s for s in samples if s.has_rgb and s.has_events and start_us <= s.t_start_us and s.t_end_us <= end_us]
    if not inside:
        return ""
    clip, class_dir = f"{scene.name}_{k:02d}", class_folder(label)
    new, place = folder / clip, out / class_dir / clip
    for name in ("aps", "dvs"):
        (new / f"{clip}_{name}").mkdir(parents=True)
    for number, sample in enumerate(inside):
        for name, image in (("aps", sample.rgb), ("dvs", sample.event_image)):
            cv2.imwrite(str(new / f"{clip}_{name}" / f"{number:08d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    shutil.rmtree(place, ignore_errors=True)  # of an interrupted run
    place.parent.mkdir(parents=True, exist_ok=True)
    new.rename(place)
    return f"{class_dir}/{clip} {len(inside)} {LABELS.index(label)}\n"


def class_folder(label: str) -> str:
    """The folder of a class, such as action_015_no_card."""
    return f"action_{LABELS.index(label) + 1:03d}_{label.replace(' ', '_')}"


def _index_images(out: Path, scenes: list[Scene]) -> None:
    for split in SPLITS:
        lists = (out / ".scenes" / f"{scene.name}.txt" for scene in scenes if scene.split == split)
        with replaced_when_whole(out / f"{split}_label.txt") as part:
            part.write_text("".join(path.read_text(encoding="utf-8") for path in lists), encoding="utf-8")
    with replaced_when_whole(out / "classes.txt") as part:
        part.write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
