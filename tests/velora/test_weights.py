"""Weights from wherever they are, by name, tag or file; what is missing is explained, and nothing is fetched."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from velora import ModelError, load_recognizer
from velora.backbones import WELL_KNOWN, backbone
from velora.weights import find_weights, load_tower, random_tower, read_clip


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
    with pytest.raises(ModelError, match=r"\(dfn2b\): `hf download apple/DFN2B-CLIP-ViT-B-16 .*quickgelu-dfn2b.saf"):
        find_weights("ViT-B-16-quickgelu", "dfn2b")
    with pytest.raises(ModelError, match=r"ViT-B-16 has no weights tagged 'gold': .*laion400m_e32"):
        find_weights("ViT-B-16", "gold")


def test_a_single_file_serves_whoever_asks_for_usual_weights(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine.pt").touch()
    monkeypatch.setenv("VELORA_WEIGHTS", str(home / "mine.pt"))
    assert find_weights("ViT-B-16") == find_weights("ViT-B-16-quickgelu", "openai") == home / "mine.pt"
    with pytest.raises(ModelError, match=r"no weights for ViT-B-16-quickgelu \(dfn2b\)"):
        find_weights("ViT-B-16-quickgelu", "dfn2b")


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


@pytest.mark.parametrize("tag", ["openai", "dfn2b", "metaclip_400m"])
def test_weights_that_were_trained_with_another_activation_are_refused(home: Path, tag: str) -> None:
    """Their shapes fit; their features would be wrong without a word."""
    (home / "mine.pt").touch()
    for ask in (find_weights, load_tower):
        with pytest.raises(ModelError, match=f"weights '{tag}' .* QuickGELU: use the backbone ViT-B-16-quickgelu"):
            ask("ViT-B-16", tag)
    with pytest.raises(ModelError, match="use the backbone ViT-B-16-quickgelu"):
        load_tower("ViT-B-16", tag, home / "mine.pt")
