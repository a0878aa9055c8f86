"""All that labels depend on, but for the recording: picklable, so that any process can make the same labeller."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.labelling.storage import place
from streams.spans import SpanRules

if TYPE_CHECKING:
    from velora import Recognizer

VERSION = 1  # of what labels and files are made like; another one, and all is done again
FILES = ("model", "labels", "weights")  # of a model's options, where they are no names
_MODEL = (*FILES, "device", "dtype", "random_weights")
_FEED = ("size", "chip", "rgb_from", "denoise", "roi", "flip", "rotate")
_GPU_BATCH, _CPU_BATCH = 64, 8


@dataclass(frozen=True)
class Settings:
    """What to label with, and how."""

    out: Path
    model: Mapping[str, Any]  # options of `app.model.load_model`
    feed: Mapping[str, Any] = field(default_factory=dict)  # options of `app.feed.open_feed`
    stride: int | None = None  # None: as the model was trained, by the pace of each recording
    hop: int = 1
    topk: int = 5
    min_confidence: float | None = None  # of a window that counts for spans; None: as the checkpoint says
    rules: SpanRules = SpanRules()
    format: str = "jsonl"  # of the windows
    timeout_s: float = 120.0  # after so long without a sample a recording is given up
    batch: int | None = None  # samples in a step; None: as the device likes it
    seal: str = ""  # what the lock of `out` says: who finds another text there looks into another folder

    def batch_for(self, recognizer: Recognizer) -> int:
        """Samples in a step of a recogniser."""
        return self.batch or (_CPU_BATCH if recognizer.device.type == "cpu" else _GPU_BATCH)

    def digest(self, recognizer: Recognizer) -> str:
        """Sixteen digits that change with whatever changes labels or files, apart from the model."""
        told = {
            "version": VERSION,
            "feed": {name: value for name, value in self.feed.items() if value},
            "rules": dataclasses.asdict(self.rules),
            "dtype": str(recognizer.dtype),
        }
        told |= {name: getattr(self, name) for name in ("stride", "hop", "topk", "min_confidence", "format")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that options of the command line ask for."""
    return Settings(
        out=place(arguments.out),
        model={name: getattr(arguments, name) for name in _MODEL},
        feed={name: getattr(arguments, name) for name in _FEED},
        stride=arguments.stride,
        hop=arguments.hop,
        topk=arguments.topk,
        min_confidence=arguments.min_confidence,
        rules=SpanRules(arguments.steady, round(arguments.min_span_ms * 1e3)),
        format=arguments.format,
        timeout_s=arguments.timeout,
    )
