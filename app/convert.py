"""`velora convert`: the authors' released checkpoint to a folder that this program loads."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.model import read_label_file
from velora.checkpoint import ADAPTER, save_checkpoint
from velora.convert import Conversion, convert
from velora.errors import ModelError
from velora.released_file import Released, read_released

REPORT = "conversion.json"

_CARD = """\
# {name}

VELoRA as its authors released it, converted for velora-rgbe; preset "released".

- From: `{file}`, sha256 {sha256}
- Backbone: {backbone}; its encoders: {encoders}
- Labels: {classes}; rank {rank}, alpha {alpha}
- Images are normalised with mean = std = 0.5, which was inferred, not stated by the authors
- Made by: `velora convert {file} --labels … --out {name}`; every key is listed in `{report}`
- It was not evaluated again here
"""


def convert_command(arguments: argparse.Namespace) -> int:
    """Convert, and say what became of every key. Raises ModelError, and then nothing is written."""
    out: Path = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already: choose another --out, or remove it")
    labels = read_label_file(arguments.labels)
    console = Console(stderr=True)
    with console.status(f"reading {arguments.checkpoint}"):
        released = read_released(arguments.checkpoint)
        done = convert(released, labels, backbone_name=arguments.backbone, alpha=arguments.alpha)
    with console.status(f"writing {out}"):
        report = _write(out, released, done)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        _tell(Console(), report)
    return 0


def _write(out: Path, released: Released, done: Conversion) -> dict[str, Any]:
    """Make the folder under a temporary name first; returns the report that is in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        report = _report(released, done)
        save_checkpoint(temporary, done.checkpoint, card=_card(out, report))
        report |= {"out": str(out), "bytes_out": (temporary / ADAPTER).stat().st_size}
        (temporary / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _report(released: Released, done: Conversion) -> dict[str, Any]:
    config = done.checkpoint.config
    with released.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file": str(released.path),
        "sha256": digest,
        "bytes_in": released.path.stat().st_size,
        "backbone": config.backbone,
        "encoders": done.encoders,
        "own_towers": config.own_towers,
        "rank": config.rank,
        "alpha": config.alpha,
        "classes": len(config.labels),
        "used": released.used,
        "dropped": released.dropped,
        "missing": [],
    }


def _card(out: Path, report: dict[str, Any]) -> str:
    return _CARD.format(**report | {"file": Path(report["file"]).name}, name=out.name, report=REPORT)


def _tell(console: Console, report: dict[str, Any]) -> None:
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column("keys", justify="right")
    table.add_column("of the file")
    table.add_column("what became of them")
    for what, count in Counter(report["used"].values()).items():
        fate = "see encoders" if what.endswith("encoder") else "converted"
        table.add_row(f"{count:,}", what, fate)
    for why, keys in _by_reason(report["dropped"]).items():
        some = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
        table.add_row(f"{len(keys):,}", why, f"dropped: {some}")
    console.print(table)
    console.print(f"encoders: {report['encoders']}", highlight=False)
    what = f"{report['backbone']}, rank {report['rank']}, {report['classes']} classes"
    console.print(f"{what}; nothing that is needed is missing", highlight=False)
    sizes = f"{report['bytes_in'] / 1e6:,.1f} MB -> {report['bytes_out'] / 1e6:,.1f} MB"
    console.print(f"{sizes}: {report['out']}; every key is in {REPORT} there", highlight=False)


def _by_reason(dropped: dict[str, str]) -> dict[str, list[str]]:
    """The names of dropped keys, without the part of the file they are in, by reason."""
    groups: dict[str, list[str]] = {}
    for key, why in dropped.items():
        name = key.partition("/")[2] or key
        groups.setdefault(why, []).append(name.removeprefix("module.").removeprefix("base_model.model."))
    return groups
