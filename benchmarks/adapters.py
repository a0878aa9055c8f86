"""Every adapter on one cached set of simulated scenes, with the same short budget. Writes docs/adapters.md and .png.

    pip install -e '.[train]'
    OMP_NUM_THREADS=1 python benchmarks/adapters.py --work DIR        # two hours; goes on where it was stopped

A row is `velora train` for six minutes on as many cores as torch has threads, which do nothing else, then the test
scenes. What comes out is reported, whatever it is. Rows are kept in docs/adapters.json as soon as they are there, and
what is there is not done again: rows may be of different days, but should be of one kind of machine. On a core each,
two may run at a time, with other `--rows`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from app.report import bubble_chart
from app.train import SUMMARY
from streams.files import replaced_when_whole
from velora import load_recognizer
from velora.checkpoint import ADAPTER

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "adapters.json"
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
COMMON += ["--max-window-us", "8000", "--validate-every", "1000000"]  # and at the end


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one configuration."""

    name: str
    minutes: float  # of training
    cores: int
    scenes: int
    tested: int  # scenes
    top1: float
    low: float
    high: float
    trained: int
    file_mb: float
    gflops: float  # of a window from scratch
    peak_gb: float
    clips_s: float


def main() -> None:
    """Train what is not trained yet, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0, help="of training, a row (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--test-clips", type=int, default=400)
    parser.add_argument("--cache", type=Path, help="of a run of app.make_demo, to share its frames")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    for name in arguments.rows:
        if not is_of(all_kept().get(name), arguments):
            row = asdict(row_of(name, arguments))
            kept = all_kept() | {name: row}  # of which others may have been kept meanwhile
            with replaced_when_whole(KEPT) as part:
                part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    kept = all_kept()
    rows = [Row(**kept[name]) for name in ROWS if is_of(kept.get(name), arguments)]
    (DOCS / "adapters.md").write_text(report(rows), encoding="utf-8")
    points = [(row.name, row.scenes / row.clips_s, row.top1, row.trained) for row in rows]
    bubble_chart(DOCS / "adapters.png", points, of=f"an epoch of {rows[0].scenes:,} scenes")
    print((DOCS / "adapters.md").read_text(encoding="utf-8"))


def all_kept() -> dict[str, dict[str, Any]]:
    """The rows of docs/adapters.json, by their names."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}


def is_of(row: Mapping[str, Any] | None, arguments: argparse.Namespace) -> bool:
    """Whether a row is there, and of the same budget and scenes."""
    asked = {"minutes": arguments.minutes, "scenes": arguments.clips, "tested": arguments.test_clips}
    asked["cores"] = torch.get_num_threads()
    return row is not None and asked.items() <= row.items()


def row_of(name: str, arguments: argparse.Namespace) -> Row:
    """One row, trained in a folder of its own, where a stopped run goes on."""
    out = arguments.work / "".join(c if c.isalnum() else "_" for c in name)
    cache = ["--cache", str(arguments.cache or arguments.work / "frames")]
    budget = ["--epochs", "1000", "--max-minutes", str(arguments.minutes), "--clips", str(arguments.clips)]
    run("train", *COMMON, *cache, *budget, "--out", str(out), *ROWS[name])
    test = ["--data", "cards", "--clips", str(arguments.test_clips), "--json"]
    found = json.loads(run("evaluate", str(out), *cache, *test))
    state = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    low, high = found["top1_interval"]
    return Row(
        name,
        minutes=arguments.minutes,
        cores=torch.get_num_threads(),
        scenes=arguments.clips,
        tested=arguments.test_clips,
        top1=found["top1"],
        low=low,
        high=high,
        trained=state["trained"],
        file_mb=(out / ADAPTER).stat().st_size / 1e6,
        gflops=gflops(out),
        peak_gb=state["memory_gb"],
        clips_s=state["clips_s"],
    )


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


def report(rows: Sequence[Row]) -> str:
    """The table."""
    cores = "one core" if rows[0].cores == 1 else f"{rows[0].cores} cores"
    lines = [
        f"# Adapters: {rows[0].minutes:g} minutes of training each, on {cores}",
        "",
        f"{rows[0].scenes:,} simulated scenes to train, {rows[0].tested} to test (five windows each at most); "
        "intervals by resampling scenes; one seed. Written by `python benchmarks/adapters.py`.",
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
