"""`velora info CHECKPOINT`, and `velora info --preset …` without any weights: what a model is and how big."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from velora.accounting import PER_MIB, account
from velora.checkpoint import load_checkpoint
from velora.config import VELoRAConfig

_SHOWN_LABELS = 8


def checkpoint_facts(folder: Path) -> dict[str, Any]:
    """What a checkpoint's folder holds: files, config, parameters. Raises ModelError where it is broken."""
    config = load_checkpoint(folder).config
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return {"file": str(folder), "format": "velora checkpoint", "files": files} | _facts(config)


def config_facts(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a model that is only described by options. Raises ValueError for what fits no preset."""
    config = VELoRAConfig(
        labels=tuple(map(str, range(arguments.classes))),
        backbone=arguments.backbone,
        preset=arguments.preset,
        adapter=arguments.adapter,
        rank=arguments.rank,
        pairs=arguments.pairs,
    )
    facts = _facts(config)
    del facts["config"]["labels"]
    return facts


def _facts(config: VELoRAConfig) -> dict[str, Any]:
    return {"classes": len(config.labels), "config": dataclasses.asdict(config)} | account(config)


def as_text(facts: dict[str, Any]) -> Iterator[str]:
    """The facts for people, a line each."""
    config = facts["config"]
    if "file" in facts:
        files = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in facts["files"].items())
        yield f"{facts['file']}: checkpoint, {'trained' if config['trained'] else 'not trained'}; {files}"
        yield f"  labels: {_labels(config['labels'])}"
        yield f"  window: {config['frames']} samples, {config['sample_period_us'] / 1e3:.1f} ms apart"
    preset = f"preset {config['preset']}, adapter {_adapter(config)}"
    yield f"  {config['backbone']}, {preset}, {facts['classes']} classes"
    yield from _table(facts)


def _adapter(config: dict[str, Any]) -> str:
    details = {"lora": "rank {rank}, alpha {alpha}", "clora": "rank {rank}, {pairs} pairs of bases"}
    name = str(config["adapter"])
    return f"{name} ({details[name].format(**config)})" if name in details else name


def _labels(labels: tuple[str, ...]) -> str:
    more = f", … {len(labels)} in all" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(labels[:_SHOWN_LABELS]) + more


def _table(facts: dict[str, Any]) -> Iterator[str]:
    yield f"  {'':17}{'parameters':>13}{'MiB':>10}"
    yield _row("frozen", facts["frozen_parameters"])
    yield _row("adapters", facts["adapter_parameters"])
    for stage, streams in facts["adapters"].items():
        parts = ", ".join(f"{stream} {count:,}" for stream, count in streams.items())
        yield f"    {stage}: {parts}"
    yield _row("other trainable", facts["other_trainable_parameters"])
    yield _row("head", facts["head_parameters"])
    yield _row("trainable", facts["trainable_parameters"])
    yield _row("total", facts["frozen_parameters"] + facts["trainable_parameters"])
    if paper := facts.get("paper_accounting"):
        yield "  as the paper counts: three whole CLIPs, and of what is trained only LoRA, that of the text towers too"
        yield _row("LoRA", paper["adapter_parameters"])
        yield _row("total", 3 * (paper["clip_parameters"] + paper["adapter_parameters_per_clip"]))


def _row(name: str, parameters: int) -> str:
    return f"  {name:17}{parameters:13,}{parameters / PER_MIB:10,.2f}"
