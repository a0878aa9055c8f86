"""Weights from wherever they are, in every format they come in; nothing is fetched, and nothing in a file runs."""

from __future__ import annotations

import copy
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from velora import ModelError, load_recognizer
from velora.backbones import WELL_KNOWN, backbone
from velora.weights import find_weights, load_tower, random_tower, read_clip, read_weights

SMALL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2},
}


@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_finds_weights_where_they_may_be(home: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    tower = random_tower("ViT-B-32-quickgelu", torch.Generator())
    expected = tower.positional_embedding.half()
    state = {prefix + name: tensor.half() for name, tensor in tower.state_dict().items()}
    places = [home / ".cache/velora/ViT-B-32-quickgelu.safetensors", home / "w" / "ViT-B-32-quickgelu.safetensors"]
    for place, variable in zip(places, (None, "w"), strict=True):
        place.parent.mkdir(parents=True)
        save_file(state | {"logit_scale": torch.ones(1)}, place)
        if variable:
            monkeypatch.setenv("VELORA_WEIGHTS", str(home / variable))
        assert find_weights("ViT-B-32-quickgelu") == place
        assert torch.equal(load_tower("ViT-B-32-quickgelu").positional_embedding.half(), expected)
        place.unlink()


def test_finds_weights_in_the_hubs_cache(home: Path) -> None:
    repo = home / "hub" / "models--timm--vit_base_patch16_clip_224.openai"
    file = repo / "snapshots" / "abc" / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    assert find_weights("ViT-B-16-quickgelu") == file


@pytest.mark.timing
@pytest.mark.parametrize("name", WELL_KNOWN)
def test_missing_weights_are_explained_at_once(home: Path, name: str) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_recognizer(name)
    message = str(caught.value)
    assert time.monotonic() - start < 2
    assert "\n" not in message and "http" not in message
    repo = backbone(name).hub_repo
    for part in ("open_clip_model.safetensors", str(repo), f"{name}.safetensors", "--random-weights"):
        assert part in message


def test_a_variable_that_names_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELORA_WEIGHTS", "/nowhere/at/all")
    with pytest.raises(ModelError, match="VELORA_WEIGHTS names /nowhere/at/all"):
        load_recognizer("ViT-B-16-quickgelu")


def test_broken_backbones(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "weights.safetensors"
    monkeypatch.setenv("VELORA_WEIGHTS", str(file))
    for broken, message in ((b"\xff" * 100, "cannot be read"), (b"", "cannot be read")):
        file.write_bytes(broken)
        with pytest.raises(ModelError, match=message):
            load_recognizer("ViT-B-16-quickgelu")
    save_file({"visual.conv1.weight": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match=r"weights.safetensors has no tensor .* `hf download"):
        load_recognizer("ViT-B-16-quickgelu")


def small_clip() -> nn.Module:
    torch.manual_seed(0)
    return open_clip.CLIP(**SMALL).eval()


def save_torchscript(model: nn.Module, path: Path, dtype: torch.dtype = torch.half) -> None:
    """As OpenAI published its models: traced, in half precision."""
    inputs = torch.randn(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, inputs, check_trace=False).to(dtype).save(str(path))


def save_training_run(model: nn.Module, path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in model.state_dict().items()}}, path)


FORMATS: dict[str, Callable[[nn.Module, Path], None]] = {
    "safetensors": lambda model, path: save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path),
    "state dict": lambda model, path: torch.save(model.state_dict(), path),
    "old state dict": lambda m, path: torch.save(m.state_dict(), path, _use_new_zipfile_serialization=False),
    "training run": save_training_run,
    "TorchScript": save_torchscript,
    "TorchScript, fp32": lambda model, path: save_torchscript(model, path, torch.float32),
}


@pytest.mark.parametrize("format", FORMATS)
def test_reads_every_format_whatever_its_suffix(tmp_path: Path, format: str) -> None:
    model = small_clip()
    FORMATS[format](model, tmp_path / "weights.bin")
    found = read_weights(tmp_path / "weights.bin")
    expected = model.half().state_dict() if format == "TorchScript" else small_clip().state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("folder", ["clip", "velora"])
def test_a_backbone_from_openais_own_file(home: Path, folder: str) -> None:
    tower = random_tower("ViT-B-32-quickgelu", torch.Generator())
    file = home / ".cache" / folder / "ViT-B-32.pt"
    file.parent.mkdir(parents=True)
    torch.save({f"visual.{name}": t.half() for name, t in tower.state_dict().items()} | {"vocab_size": 49408}, file)
    assert find_weights("ViT-B-32-quickgelu") == find_weights("ViT-B-32-quickgelu", "openai") == file
    assert torch.equal(load_tower("ViT-B-32-quickgelu").proj, tower.proj.half().float())
    with pytest.raises(ModelError, match="no weights for ViT-B-32:"):  # another activation, other weights
        find_weights("ViT-B-32")


