"""`velora simulate`: a recording of a video, or of playing cards with the truth beside it as `NAME.labels.csv`."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.feed import losses
from streams import EventPacket, RgbFrame, write_aedat4
from streams.files import replaced_when_whole
from streams.record import labels_of
from streams.simulation.cards import SENSOR, card_labels, simulate_cards
from streams.simulation.sensor import SENSORS
from streams.simulation.video import Video, simulate_video

#: of what a scene shows: from, to (microseconds), label
Span = tuple[int, int, str]


def simulate(arguments: argparse.Namespace) -> int:
    """Write the recording, and the labels of a scene that has some; an interrupted run leaves neither.

    Raises ValueError for unknown ranks, for a video that cannot be read, and for settings that do not fit.
    """
    out: Path = arguments.out
    if out.is_dir() or not out.name:
        raise ValueError(f"{out}: is a folder; --out takes the name of a file in it")
    if arguments.layout != "recordings":
        raise ValueError("--layout is for a set of scenes: add --scenes N")
    for path in (out, labels_of(out)):
        if path.exists() and Path(arguments.scene).exists() and path.samefile(arguments.scene):
            raise ValueError(f"{path} is the video itself: choose another name")
        if path.exists() and not arguments.force:
            raise ValueError(f"{path} is there already: choose another name, or say --force")
    if arguments.scene == "cards":
        _simulate_cards(out, arguments)
    else:
        _simulate_video(out, arguments)
    return 0


def _simulate_cards(out: Path, arguments: argparse.Namespace) -> None:
    if arguments.sensor is not None:
        raise ValueError("--sensor is for videos: the cards have a sensor of their own")
    if arguments.light or arguments.speed:
        raise ValueError("--light and --speed are for a set of scenes: add --scenes N, or use --lamp")
    seconds = arguments.seconds or 10.0
    items = simulate_cards(
        seconds, arguments.seed, ranks=arguments.ranks, lamp=arguments.lamp, colour=not arguments.grey
    )
    labels, spans = labels_of(out), card_labels(seconds, arguments.seed, arguments.ranks)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(labels) as part:
        write_labels(part, ((out.name, *span) for span in spans))
        _record(out, items, seconds, camera="cards")
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB) and {labels}", file=sys.stderr)


def _simulate_video(out: Path, arguments: argparse.Namespace) -> None:
    for option in ("ranks", "lamp", "grey", "scenes", "light", "speed"):
        if getattr(arguments, option):
            raise ValueError(f"--{option} is for `simulate cards`, a video shows what it shows")
    with Video(Path(arguments.scene)) as video:
        sensor = SENSORS[arguments.sensor or "davis346"]
        width, height = SENSOR
        seconds, seed = arguments.seconds, arguments.seed
        items = simulate_video(video, sensor, width=width, height=height, seed=seed, seconds=seconds)
        _record(out, items, min(seconds or video.seconds, video.seconds), camera="video")
        labels_of(out).unlink(missing_ok=True)  # those of what was there
        for line in losses(video.counts):
            print(line, file=sys.stderr)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)


def _record(out: Path, items: Iterator[EventPacket | RgbFrame], seconds: float, *, camera: str) -> None:
    """Write items to a file that appears when it is whole, with a progress bar."""
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with (
        replaced_when_whole(out) as part,
        write_aedat4(part, SENSOR, SENSOR, compression="zstd-high", camera=camera) as file,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task(f"simulating {out.name}", total=seconds or None)
        start_us = None
        for item in items:
            file.write(item)
            start_us = item.t_start_us if start_us is None else start_us
            bar.update(task, completed=(item.t_end_us - start_us) / 1e6)


def write_labels(path: Path, rows: Iterable[tuple[str, int, int, str]]) -> None:
    """The project's label format: `recording,start_us,end_us,label`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recording", "start_us", "end_us", "label"])
        writer.writerows(rows)
