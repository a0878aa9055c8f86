"""`velora simulate cards --scenes N`: a labelled set of simulated scenes, as recordings or as HARDVS lays images out.

    recordings:  train/train_00001_dim_fast.aedat4 and a labels.csv (recording,start_us,end_us,label), as in val/, test/
    images:      <class>/<clip>/<clip>_aps/00000000.png (RGB) and <clip>_dvs/00000000.png (events),
                 {train,val,test}_label.txt (`class_dir/clip frames label` a line, labels from 0), classes.txt

A scene is in one split alone. What is there already is not made again, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import Progress

from app.pool import pool_of
from app.simulate import Span, write_labels
from streams import Sample, open_source, synchronize, write_aedat4
from streams.cores import usable_cores
from streams.files import naming, remove_abandoned, replaced_when_whole
from streams.simulation.cards import LABELS, SENSOR
from streams.simulation.scenes import SECONDS, CardScene, scene

NOTE = "set.json"
SPLITS = ("train", "val", "test")
_OPTIONS = ("scenes", "seed", "seconds", "light", "speed", "layout")
_SHARES = (0.7, 0.85, 1.0)  # where each split ends
_APART = 100_000  # scenes of one seed from those of the next


def simulate_set(arguments: argparse.Namespace) -> int:
    """Make the set. Raises ValueError for options that do not fit."""
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; with --scenes, --out names a folder")
    scenes = _scenes(arguments)
    _begin(out, arguments)
    make = make_images if arguments.layout == "images" else make_recording
    spans: dict[str, Sequence[Span]] = {}  # of recordings
    with (
        pool_of(min(usable_cores(), len(scenes))) as pool,
        Progress(console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task(f"simulating {len(scenes)} scenes", total=len(scenes))
        waiting = {pool.submit(make, scene, out): scene.name for scene in scenes}
        for done in as_completed(waiting):
            spans[waiting[done]] = done.result() or ()
            bar.advance(task)
    if not (out / NOTE).exists():
        raise ValueError(f"{out} was removed meanwhile, with the scenes in it: run the same command again")
    if arguments.layout == "images":
        _index_images(out, scenes)
    else:
        _index_recordings(out, scenes, spans)
    counts = ", ".join(f"{sum(scene.split == split for scene in scenes)} {split}" for split in SPLITS)
    print(f"{out}: {counts}", file=sys.stderr)
    return 0


def _scenes(arguments: argparse.Namespace) -> list[CardScene]:
    """The scenes of all splits; the same that `--data cards` trains and evaluates on, with seed 0."""
    for option in ("ranks", "lamp", "grey", "sensor", "force"):
        if getattr(arguments, option):
            raise ValueError(f"--{option} is for a single recording")
    count, first = arguments.scenes, arguments.seed * _APART
    ends = [0, *(round(share * count) for share in _SHARES)]
    return [
        scene(split, first + k, light=arguments.light, speed=arguments.speed, seconds=arguments.seconds or SECONDS)
        for split, start, end in zip(SPLITS, ends, ends[1:], strict=False)
        for k in range(end - start)
    ]


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


def make_recording(own: CardScene, out: Path) -> Sequence[Span]:
    """A scene as a recording in the folder of its split; what it shows, and when."""
    path = out / own.split / f"{own.name}.aedat4"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)  # in a set that is there still
        with replaced_when_whole(path) as part:
            _write(own, part)
    return own.labels


def _write(own: CardScene, path: Path) -> None:
    with write_aedat4(path, SENSOR, SENSOR, compression="zstd", camera="cards") as file:
        for item in own.items():
            file.write(item)


def _index_recordings(out: Path, scenes: Sequence[CardScene], spans: Mapping[str, Sequence[Span]]) -> None:
    for split in SPLITS:
        names = [scene.name for scene in scenes if scene.split == split]
        rows = [(f"{name}.aedat4", *span) for name in names for span in spans[name]]
        if rows:
            with replaced_when_whole(out / split / "labels.csv") as part:
                write_labels(part, rows)


def make_images(own: CardScene, out: Path) -> None:
    """A scene as clips of images, one for each span that it shows one thing in, and a list of them in `.scenes`."""
    listed = out / ".scenes" / f"{own.name}.txt"
    if listed.exists():
        return
    listed.parent.mkdir(exist_ok=True)  # in a set that is there still
    remove_abandoned(out, f".{own.name}.", ".part")
    with naming(out, out), tempfile.TemporaryDirectory(prefix=f".{own.name}.", suffix=".part", dir=out) as folder:
        recording = Path(folder) / "scene.aedat4"
        _write(own, recording)
        spans = own.labels
        clips, counts = [Path(folder) / f"{own.name}_{k:02d}" for k in range(len(spans))], [0] * len(spans)
        with open_source(recording) as source:
            for sample in synchronize(source):
                k = _span_of(sample, spans)
                if k is not None:
                    _write_images(sample, clips[k], counts[k])
                    counts[k] += 1
        lines = [_kept(clip, n, span[2], out) for clip, n, span in zip(clips, counts, spans, strict=True) if n]
    with replaced_when_whole(listed) as part:
        part.write_text("".join(lines), encoding="utf-8")


def _span_of(sample: Sample, spans: Sequence[Span]) -> int | None:
    """The span that a sample with both images is inside of."""
    if not (sample.has_rgb and sample.has_events):
        return None
    inside = (k for k, (start, end, _) in enumerate(spans) if start <= sample.t_start_us and sample.t_end_us <= end)
    return next(inside, None)


def _write_images(sample: Sample, clip: Path, number: int) -> None:
    """The two images of a sample into the folder of a clip."""
    for name, image in (("aps", sample.rgb), ("dvs", sample.event_image)):
        folder = clip / f"{clip.name}_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        (folder / f"{number:08d}.png").write_bytes(png.tobytes())


def _kept(clip: Path, count: int, label: str, out: Path) -> str:
    """Put a folder of images into that of its class; returns its line in a list."""
    class_dir = class_folder(label)
    place = out / class_dir / clip.name
    shutil.rmtree(place, ignore_errors=True)  # of an interrupted run
    place.parent.mkdir(parents=True, exist_ok=True)
    clip.rename(place)
    return f"{class_dir}/{clip.name} {count} {LABELS.index(label)}\n"


def class_folder(label: str) -> str:
    """The folder of a class, such as action_015_no_card."""
    return f"action_{LABELS.index(label) + 1:03d}_{label.replace(' ', '_')}"


def _index_images(out: Path, scenes: list[CardScene]) -> None:
    for split in SPLITS:
        lists = (out / ".scenes" / f"{scene.name}.txt" for scene in scenes if scene.split == split)
        with replaced_when_whole(out / f"{split}_label.txt") as part:
            part.write_text("".join(path.read_text(encoding="utf-8") for path in lists), encoding="utf-8")
    with replaced_when_whole(out / "classes.txt") as part:
        part.write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
