"""The options of `velora bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.bench import GROUPS
from app.cli_options import positive_int


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora bench`."""
    groups = "\n".join(f"  {name:<10}{text}" for name, text in GROUPS.items())
    bench = commands.add_parser(
        "bench",
        help="the speeds of the README, on this machine",
        description="Measures, each figure beside its reference in the same run. Leave the machine alone meanwhile.\n\n"
        f"groups:\n{groups}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    bench.add_argument("--json", action="store_true", help="one JSON object on stdout")
    bench.add_argument("--quick", action="store_true", help="less than a minute: the demo's model, fewer turns, less")
    bench.add_argument("--only", nargs="+", choices=list(GROUPS), metavar="GROUP", help="these groups alone")
    bench.add_argument(
        "--model",
        nargs="+",
        metavar="MODEL",
        help="demo, folders of checkpoints, or backbones with random weights (default: ViT-B-16-quickgelu demo)",
    )
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    bench.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 (default: auto)")
    bench.add_argument("--pairs", type=positive_int, metavar="N", help="turns of each (default: 3 to 30)")
    bench.add_argument("--clips", type=positive_int, metavar="N", help="simulated scenes for `modes` (default: 24)")
    bench.add_argument("--recording", type=Path, metavar="FILE", help="for `road` (default: it makes one)")
    bench.add_argument("--plots", type=Path, metavar="DIR", help="write pictures of `cost` there (needs matplotlib)")
    bench.set_defaults(command=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from app.bench.command import bench

    return bench(arguments)
