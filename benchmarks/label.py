"""Labelling several recordings: `velora label`, against a loop of full windows, recording after recording.

    python benchmarks/label.py [--model demo] [--recordings 4] [--seconds 6] [--jobs N] [--dtype float32] [--windows 6]

The loop decodes, renders and encodes each window of 8 samples from nothing, as a script around the model would; it does
`--windows` of them before and as many after, since it is slow. Both see the same simulated recordings, in one dtype. A
table on stderr, one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from app.cli import main as velora
from app.labelling.inputs import find
from app.labelling.labeller import Labeller
from app.labelling.settings import Settings
from app.model import render_config
from streams import Sample, open_source, synchronize
from velora import Recognizer
from velora.preprocess import normalize, resize

FEED = {"denoise": False, "roi": None, "flip": None, "rotate": 0}


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="demo, or a backbone, whose weights are random then")
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each recording")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--windows", type=int, default=6, help="of the loop, before and after")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = _simulated(Path(folder) / "in", arguments.recordings, arguments.seconds)
        figures = _figures(arguments, inputs, Path(folder) / "out")
    _show(figures)
    print(json.dumps(figures))


def _simulated(folder: Path, count: int, seconds: float) -> Path:
    for k in range(count):
        out = folder / f"{k}.aedat4"
        velora(["simulate", "cards", "--out", str(out), "--seconds", str(seconds), "--seed", str(k)])
    return folder


def _figures(arguments: argparse.Namespace, inputs: Path, out: Path) -> dict[str, Any]:
    model = {"model": arguments.model, "labels": None, "weights": None, "random_weights": arguments.model != "demo"}
    model |= {"device": arguments.device, "dtype": arguments.dtype}
    recordings = find([str(inputs)], None, out).recordings
    with Labeller(Settings(out, model, FEED, stride=1), arguments.jobs) as labeller:
        labeller.label(recordings[0])  # a worker has started, and all is warm
        loop_s = [_loop(labeller.recognizer, recordings[0].path, arguments.windows)]
        before = labeller.model_s
        began = time.perf_counter()
        notes = list(labeller.label_all(recordings))
        label_s = time.perf_counter() - began
        model_s = labeller.model_s - before
        loop_s.append(_loop(labeller.recognizer, recordings[-1].path, arguments.windows))
        device, dtype, batch = labeller.recognizer.device, labeller.recognizer.dtype, labeller.batch
    windows, read_s = sum(note.windows for note in notes), sum(note.read_s for note in notes)
    loop = sum(loop_s) / len(loop_s)
    return {
        "model": arguments.model,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "batch": batch,
        "jobs": arguments.jobs,
        "recordings": len(notes),
        "windows": windows,
        "label_ms_a_window": round(label_s / windows * 1e3, 2),
        "loop_ms_a_window": round(loop * 1e3, 2),
        "times_faster": round(loop * windows / label_s, 2),
        "real_time_factor": round(sum(note.seconds for note in notes) / label_s, 2),
        "model_share": round(model_s / label_s, 3),
        "reading_share": round(read_s / label_s, 3),
    }


def _loop(recognizer: Recognizer, path: Path, count: int) -> float:
    """Seconds a window of the loop; the first one is not counted."""
    loop = _windows(recognizer, path)
    next(loop)
    began = time.perf_counter()
    done = len(list(islice(loop, count)))
    return (time.perf_counter() - began) / done


def _windows(recognizer: Recognizer, path: Path) -> Iterator[torch.Tensor]:
    config, size = recognizer.config, recognizer.model.tower.backbone.image_size
    window: deque[Sample] = deque(maxlen=config.frames)
    with open_source(path) as source, torch.inference_mode():
        for sample in synchronize(source, render=render_config(recognizer)):
            window.append(sample)
            if len(window) == config.frames:
                images = [resize([getattr(s, kind) for s in window], size) for kind in ("rgb", "event_image")]
                normal = [normalize(own.to(recognizer.device), config.mean, config.std)[None] for own in images]
                yield recognizer.model(*normal).float().cpu()


def _show(figures: dict[str, Any]) -> None:
    table = Table("", "", title=f"{figures['model']}, {figures['dtype']} on {figures['device']}")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value}")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
