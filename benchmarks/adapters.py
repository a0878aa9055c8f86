"""Every adapter on one cached set of simulated scenes, with the same short budget. Writes docs/adapters.md and .png.

    pip install -e '.[train]'
    python benchmarks/adapters.py --work DIR --minutes 6 --measure      # first, on a quiet machine: clips a second
    python benchmarks/adapters.py --work DIR --minutes 6                # goes on where it was stopped

A row is `velora train` for as many clips as this machine takes in so many minutes when it is quiet, so that it does not
matter what else it does meanwhile; then the test scenes. What comes out is reported, whatever it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from app.report import bubble_chart
from app.train import SUMMARY
from velora import load_recognizer
from velora.checkpoint import ADAPTER

_MEASURED, _MEASURED_MINUTES = 60, 0.75  # scenes, and how long, to measure a speed
DOCS = Path(__file__).parents[1] / "docs"
_PROGRAM = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
#: a row and what it adds to the common command; the first part compares adapters, the second leaves parts of VELoRA out
ROWS: Mapping[str, Sequence[str]] = {
    "none (head only)": ["--adapter", "none", "--w-rec", "0"],
    "LoRA, r 2": ["--adapter", "lora", "--rank", "2", "--alpha", "4"],
    "LoRA, r 4": ["--adapter", "lora"],
    "LoRA, r 8": ["--adapter", "lora", "--rank", "8", "--alpha", "16"],
    "CLoRA, p 2": ["--adapter", "clora", "--pairs", "2"],
    "CLoRA, p 4": ["--adapter", "clora", "--pairs", "4"],
    "CLoRA, p 4, SADE": ["--adapter", "clora", "--pairs", "4", "--sade", "0.01"],
    "CLoRA, p 4, SADE normalised": ["--adapter", "clora", "--pairs", "4", "--sade", "0.01", "--sade-normalize"],
    "full": ["--adapter", "full", "--rate", "2e-4"],
    "LoRA, no motion stream": ["--motion", "off"],
    "LoRA, the head reads motion": ["--motion", "head"],
    "LoRA, no L_rec": ["--w-rec", "0"],
    "LoRA, T 1": ["--frames", "1"],
    "LoRA, T 4": ["--frames", "4"],
}
COMMON = ["--data", "cards", "--backbone", "demo", "--rate", "2e-3", "--patience", "0"]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one configuration."""

    name: str
    top1: float
    low: float
    high: float
    trained: int
    file_mb: float
    gflops: float  # of a window from scratch
    peak_gb: float
    clips_s: float  # while nothing else runs


def main() -> None:
    """Train what is not trained yet, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--test-clips", type=int, default=400)
    parser.add_argument("--cache", type=Path, help="of a run of app.make_demo, to share its frames")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--measure", action="store_true", help="how fast each row is, and no more")
    arguments = parser.parse_args()
    if arguments.measure:
        for name in arguments.rows:
            print(f"{name}: {speed_of(name, arguments):.2f} clips/s")
        return
    rows = [row_of(name, arguments) for name in arguments.rows]
    (DOCS / "adapters.md").write_text(report(rows, arguments), encoding="utf-8")
    points = [(row.name, arguments.clips / row.clips_s, row.top1, row.trained) for row in rows]
    bubble_chart(DOCS / "adapters.png", points, of=f"an epoch of {arguments.clips:,} scenes")
    print((DOCS / "adapters.md").read_text(encoding="utf-8"))


def row_of(name: str, arguments: argparse.Namespace) -> Row:
    """One row; its figures are kept, so that a stopped run goes on."""
    out = arguments.work / _folder(name)
    note = out / "row.json"
    if not note.exists():
        speed = speed_of(name, arguments)
        epochs = 60 * arguments.minutes * speed / arguments.clips
        train(name, arguments, out, "--epochs", f"{epochs:.3f}", "--clips", str(arguments.clips))
        test = ["--data", "cards", "--clips", str(arguments.test_clips), "--json", *_cache(arguments)]
        found = json.loads(run("evaluate", str(out), *test))
        note.write_text(json.dumps(_figures(out, found) | {"clips_s": speed}), encoding="utf-8")
    return Row(name, **json.loads(note.read_text(encoding="utf-8")))


def speed_of(name: str, arguments: argparse.Namespace) -> float:
    """Clips a second of a row, measured once; training alone, without what starting and validating take."""
    out = arguments.work / "speeds" / _folder(name)
    if not (out / SUMMARY).exists():
        few = ["--clips", str(_MEASURED), "--validate-every", "1000000"]
        train(name, arguments, out, "--epochs", "1000", "--max-minutes", str(_MEASURED_MINUTES), *few)
    found = json.loads((out / SUMMARY).read_text(encoding="utf-8"))["clips_s"]
    return float(found)


def train(name: str, arguments: argparse.Namespace, out: Path, *budget: str) -> None:
    """`velora train` with the options of a row."""
    run("train", *COMMON, *_cache(arguments), "--max-window-us", "8000", "--out", str(out), *budget, *ROWS[name])


def _cache(arguments: argparse.Namespace) -> list[str]:
    return ["--cache", str(arguments.cache or arguments.work / "frames")]


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _figures(out: Path, found: Mapping[str, Any]) -> dict[str, float]:
    state = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    low, high = found["top1_interval"]
    return {
        "top1": found["top1"],
        "low": low,
        "high": high,
        "trained": state["trained"],
        "file_mb": (out / ADAPTER).stat().st_size / 1e6,
        "gflops": gflops(out),
        "peak_gb": state["memory_gb"],
    }


def gflops(checkpoint: Path) -> float:
    """Of one window, none of whose images has been encoded before; a multiplication and an addition are two."""
    model = load_recognizer(checkpoint, device="cpu", dtype="fp32").model
    size = model.tower.backbone.image_size
    images = torch.zeros(2, 1, model.config.frames, 3, size, size)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(images[0], images[1])
    return float(counted.get_total_flops()) / 1e9


def run(*line: str) -> str:
    """A velora command in a process of its own, so that its memory is its own; what it prints."""
    return subprocess.run([sys.executable, "-c", _PROGRAM, *line], check=True, stdout=subprocess.PIPE, text=True).stdout


def report(rows: Sequence[Row], arguments: argparse.Namespace) -> str:
    """The table."""
    lines = [
        f"# Adapters: {arguments.minutes:g} minutes each on a quiet machine",
        "",
        f"{arguments.clips} simulated scenes to train, {arguments.test_clips} to test (five windows each at most); "
        "intervals by resampling scenes; one seed.",
        "",
        "| | top-1 (95 %) | trained parameters | checkpoint | GFLOP a window | peak memory | clips/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        share = f"{row.top1:.1%} ({row.low:.1%} to {row.high:.1%})"
        sizes = f"{row.trained:,} | {row.file_mb:.2f} MB | {row.gflops:.1f} | {row.peak_gb:.1f} GB | {row.clips_s:.1f}"
        lines.append(f"| {row.name} | {share} | {sizes} |")
    return "\n".join([*lines, "", "![training time against top-1](adapters.png)", ""])


if __name__ == "__main__":
    main()
