"""`velora info`: what a recording holds, of AEDAT 4 by its header and packet table alone; or a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams import EventImage, EventPacket, Gap, RecordingError, RgbFrame, Source, open_source
from streams.aedat4 import COMPRESSIONS, EVENTS, FRAMES, StreamInfo
from streams.aedat4_reader import Aedat4Reader
from streams.aedat4_source import Aedat4Source
from streams.image_folder import ImageFolderSource
from streams.source import kind_of
from streams.text import storable

EVENT_IMAGES = "images of events"


def info(arguments: argparse.Namespace) -> int:
    """Print the facts of a recording, a checkpoint's folder, or a model that options describe.

    Raises RecordingError, ModelError, or ValueError for options that fit no model.
    """
    facts, text = _facts(arguments)
    print(json.dumps(facts, ensure_ascii=False) if arguments.json else "\n".join(text(facts)))
    return 0


def _facts(arguments: argparse.Namespace) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Iterable[str]]]:
    """The facts, and how they are told to people."""
    file: str | None = arguments.file
    if file == "demo" and not Path(file).exists():
        from velora.loading import DEMO  # imports torch

        file = str(DEMO)
    if file is not None and not _is_checkpoint(Path(file)):
        if kind_of(file) is Aedat4Source:
            if arguments.size or arguments.chip:
                raise ValueError(f"--{'size' if arguments.size else 'chip'}: {file} says so itself")
            return recording_facts(file), as_text
        return source_facts(file, size=arguments.size, chip=arguments.chip), as_text
    from app import model_info  # imports torch

    return (model_info.checkpoint_facts(Path(file)) if file else model_info.config_facts(arguments)), model_info.as_text


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and not ImageFolderSource.reads(b"", path)


def source_facts(uri: str, **options: Any) -> dict[str, Any]:
    """What a recording of any other kind holds, by reading all of it; of a video, what its header says."""
    with open_source(uri, **options) as source:
        if source.live:
            raise RecordingError(f"{uri} is live: `velora live` shows it")
        streams = [_video_facts(source)] if source.simulated else _read_facts(source)
        path = source.path or Path(uri)
        size = path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*.*"))
        return {
            "file": storable(str(path)),
            "format": source.format,
            "bytes": size,
            "compression": None,
            "streams": streams,
            "damage": dict(source.counts),
        }


def _video_facts(source: Source) -> dict[str, Any]:
    start, end = source.span_us or (None, None)
    per_second = round(1e6 / source.sample_period_us, 1)
    count = None if start is None or end is None else round((end - start) / source.sample_period_us)
    told = {"count": count, "t_start_us": start, "t_end_us": end, "per_second": per_second}
    return _stream(FRAMES, source.frame_size, count or 0) | told


def _read_facts(source: Source) -> list[dict[str, Any]]:
    found: dict[type, list[int]] = {}  # packets, amount, start, end
    for item in source:
        if not isinstance(item, Gap):
            amount = len(item.events) if isinstance(item, EventPacket) else 1
            packets, before, start, end = found.get(type(item), (0, 0, item.t_start_us, item.t_end_us))
            end = max(end, item.t_end_us)
            found[type(item)] = [packets + 1, before + amount, min(start, item.t_start_us), end]
    facts = []
    for kind, name in ((EventPacket, EVENTS), (EventImage, EVENT_IMAGES), (RgbFrame, FRAMES)):
        if kind in found:
            packets, count, start, end = found[kind]
            size = source.frame_size if kind is RgbFrame else source.event_size
            told = {"count": count, "t_start_us": start, "t_end_us": end, "per_second": _rate(count, start, end)}
            facts.append(_stream(name, size, packets) | told)
    return facts


def _stream(kind: str, size: tuple[int, int] | None, packets: int) -> dict[str, Any]:
    width, height = size or (None, None)
    return {"id": None, "kind": kind, "camera": "", "packets": packets, "width": width, "height": height}


def recording_facts(path: Any) -> dict[str, Any]:
    """What header and table say; counts, times and rates are None where there is no table."""
    with Aedat4Reader(path) as reader:
        compression = next(name for name, code in COMPRESSIONS.items() if code == reader.header.compression)
        streams = [_stream_facts(stream, reader.of(stream)) for stream in reader.header.streams]
        return {
            "file": storable(str(reader.path)),
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
    return {"count": count, "t_start_us": start, "t_end_us": end, "per_second": _rate(count, start, end)}


def _rate(count: int, start_us: int, end_us: int) -> float | None:
    return round(count / ((end_us - start_us) / 1e6), 1) if end_us > start_us else None


_KINDS = {EVENTS: "events", FRAMES: "frames", "IMUS": "inertial samples", "TRIG": "triggers"}


def as_text(facts: dict[str, Any]) -> list[str]:
    """The facts for people, a line each."""
    packed = f", compression {facts['compression']}" if facts["compression"] else ""
    lines = [f"{facts['file']}: {facts['format']}, {facts['bytes'] / 1e6:.2f} MB{packed}"]
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
