"""Checkpoints as the fuzzer has them: config.json, the head and the numbers of safetensors, each harmed by itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from tests.trust.fuzz.harness import Case, Format, Mutator
from tests.trust.fuzz.model_routes import info, load, recognise
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, lie, of_files
from velora.checkpoint import ADAPTER, CONFIG, Checkpoint, random_tensors, save_checkpoint
from velora.config import VELoRAConfig

_FOLDER = "checkpoint"
_VARIANTS: tuple[dict[str, Any], ...] = ({}, {"adapter": "clora"}, {"adapter": "none"}, {"motion": "off", "rank": 1})


def seeds(folder: Path) -> Sequence[Case]:
    """Of each way to adapt, around the demo's backbone, with random numbers."""
    cases = []
    for number, variant in enumerate(_VARIANTS):
        config = VELoRAConfig(("left", "right", "up"), "demo", **variant)
        checkpoint = Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(number)))
        save_checkpoint(folder / str(number), checkpoint, card="# made for a test\n")
        files = {f"{_FOLDER}/{path.name}": path.read_bytes() for path in (folder / str(number)).iterdir()}
        cases.append(Case(files, _FOLDER))
    return cases


def _of(name: str, harm: Harm) -> Mutator:
    def mutator(rng: Generator, case: Case, other: Case) -> Case:
        path = f"{_FOLDER}/{name}"
        return case.but(**{path: harm(rng, case.files[path], other.files[path])})

    return mutator


# --- config.json ------------------------------------------------------------------------------------------------------

#: As they stand in JSON, which allows some that no other program writes.
ODD_VALUES = (
    *("null", "true", "NaN", "Infinity", "-Infinity", "1e400", "-1", "0", "0.5", "2147483647", "2147483648"),
    *("9223372036854775808", "9" * 5000, "-0", '""', '"x"', "[]", "{}", "[[]]", '["a", null]', '[["a"]]', "[1, 2, 3]"),
    *('"../../etc/passwd"', '"/etc/passwd"', '"hf-hub:somebody/evil"', '"ViT-B-16"', '"https://example.org/a"'),
    *(r'"\u0000"', r'"\ud800"', r'"\u001b[31m"', '"<script>alert(1)</script>"', '"=1+1"', '"' + "a" * 300 + '"'),
    *('{"style": "paint", "period_us": -1}', '{"style": []}', '{"x": 1}', '{"period_us": 1e30}', '{"style": "count"}'),
    *('["a", "a"]', "[" + ", ".join('"a"' for _ in range(20_001)) + "]", "[" * 500 + "]" * 500, "[" * 100_000),
)


def fields(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Fields of other values and types, missing, twice, or unknown."""
    try:
        config = json.loads(data)
        names = sorted(config)
    except (ValueError, TypeError, RecursionError):
        return data
    changed = {name: json.dumps(value) for name, value in config.items()}
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        name = str(rng.choice([*names, "unknown", "__class__", "format_version", "labels", "rendering"]))
        changed[name] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
        if rng.random() < 0.1:
            del changed[name]
    lines = [f"{json.dumps(name)}: {value}" for name, value in changed.items()]
    lines += lines[:2] if rng.random() < 0.1 else []
    return ("{" + ",\n".join(lines) + "}").encode(errors="surrogatepass")


def other_values(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Values that are allowed, but are others than the tensors were made for."""
    try:
        config = json.loads(data)
        name = str(rng.choice(sorted(_ALLOWED)))
        config[name] = _ALLOWED[name][int(rng.integers(len(_ALLOWED[name])))]
    except (ValueError, TypeError, RecursionError):
        return data
    return json.dumps(config).encode()


_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "rank": (1, 3, 256),
    "frames": (1, 2, 256),
    "alpha": (1, 4096),
    "pairs": (1, 256),
    "adapter": ("lora", "clora", "none", "full"),
    "preset": ("paper", "released", "zero-shot"),
    "motion": ("shared", "head", "off"),
    "own_towers": (0, 1, 3),
    "labels": (["a"], ["a", "b", "c", "d"], [str(k) for k in range(20_000)]),
    "backbone": ("demo", "ViT-B-16-quickgelu", "ViT-L-14-336-quickgelu", "ViT-bigG-14", "RN50", "convnext_base"),
    "sample_period_us": (100, 60_000_000),
    "exposure_us": (0, 60_000_000),
    "temperature": (0.01, 100.0),
    "unsure_below": (0.0, 1.0),
    "trained": (True, False),
    "mean": ([0, 0, 0], [-1, 10, 0]),
    "std": ([1e-6, 1, 1], [0, 1, 1], [1e-300, 1, 1]),
    "rendering": ({"style": "count"}, {"style": "time_surface", "tau_us": 1}, {"period_us": 1}, {"max_window_us": 1}),
}


