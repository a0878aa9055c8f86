"""HDF5 as the fuzzer has it: the layouts of known data sets, the blocks of the format harmed by their signatures."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.random import Generator

from tests.conftest import random_events
from tests.streams.test_hdf5 import RECORD, columns
from tests.trust.fuzz.harness import Case, Format, Mutator
from tests.trust.fuzz.mutations import ANY_BYTES, of_files, tagged
from tests.trust.fuzz.routes import decoder, info, label, replay

_NAME = "case.h5"
_EVENTS = random_events(600, 1_000_000, 1_300_000, (346, 260))
_SIGNATURES = (b"TREE", b"HEAP", b"SNOD", b"GCOL", b"OHDR", b"FRHP", b"BTHD", b"EAHD", b"FAHD", b"\x89HDF")


def _plain(file: Any) -> None:
    columns(file.create_group("events"), events=_EVENTS)
    file.attrs["geometry"] = np.bytes_("346x260")


def _packed(file: Any) -> None:
    columns(file.create_group("events"), events=_EVENTS, chunks=(100,), compression="gzip", shuffle=True)
    file["t_offset"] = 900_000


def _checked(file: Any) -> None:
    columns(file.create_group("prophesee/left"), events=_EVENTS, compression="lzf", fletcher32=True)
    file["prophesee/left/calib/resolution"] = [346, 260]


def _records(file: Any) -> None:
    records = np.zeros(len(_EVENTS), RECORD)
    for name in "xypt":
        records[name] = _EVENTS[name]
    file.create_dataset("CD/events", data=records, chunks=(128,), maxshape=(None,))


def _array(file: Any) -> None:
    file["davis/left/events"] = np.stack([_EVENTS["x"], _EVENTS["y"], _EVENTS["t"] / 1e6, _EVENTS["p"]], axis=1)


_LAYOUTS = (_plain, _packed, _checked, _records, _array)


def seeds(folder: Path) -> Sequence[Case]:
    """Each layout as old and as new programs write it."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_made(folder, fill, version) for fill in _LAYOUTS for version in ("earliest", "latest")]


def _made(folder: Path, fill: Callable[[Any], None], version: str = "earliest") -> Case:
    path = folder / _NAME
    with h5py.File(path, "w", libver=version) as file:
        fill(file)
    return Case({_NAME: path.read_bytes()}, _NAME)


# --- files that claim too much ------------------------------------------------------------------------------------


def _in_memory(fill: Callable[[Any], None]) -> bytes:
    name = f"made {threading.get_ident()}"  # two open files of one name are one
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        image: bytes = file.id.get_file_image()
        return image


def claims(rng: Generator, case: Case, other: Case) -> Case:
    """Datasets that are said to be endless, that unpack to much more than they are, or that are made of others."""
    return case.but(data=_in_memory(_CLAIMS[int(rng.integers(len(_CLAIMS)))]))


def _endless(file: Any) -> None:
    for name, kind in zip("xytp", ("u2", "u2", "i8", "u1"), strict=True):
        file.create_dataset(name, (1 << 31,), kind, chunks=(1 << 16,), compression="gzip", fillvalue=1)


def _unwritten(file: Any) -> None:
    for name in "xytp":
        file.create_dataset(name, (1 << 22,), "i8", chunks=(1 << 10,), fillvalue=-1 if name == "t" else 3)


def _bomb(file: Any) -> None:
    packed = zlib.compress(bytes(1 << 26), 9)
    for name, kind in zip("xytp", ("u2", "u2", "i8", "u1"), strict=True):
        made = file.create_dataset(name, (1 << 12,), kind, chunks=(1 << 12,), compression="gzip")
        made.id.write_direct_chunk((0,), packed)


def _heavy(file: Any) -> None:
    for name, kind in zip("xytp", ("u2", "u2", "i8", "u1"), strict=True):
        file.create_dataset(name, data=np.zeros(1 << 22, kind), chunks=(1 << 20,), compression="gzip")


def _large_pieces(file: Any) -> None:
    for name in "xytp":
        file.create_dataset(name, (1 << 24,), "i8", chunks=(1 << 24,), compression="gzip", fillvalue=0)


def _cubes(file: Any) -> None:
    file.create_dataset("events", (1 << 31, 4), "f8", chunks=(1 << 14, 4))


def _odd_kinds(file: Any) -> None:
    file.create_dataset("x", data=np.arange(600), dtype="u2")
    file.create_dataset("y", data=["a"] * 600)
    file.create_dataset("t", data=np.linspace(0, np.inf, 600))
    file.create_dataset("p", data=np.zeros(600, [("a", "i1"), ("b", "f8", (1 << 10,))]))


def _impossible(file: Any) -> None:
    file["x"] = np.full(600, -5, "i8")
    file["y"] = np.full(600, np.nan)
    file["t"] = np.array([0, 1 << 62, -1, (1 << 63) - 1, 5, 10**18] * 100)
    file["p"] = np.ones(600, "u1")


def _many_groups(file: Any) -> None:
    for number in range(3_000):
        file.create_group(f"a/{number}/b")


def _deep(file: Any) -> None:
    group = file
    for _ in range(1_500):
        group = group.create_group("a")


def _elsewhere(file: Any) -> None:
    file["x"], file["y"] = h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/y")
    layout = h5py.VirtualLayout((600,), "i8")
    layout[:] = h5py.VirtualSource("/dev/zero", "t", (600,))
    file.create_virtual_dataset("t", layout)
    file.create_dataset("p", (600,), "u1", external=[("/dev/zero", 0, 600)])


_CLAIMS = (_endless, _unwritten, _bomb, _heavy, _large_pieces, _cubes, _odd_kinds, _impossible, _many_groups, _deep)
_CLAIMS += (_elsewhere,)

_KNOWING: Mapping[str, Mutator] = {"claims too much": claims}

HDF5 = Format(
    "HDF5",
    seeds,
    of_files({**ANY_BYTES, "blocks lie": tagged(_SIGNATURES, 64), "more of them lie": tagged(_SIGNATURES, 400)})
    | _KNOWING,
    (decoder, replay, info, label),
    few=150,
)
