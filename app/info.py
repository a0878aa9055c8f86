"""`velora info`: what a recording holds, from its header and its packet table, without decoding it; or a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.aedat4 import COMPRESSIONS, EVENTS, FRAMES, StreamInfo
from streams.aedat4_reader import Aedat4Reader


def info(arguments: argparse.Namespace) -> int:
    """Print the facts of a recording, a checkpoint's folder, or a model that options describe.

    Raises RecordingError, ModelError, or ValueError for options that fit no model.
    """
    facts, text = _facts(arguments)
    print(json.dumps(facts, ensure_ascii=False) if arguments.json else "\n".join(text(facts)))
    return 0


def _facts(arguments: argparse.Namespace) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Iterable[str]]]:
    """The facts, and how they are told to people."""
    file: Path | None = arguments.file
    if file is not None and not file.is_dir():
        return recording_facts(file), as_text
    from app import model_info  # imports torch

    return (model_info.checkpoint_facts(file) if file else model_info.config_facts(arguments)), model_info.as_text


def recording_facts(path: Any) -> dict[str, Any]:
    """What header and table say; counts, times and rates are None where there is no table."""
    with Aedat4Reader(path) as reader:
        compression = next(name for name, code in COMPRESSIONS.items() if code == reader.header.compression)
        streams = [_stream_facts(stream, reader.of(stream)) for stream in reader.header.streams]
        return {
            "file": str(reader.path),
            "format": "AEDAT 4.0",
            "bytes": reader.size,
            "compression": compression,
            "streams": streams,
            "damage": dict(reader.counts),
        }


def _stream_facts(stream: StreamInfo, entries: NDArray[np.void]) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": stream.id, "kind": stream.kind, "camera": stream.source, "packets": len(entries)}
    if stream.kind in (EVENTS, FRAMES):
        facts |= {"width": stream.width, "height": stream.height}
    return facts | _table_facts(entries)


def _table_facts(entries: NDArray[np.void]) -> dict[str, Any]:
    """Amount, span and rate of a stream, as far as the packet table tells."""
    if len(entries) == 0 or (entries["count"] < 0).any():
        count = None if len(entries) else 0
        return {"count": count, "t_start_us": None, "t_end_us": None, "per_second": None}
    count, start, end = int(entries["count"].sum()), int(entries["t_start"].min()), int(entries["t_end"].max())
    rate = round(count / ((end - start) / 1e6), 1) if end > start else None
    return {"count": count, "t_start_us": start, "t_end_us": end, "per_second": rate}


_KINDS = {EVENTS: "events", FRAMES: "frames", "IMUS": "inertial samples", "TRIG": "triggers"}


def as_text(facts: dict[str, Any]) -> list[str]:
    """The facts for people, a line each."""
    lines = [f"{facts['file']}: {facts['format']}, {facts['bytes'] / 1e6:.2f} MB, compression {facts['compression']}"]
    lines += [f"  {_stream_text(stream)}" for stream in facts["streams"]]
    lines += [f"  {reason}: {count:,}" for reason, count in facts["damage"].items()]
    return lines


def _stream_text(stream: dict[str, Any]) -> str:
    kind = _KINDS.get(stream["kind"], stream["kind"])
    amount = f"{stream['packets']:,} packets of {kind}" if stream["count"] is None else f"{stream['count']:,} {kind}"
    parts = [amount]
    if stream.get("width"):
        parts.append(f"{stream['width']} x {stream['height']}")
    if stream["t_start_us"] is not None:
        parts.append(f"{(stream['t_end_us'] - stream['t_start_us']) / 1e6:.3f} s from {stream['t_start_us']} us")
    if stream["per_second"] is not None:
        parts.append(f"{stream['per_second']:,} a second")
    if stream["camera"]:
        parts.append(f"camera {stream['camera']}")
    return ", ".join(parts)
