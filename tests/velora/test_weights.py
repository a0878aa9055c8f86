"""Weights from wherever they are, in every format they come in; nothing is fetched, and nothing in a file runs."""

from __future__ import annotations

import os
import pickle
import random
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


def save_torchscript(model: nn.Module, path: Path) -> None:
    """As OpenAI published its models: traced, in half precision."""
    inputs = torch.randn(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, inputs, check_trace=False).half().save(str(path))


def save_training_run(model: nn.Module, path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in model.state_dict().items()}}, path)


FORMATS: dict[str, Callable[[nn.Module, Path], None]] = {
    "safetensors": lambda model, path: save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path),
    "state dict": lambda model, path: torch.save(model.state_dict(), path),
    "old state dict": lambda m, path: torch.save(m.state_dict(), path, _use_new_zipfile_serialization=False),
    "training run": save_training_run,
    "TorchScript": save_torchscript,
}


@pytest.mark.parametrize("format", FORMATS)
def test_reads_every_format_whatever_its_suffix(tmp_path: Path, format: str) -> None:
    model = small_clip()
    FORMATS[format](model, tmp_path / "weights.bin")
    found = read_weights(tmp_path / "weights.bin")
    expected = model.half().state_dict() if format == "TorchScript" else small_clip().state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_backbone_from_openais_own_file(home: Path) -> None:
    tower = random_tower("ViT-B-32-quickgelu", torch.Generator())
    file = home / ".cache" / "clip" / "ViT-B-32.pt"
    file.parent.mkdir(parents=True)
    torch.save({f"visual.{name}": t.half() for name, t in tower.state_dict().items()} | {"vocab_size": 49408}, file)
    assert find_weights("ViT-B-32-quickgelu") == find_weights("ViT-B-32-quickgelu", "openai") == file
    assert torch.equal(load_tower("ViT-B-32-quickgelu").proj, tower.proj.half().float())
    with pytest.raises(ModelError, match="no weights for ViT-B-32:"):  # another activation, other weights
        find_weights("ViT-B-32")


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


def hostile_torchscript(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    repack(path, "/data.pkl", pickle.dumps(Hostile(marker)))


def storage_too_short(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    repack(path, "/data/0", bytes(2))


def compressed_storage(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    repack(path, "/data/0", bytes(1_000_000), zipfile.ZIP_DEFLATED)


def circular_modules(path: Path, marker: Path) -> None:
    """Each of 40 modules holds the next one twice: to walk every path would take for ever."""
    save_torchscript(small_clip(), path)
    node = b"c__torch__\nNode\n)\x81"  # GLOBAL, EMPTY_TUPLE, NEWOBJ
    pickled = b"\x80\x02" + node
    for _ in range(40):  # MEMOIZE-like PUT, then a dict {a: it, b: it} as the state of a new module
        pickled += b"q\x00" + node + b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub"
    repack(path, "/data.pkl", pickled + b".")


def giant_memo(path: Path, marker: Path) -> None:
    save_torchscript(small_clip(), path)
    repack(path, "/data.pkl", b"\x80\x02]r\xff\xff\xff\x7f]q\x00X\x01\x00\x00\x00aR.")


def cut(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def garbage(path: Path, marker: Path) -> None:
    path.write_bytes(bytes(range(256)))


def a_list(path: Path, marker: Path) -> None:
    torch.save([torch.ones(3)], path)


@pytest.mark.parametrize(
    "make",
    [
        hostile_pickle,
        hostile_state_dict,
        hostile_torchscript,
        storage_too_short,
        compressed_storage,
        circular_modules,
        giant_memo,
        cut,
        garbage,
        a_list,
    ],
)
def test_refuses_what_is_no_weights_without_running_any_of_it(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    make(tmp_path / "weights.pt", tmp_path / "marker")
    with pytest.raises(ModelError, match="weights.pt cannot be read as weights") as caught:
        read_weights(tmp_path / "weights.pt")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "marker").exists()


def test_flipped_bytes_give_weights_or_one_line(tmp_path: Path) -> None:
    torch.save({f"visual.{i}": torch.ones(3) for i in range(20)}, tmp_path / "good.pt")
    good = (tmp_path / "good.pt").read_bytes()
    pickled = good.index(b"\x80\x02}")
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        data[pickled + rng.randrange(400)] = rng.randrange(256)
        (tmp_path / "weights.pt").write_bytes(data)
        try:
            read_weights(tmp_path / "weights.pt")
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error) and "weights.pt" in str(error)
    assert refused > 50


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