# --- safetensors ------------------------------------------------------------------------------------------------------


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The head of a safetensors file and its numbers. Raises ValueError where it is none (any more)."""
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + min(size, len(data))])
    if not isinstance(head, dict) or not head:
        raise ValueError("no head")
    return head, data[8 + size :]


def joined(head: Mapping[str, Any], numbers: bytes, size: int | None = None) -> bytes:
    """A file with this head, of another claimed size perhaps."""
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + numbers


def tensor_heads(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Types, shapes and offsets that lie; tensors missing, renamed, overlapping."""
    try:
        head, numbers = split(data)
    except (ValueError, RecursionError):
        return data
    names = [name for name in head if name != "__metadata__"]
    for _ in range(int(rng.choice([1, 1, 3, 20]))):
        entry = head.get(str(rng.choice(names)))
        if isinstance(entry, dict):
            _harm_entry(rng, entry, len(numbers))
    if rng.random() < 0.3:
        name = str(rng.choice(names))
        entry = head.pop(name, {})
        head[str(rng.choice(["x", "__metadata__", name + "\x00", "../" + name, "a" * 10_000, names[0]]))] = entry
    return joined(head, numbers)


def _harm_entry(rng: Generator, entry: dict[str, Any], size: int) -> None:
    match int(rng.integers(4)):
        case 0:
            entry["dtype"] = str(rng.choice(["F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "x", ""]))
        case 1:
            shape = [
                [],
                [0],
                [-1],
                [1 << 31, 1 << 31],
                [1 << 62, 2],
                (entry.get("shape") or [])[::-1],
                None,
                "2",
                [1.5],
            ]
            entry["shape"] = shape[int(rng.integers(len(shape)))]
        case 2:
            lies = (0, 1, -1, size, size + 1, size // 2, (1 << 31) - 1, 1 << 63, (1 << 64) - 1)
            entry["data_offsets"] = [int(lies[k]) for k in rng.integers(0, len(lies), 2).tolist()]
        case 3:
            entry.pop(str(rng.choice(sorted(entry))), None) if entry else None


def head_size(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The size of the head lies."""
    return lie(rng, 8, int.from_bytes(data[:8], "little")) + data[8:]


def numbers(rng: Generator, data: bytes, other: bytes) -> bytes:
    """Numbers that are none, without end, or so large that sums are."""
    try:
        head, tensors = split(data)
    except (ValueError, RecursionError):
        return data
    values = np.frombuffer(tensors[: len(tensors) // 4 * 4], "<f4").copy()
    if len(values):
        some = rng.integers(0, len(values), int(rng.choice([1, 100, len(values)])))
        values[some] = float(rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0]))
    return joined(head, values.tobytes())


_KNOWING: Mapping[str, Mutator] = {
    "fields of the config": _of(CONFIG, fields),
    "fields of the config, again": _of(CONFIG, fields),
    "other values": _of(CONFIG, other_values),
    "heads of tensors lie": _of(ADAPTER, tensor_heads),
    "the size of the head lies": _of(ADAPTER, head_size),
    "odd numbers": _of(ADAPTER, numbers),
}

CHECKPOINTS = Format("checkpoints", seeds, of_files(ANY_BYTES) | _KNOWING, (load, info, recognise))
