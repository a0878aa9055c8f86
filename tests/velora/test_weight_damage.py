"""Damaged and hostile files of weights: they are refused in one line, and nothing in them runs."""

from __future__ import annotations

import copy
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.velora.weight_files import FORMATS, save_torchscript, small_clip
from velora import ModelError
from velora.weights import read_weights


class Hostile:
    """Unpickled by an ordinary reader, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


def repack(archive: Path, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Replace the first member of an archive whose name ends so."""
    with zipfile.ZipFile(archive) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    target = next(member for member in members if member.endswith(name))
    with zipfile.ZipFile(archive, "w") as new:
        for member, data in members.items():
            own = member == target
            new.writestr(member, content if own else data, compression if own else zipfile.ZIP_STORED)


def hostile_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(Hostile(marker)))


def hostile_state_dict(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": Hostile(marker)}, path)


def compressed_storage(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    repack(path, "/data/0", bytes(1_000_000), zipfile.ZIP_DEFLATED)


def compressed_state_dict(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": torch.ones(3)}, path)
    repack(path, "/data.pkl", bytes(1_000_000), zipfile.ZIP_DEFLATED)


def storage_too_short(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    repack(path, "/data/0", bytes(2))


def overlapping_parts(path: Path, marker: Path) -> None:
    """Ten entries of the zip's directory name the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data/0", bytes(10_000))
        for i in range(1, 10):
            again = copy.copy(archive.infolist()[0])
            again.filename = f"w/data/{i}"
            archive.filelist.append(again)


def no_directory(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09"))


def expanded_state_dict(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": torch.zeros(1).expand(1 << 40)}, path)


def expanded_torchscript(path: Path, marker: Path) -> None:
    holder = nn.Module()
    holder.register_buffer("proj", torch.zeros(1).expand(1 << 40))
    torch.jit.script(holder).save(str(path))


def no_values(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": torch.empty(3, device="meta")}, path)


def sparse(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": torch.eye(3).to_sparse()}, path)


def cut(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def garbage(path: Path, marker: Path) -> None:
    path.write_bytes(bytes(range(256)))


def a_list(path: Path, marker: Path) -> None:
    torch.save([torch.ones(3)], path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (hostile_pickle, "it is damaged, or holds more than tensors"),
        (hostile_state_dict, "it is damaged, or holds more than tensors"),
        (compressed_storage, "data/0 is compressed"),
        (compressed_state_dict, "data.pkl is compressed"),
        (storage_too_short, "out of bounds"),
        (overlapping_parts, "its parts overlap"),
        (no_directory, "damaged zip"),
        (expanded_state_dict, "its tensors claim to be larger than the file"),
        (expanded_torchscript, "its tensors claim to be larger than the file"),
        (no_values, "visual.proj is no plain tensor"),
        (sparse, "visual.proj is no plain tensor"),
        (cut, "it is damaged"),
        (garbage, "it is damaged"),
        (a_list, "it is no state dict"),
    ],
)
def test_refuses_what_is_no_weights_without_running_any_of_it(
    tmp_path: Path, make: Callable[[Path, Path], None], reason: str
) -> None:
    make(tmp_path / "weights.pt", tmp_path / "marker")
    check_refused(tmp_path, reason)


def check_refused(folder: Path, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"weights.pt cannot be read as weights \(.*{reason}.*\): fetch") as caught:
        read_weights(folder / "weights.pt")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert not (folder / "marker").exists()


def text(string: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(string)) + string.encode()


def module(items: bytes = b"") -> bytes:
    """A new module with some attributes."""
    return b"c__torch__\nNode\n)\x81}(" + items + b"ub"


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nHalfStorage\n" + text("0") + text("cpu")
) + b"K\x01tQK\x00K\x01\x85K\x01\x85tR"  # storage 0, offset 0, size (1,), stride (1,)


def chain(length: int) -> bytes:
    """Each module holds the next one twice: to walk every path would take for ever."""
    pickled = module()
    for _ in range(length):
        pickled = module(text("a") + pickled + b"q\x00" + text("b") + b"h\x00")
    return pickled


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"cos\nmkdir\n" + text("marker") + b"\x85R", "it names os.mkdir, which no weights need"),
        (b"cbuiltins\neval\n" + text("1") + b"\x85R", "it names builtins.eval"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "it names torch._utils._rebuild_tensor_v2.__glob"),
        (b"c\x1b[31mred\rline\nname\n", r"it names \?\[31mred\?line.name"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}b", "it changes a function as if it were a Node"),
        (TENSOR + b"}b", "it changes a Tensor as if it were a Node"),
        (TENSOR + b"(K\x00K\x01u", "it changes a Tensor as if it were a dict"),
        (text("storage") + b"Q", "too many values"),
        (b"((" + text("eval") + b"NNNNtQ", "unknown reference"),
        (b"\x96" + struct.pack("<Q", 1 << 60), "expected 1152921504606846976 bytes"),
        (b"]r\xff\xff\xff\x7f]q\x00R", "it makes an object of no known kind"),  # memo number 2^31 - 1
        (b"}(" + b"(t" + 40 * b"q\x00h\x00\x86" + b"Nu", "it names attributes by what is no name"),
        (b"ctorch.jit._pickle\nbuild_intlist\n(" + 9 * b"N" + b"tR", "it makes an object of no known kind"),
        (b"\x86", "it takes what is not there"),
        (b"0", "it does POP"),
        (chain(40), "its modules are nested too deeply"),
        (module(text("a" * 501) + TENSOR), "its names are too long"),
    ],
)
def test_a_torchscript_archive_is_data_alone(tmp_path: Path, pickled: bytes, reason: str) -> None:
    save_torchscript(small_clip(), tmp_path / "weights.pt")
    repack(tmp_path / "weights.pt", "/data.pkl", b"\x80\x02" + pickled + b".")
    check_refused(tmp_path, reason)


def test_the_hostile_archives_are_otherwise_sound(tmp_path: Path) -> None:
    save_torchscript(small_clip(), tmp_path / "weights.pt")
    pickled = module(text("a") + TENSOR + text("b") + module(text("c") + TENSOR) + text("again") + chain(3))
    repack(tmp_path / "weights.pt", "/data.pkl", b"\x80\x02" + pickled + b".")
    assert {name: tuple(t.shape) for name, t in read_weights(tmp_path / "weights.pt").items()} == {
        "a": (1,),
        "b.c": (1,),
    }


@pytest.mark.parametrize("format", FORMATS)
def test_damage_anywhere_gives_weights_or_one_line(tmp_path: Path, format: str) -> None:
    FORMATS[format](small_clip(), tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    rng = random.Random(0)
    refused = 0
    for i in range(300):
        data = bytearray(good)
        place = (rng.randrange(9000), -1 - rng.randrange(12000), rng.randrange(len(good)))[
            i % 3
        ]  # names are at the ends
        data[place] = rng.randrange(256)
        (tmp_path / "weights.pt").write_bytes(data[: rng.randrange(len(data)) if i % 10 == 0 else None])
        try:
            read_weights(tmp_path / "weights.pt")
        except ModelError as error:
            refused += 1
            assert str(error).isprintable() and "weights.pt" in str(error)
    assert refused > 30


def test_the_hostile_files_would_have_run(tmp_path: Path) -> None:
    hostile_pickle(tmp_path / "weights.pt", tmp_path / "marker")
    pickle.loads((tmp_path / "weights.pt").read_bytes())
    assert (tmp_path / "marker").exists()
