"""`velora simulate`: a recording of a simulated scene, with the truth beside it as `NAME.labels.csv`."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streams import write_aedat4
from streams.simulation.cards import SENSOR, card_labels, simulate_cards


def simulate(arguments: argparse.Namespace) -> int:
    """Write the recording and its labels; an interrupted run leaves neither. Raises ValueError for unknown ranks."""
    out: Path = arguments.out
    if out.is_dir() or not out.name:
        raise ValueError(f"{out}: is a folder; --out takes the name of a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with (
        replaced_when_whole(out) as part,
        write_aedat4(part, SENSOR, SENSOR, compression="zstd-high", camera="cards") as file,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task(f"simulating {out.name}", total=arguments.seconds)
        start_us = None
        for item in simulate_cards(arguments.seconds, arguments.seed, ranks=arguments.ranks):
            file.write(item)
            start_us = item.t_start_us if start_us is None else start_us
            bar.update(task, completed=(item.t_end_us - start_us) / 1e6)
    labels = out.with_suffix(".labels.csv")
    with replaced_when_whole(labels) as part:
        write_labels(part, out.name, card_labels(arguments.seconds, arguments.seed, arguments.ranks))
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB) and {labels}", file=sys.stderr)
    return 0


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` only when everything went well."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_labels(path: Path, recording: str, spans: list[tuple[int, int, str]]) -> None:
    """The project's label format: `recording,start_us,end_us,label`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["recording", "start_us", "end_us", "label"])
        writer.writerows([recording, start, end, label] for start, end, label in spans)
