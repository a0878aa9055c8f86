"""Files of torch.save as the fuzzer has them, weights and the authors' checkpoints: the zip, and the pickle in it."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from numpy.random import Generator

from tests.trust.fuzz.checkpoints import head_size, tensor_heads
from tests.trust.fuzz.harness import Case, Format
from tests.trust.fuzz.model_routes import MARKER, convert, recognise_with_weights, released, weights
from tests.trust.fuzz.mutations import ANY_BYTES, Harm, of_file, of_files
from tests.velora.fabricate import released_checkpoint
from tests.velora.weight_files import FORMATS, small_clip

#: What is raised of a zip that was harmed before.
_NO_ZIP = (ValueError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, OSError, EOFError)
_RELEASED, _WEIGHTS = "released.pth", "weights.pt"


def released_seeds(folder: Path) -> Sequence[Case]:
    """As the authors save them, with equal and with different encoders."""
    cases = []
    for encoders in ("equal", "different"):
        file = io.BytesIO()
        torch.save(released_checkpoint(classes=5, encoders=encoders), file)
        cases.append(Case({_RELEASED: file.getvalue()}, _RELEASED))
    return cases


def weight_seeds(folder: Path) -> Sequence[Case]:
    """A small CLIP in each format that weights come in."""
    folder.mkdir(parents=True)
    for write in FORMATS.values():
        write(small_clip(), folder / f"{len(list(folder.iterdir()))}")
    return [Case({_WEIGHTS: path.read_bytes()}, _WEIGHTS) for path in sorted(folder.iterdir())]


def repacked(data: bytes, change: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with other contents of some of its members; as it is where another harm has left no zip."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                packing = compression if name in change else zipfile.ZIP_STORED
                new.writestr(name, change[name] if name in change else old.read(name), packing)
    except _NO_ZIP:
        return data
    return out.getvalue()


def _pickle_in(data: bytes) -> tuple[str, bytes]:
    """The member of a zip that holds its pickle. Raises ValueError where there is none (any more)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return name, archive.read(name)
    except (StopIteration, *_NO_ZIP):
        raise ValueError("no pickle") from None


def pickled_bytes(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The pickle is damaged, in a zip that is sound."""
    try:
        name, own = _pickle_in(data)
        return repacked(data, {name: ANY_BYTES[str(rng.choice(sorted(ANY_BYTES)))](rng, own, own)})
    except ValueError:
        return data


def opcodes(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A few operations of the pickle are others."""
    try:
        name, own = _pickle_in(data)
    except ValueError:
        return data
    changed = bytearray(own)
    for _ in range(int(rng.integers(1, 6))):
        changed[int(rng.integers(len(changed)))] = rng.choice(list(b"()].}{[abcehijklmopqrstuQRSTUVX\x80\x81\x85\x93"))
    return repacked(data, {name: bytes(changed)})


class _Runs:
    """Unpickled by an ordinary reader, it would run something."""

    def __init__(self, which: int) -> None:
        self.which = which

    def __reduce__(self) -> tuple[object, ...]:
        import os
        import subprocess

        return (
            (os.mkdir, (MARKER,)),
            (os.system, (f"mkdir {MARKER}",)),
            (eval, (f"__import__('os').mkdir({MARKER!r})",)),
            (subprocess.call, (["mkdir", MARKER],)),
            (torch.load, (MARKER,)),
        )[self.which]


def running(rng: Generator, data: bytes, other: bytes) -> bytes:
    """A pickle that would run code: alone, in a zip, within a state dict, or at the beginning of the good one."""
    hostile = _Runs(int(rng.integers(5)))
    kind = int(rng.integers(4))
    file = io.BytesIO()
    if kind == 0:
        return pickle.dumps(hostile, protocol=int(rng.integers(6)))
    if kind == 1:
        torch.save({"state_dict": {"visual.proj": hostile}}, file)
        return file.getvalue()
    if kind == 2:
        torch.save({"visual.proj": hostile}, file, _use_new_zipfile_serialization=False)
        return file.getvalue()
    try:
        name, own = _pickle_in(data)
    except ValueError:
        return pickle.dumps(hostile)
    call = pickle.dumps(hostile, protocol=2)[2:-1] + b"0"
    return repacked(data, {name: own[:2] + call + own[2:]})


def bombs(rng: Generator, data: bytes, other: bytes) -> bytes:
    """What claims, or unpacks to, far more than the file has."""
    kind = int(rng.integers(5))
    file = io.BytesIO()
    if kind == 0:
        torch.save({"visual.proj": torch.zeros(1).expand(1 << 40)}, file)
        return file.getvalue()
    if kind == 1:
        return b"\x80\x02" + b"]" + b"2" * 100_000 + b"."  # DUP
    if kind == 2:
        return b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x."  # BINBYTES8
    if kind == 3:
        return b"\x80\x02" + b"(" * 1_000_000 + b"."
    try:
        name, _ = _pickle_in(data)
        return repacked(data, {name: bytes(1 << 26)}, zipfile.ZIP_DEFLATED)
    except ValueError:
        return data


def members(rng: Generator, data: bytes, other: bytes) -> bytes:
    """The parts of a zip are empty, cut, too long, or compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = str(rng.choice(archive.namelist()))
            own = archive.read(name)
    except _NO_ZIP:
        return data
    new = (b"", own[: len(own) // 2], own + own, bytes(len(own)), b"\xff" * len(own))[int(rng.integers(5))]
    return repacked(data, {name: new}, int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))


_KNOWING: Mapping[str, Harm] = {
    "the pickle damaged": pickled_bytes,
    "operations of the pickle": opcodes,
    "code that would run": running,
    "bombs": bombs,
    "parts of the zip": members,
}
_HARMS = of_files(ANY_BYTES) | of_files(_KNOWING)
_HEADS = {"heads of tensors lie": of_file(tensor_heads), "the size of the head lies": of_file(head_size)}

RELEASED = Format("released checkpoints (.pth)", released_seeds, _HARMS, (released, convert))
WEIGHTS = Format("weights", weight_seeds, _HARMS | _HEADS, (weights, recognise_with_weights))