@pytest.mark.parametrize("file", ["ViT-B-16-quickgelu.safetensors", "ViT-B-16-quickgelu-openai.pth"])
@pytest.mark.parametrize("tag", ["", "openai"])
def test_the_usual_weights_need_no_tag_and_may_have_it(home: Path, file: str, tag: str) -> None:
    path = home / ".cache" / "velora" / file
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_weights("ViT-B-16-quickgelu", tag) == path
    with pytest.raises(ModelError, match="no weights for .*dfn2b"):
        find_weights("ViT-B-16-quickgelu", "dfn2b")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ViT-H-14",
            "ViT-H-14 has no usual weights: --weights takes a file, or one of laion2b_s32b_b79k, .*; --random",
        ),
        ("ViT-S-16", "ViT-S-16 has no usual weights: put a file of its weights at .*/ViT-S-16.safetensors, or set "),
    ],
)
def test_backbones_without_usual_weights(home: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_weights(name)
    save_file({"visual.proj": torch.zeros(3)}, home / "mine.safetensors")
    for load, lacks in ((load_tower, "has no tensor class_embedding"), (read_clip, "holds no text tower")):
        with pytest.raises(ModelError, match=f"mine.safetensors {lacks}.*: put a file of its weights at"):
            load(name, file=home / "mine.safetensors")


def test_other_weights_by_their_tag(home: Path) -> None:
    folder = home / ".cache" / "velora"
    folder.mkdir(parents=True)
    (folder / "ViT-B-16-laion400m_e32.pt").touch()
    assert find_weights("ViT-B-16", "laion400m_e32") == folder / "ViT-B-16-laion400m_e32.pt"
    with pytest.raises(ModelError, match=r"no weights for ViT-B-16: `hf download laion/CLIP-ViT-B-16-laion2B"):
        find_weights("ViT-B-16")
    with pytest.raises(ModelError, match=r"\(dfn2b\): `hf download apple/DFN2B-CLIP-ViT-B-16 .*ViT-B-16-dfn2b.saf"):
        find_weights("ViT-B-16", "dfn2b")
    with pytest.raises(ModelError, match=r"ViT-B-16 has no weights tagged 'gold': .*laion400m_e32"):
        find_weights("ViT-B-16", "gold")


def test_a_single_file_serves_whoever_asks_for_usual_weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine.pt").touch()
    monkeypatch.setenv("VELORA_WEIGHTS", str(home / "mine.pt"))
    assert find_weights("ViT-B-16") == find_weights("ViT-B-16-quickgelu", "openai") == home / "mine.pt"
    with pytest.raises(ModelError, match=r"no weights for ViT-B-16 \(dfn2b\)"):
        find_weights("ViT-B-16", "dfn2b")


def test_weights_for_what_has_its_own_are_refused(home: Path) -> None:
    with pytest.raises(ModelError, match="the demo's backbone comes with its weights"):
        load_recognizer("demo", weights="openai")


def test_a_recogniser_with_other_weights(home: Path) -> None:
    tower = random_tower("ViT-B-32", torch.Generator().manual_seed(3))
    save_file({f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}, home / "mine.safetensors")
    recognizer = load_recognizer("ViT-B-32", weights=str(home / "mine.safetensors"), dtype="fp32", device="cpu")
    assert torch.equal(recognizer.model.tower.proj, tower.proj) and recognizer.random_parts == ("adapters", "head")
    for missing in ("nowhere.pt", "no/where"):
        with pytest.raises(ModelError, match=f"{missing}: no such file of weights"):
            load_recognizer("ViT-B-32", weights=missing)
    with pytest.raises(ModelError, match="ViT-B-32 has no weights tagged 'nowhere'"):
        load_recognizer("ViT-B-32", weights="nowhere")


def test_the_fetching_command_is_installed() -> None:
    hf = Path(sys.executable).with_name("hf")
    done = subprocess.run([hf, "download", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "FILENAMES" in done.stdout


def test_text_towers(tmp_path: Path) -> None:
    model = small_clip()
    save_torchscript(model, tmp_path / "clip.pt")
    names = {name for name, _ in model.named_parameters()}
    assert read_clip("ViT-B-16-quickgelu", file=tmp_path / "clip.pt").keys() == names
    save_file({"visual.proj": torch.ones(2)}, tmp_path / "vision.safetensors")
    with pytest.raises(ModelError, match="vision.safetensors holds no text tower"):
        read_clip("ViT-B-16-quickgelu", file=tmp_path / "vision.safetensors")


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
        (b"c\x1b[31mred\rline\nname\n", r"it names \[31mredline.name"),
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


def test_nested_modules_keep_their_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5, bias=False)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(tmp_path / "nested.pt"))
    found: dict[str, Tensor] = read_weights(tmp_path / "nested.pt")
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "0.weight": (4, 3),
        "0.bias": (4,),
        "1.0.weight": (5, 4),
    }
