"""`velora convert`: the authors' released checkpoint to a folder that this program loads."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from app.console import Console
from app.model import read_label_file
from streams.files import naming, remove_abandoned
from streams.text import printable
from velora.checkpoint import ADAPTER, CARD, CONFIG, save_checkpoint
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
- Left out of the file's keys: {left_out}
- Images are normalised with mean = std = 0.5, which was inferred, not stated by the authors
- Made by: `velora convert {file} --labels … --out {name}`; every key is listed in `{report}`
- It was not evaluated again here
"""


def convert_command(arguments: argparse.Namespace) -> int:
    """Convert, and say what became of every key. Raises ModelError, and then nothing is written."""
    out: Path = arguments.out
    _check_free(out, arguments.force)
    labels = read_label_file(arguments.labels)
    console = Console(stderr=True)
    with console.status(_plain(f"reading {arguments.checkpoint}")):
        released = read_released(arguments.checkpoint)
        done = convert(released, labels, backbone_name=arguments.backbone, alpha=arguments.alpha)
    with console.status(_plain(f"writing {out}")):
        report = _write(out, released, done)
    if arguments.json:
        print(json.dumps(report))
    else:
        _tell(Console(), report, done.checkpoint.config.labels)
    return 0


def _check_free(out: Path, force: bool) -> None:
    """Refuse a folder with something in it; `force` gives up a converted checkpoint, and nothing else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise ModelError(f"{out} exists already: choose another --out, or --force replaces a converted checkpoint")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if REPORT not in names or not names <= {ADAPTER, CARD, CONFIG, REPORT}:
        raise ModelError(f"{out} holds other things than a converted checkpoint: choose another --out, or remove it")


def _write(out: Path, released: Released, done: Conversion) -> dict[str, Any]:
    """Write the folder; returns the report that is in it."""
    report = _report(released, done)
    with _replaced_when_whole(out.resolve()) as folder:
        save_checkpoint(folder, done.checkpoint, card=_card(out, report))
        report |= {"out": str(out), "bytes_out": (folder / ADAPTER).stat().st_size}
        (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


@contextmanager
def _replaced_when_whole(out: Path) -> Iterator[Path]:
    """A new folder beside `out` to write to; it takes the place of `out` only when everything went well."""
    new = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    old = new.with_name(f"{new.name}.old")  # which is never taken for abandoned
    remove_abandoned(out.parent, f".{out.name}.", ".part")
    try:
        with naming(out, new):
            new.mkdir(parents=True)
            yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


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
    left_out = "; ".join(f"{count:,} ({why})" for why, count in Counter(report["dropped"].values()).items()) or "none"
    names = {"file": Path(report["file"]).name, "name": out.resolve().name, "left_out": left_out, "report": REPORT}
    return _CARD.format(**report | names)


def _tell(console: Console, report: dict[str, Any], labels: Sequence[str]) -> None:
    table = Table(show_header=True, box=None, pad_edge=False)
    table.add_column("keys", justify="right")
    table.add_column("of the file")
    table.add_column("what became of them")
    for what, count in Counter(report["used"].values()).items():
        fate = "see encoders" if what.endswith("encoder") else "converted"
        table.add_row(f"{count:,}", what, fate)
    for why, keys in _by_reason(report["dropped"]).items():
        some = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
        table.add_row(f"{len(keys):,}", why, _plain(f"dropped: {some}"))
    console.print(table)
    console.print(f"encoders: {report['encoders']}", highlight=False)
    classes = f"{report['classes']} classes ({labels[0]} … {labels[-1]})"
    what = f"{report['backbone']}, rank {report['rank']}, {classes}; nothing that is needed is missing"
    console.print(_plain(what))
    sizes = f"{report['bytes_in'] / 1e6:,.1f} MB -> {report['bytes_out'] / 1e6:,.1f} MB"
    console.print(_plain(f"{sizes}: {report['out']}; every key is in {REPORT} there"))


def _plain(text: str) -> Text:
    """A text that may hold a stranger's words, without markup and without what would steer the terminal."""
    return Text(printable(text))


def _by_reason(dropped: dict[str, str]) -> dict[str, list[str]]:
    """The names of dropped keys, without the part of the file they are in, by reason."""
    groups: dict[str, list[str]] = {}
    for key, why in dropped.items():
        name = key.partition("/")[2] or key
        groups.setdefault(why, []).append(name.removeprefix("module.").removeprefix("base_model.model."))
    return groups
