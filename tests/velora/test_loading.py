"""Loading: the demo, backbones, checkpoints; what is missing or broken is said in one line, and nothing is fetched."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.velora.conftest import make_config, make_recognizer, make_sample
from velora import ModelError, VELoRA, load_recognizer
from velora.backbones import BACKBONES
from velora.checkpoint import Checkpoint, load_checkpoint, random_tensors, save_checkpoint, trained_tensors
from velora.demo.make import make
from velora.loading import DEMO
from velora.weights import find_backbone, load_tower, random_tower


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, without weights anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VELORA_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = make_config(trained=True)
    tensors = random_tensors(config, torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "cards", Checkpoint(config, tensors), card="# Cards\n")
    return tmp_path / "cards"


def test_inference_imports_no_heavy_library() -> None:
    code = (
        "import sys, velora\n"
        "assert 'torch' not in sys.modules\n"
        "from tests.velora.conftest import make_sample\n"
        "session = velora.load_recognizer('demo', device='cpu').open()\n"
        "assert [session.push(make_sample(i)) for i in range(8)][-1]\n"
        "print([m for m in ('open_clip', 'peft', 'transformers', 'pandas', 'torchvision') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_demo_moves_but_says_that_it_is_random() -> None:
    recognizer = load_recognizer("demo", device="cpu")
    session = recognizer.open()
    predictions = [p for i in range(16) if (p := session.push(make_sample(i)))]
    assert len(predictions) == 9 and predictions[0].model == recognizer.name == "demo"
    assert recognizer.random_parts == ("backbone", "adapters", "head")
    confidences = [p.confidence for p in predictions]
    assert 1 / 15 + 0.01 < min(confidences) < max(confidences) < 0.999
    assert max(confidences) - min(confidences) > 0.005


def test_demo_is_reproducible(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("config.json", "README.md"):
        assert (tmp_path / name).read_bytes() == (DEMO / name).read_bytes()
    again, shipped = load_checkpoint(tmp_path), load_checkpoint(DEMO)
    for key, tensor in shipped.tensors.items():
        torch.testing.assert_close(again.tensors[key], tensor, atol=1e-2, rtol=1e-2)


def test_checkpoint_round_trip(checkpoint: Path) -> None:
    assert sorted(p.name for p in checkpoint.iterdir()) == ["README.md", "adapter.safetensors", "config.json"]
    recognizer = load_recognizer(checkpoint, device="cpu")
    assert (recognizer.name, recognizer.random_parts) == ("cards", ("backbone",))  # the demo's, which is untrained
    assert recognizer.config == make_config(trained=True)


def test_a_model_in_training_saves_what_inference_loads(tmp_path: Path, trainable: VELoRA) -> None:
    for name, parameter in trainable.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    save_checkpoint(tmp_path, Checkpoint(trainable.config, trained_tensors(trainable)), card="")
    recognizer = load_recognizer(tmp_path, device="cpu", dtype="fp32")
    bare = {k.replace(".base_layer", ""): v for k, v in trainable.tower.state_dict().items() if ".lora_" not in k}
    plain = {k.replace(".base_layer", ""): v for k, v in recognizer.model.tower.state_dict().items()}
    for key, tensor in bare.items():
        plain[key].copy_(tensor)
    images = torch.randn(2, 1, 2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(recognizer.model(*images), trainable.eval()(*images), atol=1e-4, rtol=1e-4)


def test_a_backbone_by_name(home: Path) -> None:
    recognizer = load_recognizer("ViT-B-32-quickgelu", device="cpu", dtype="bf16", random_weights=True)
    assert recognizer.random_parts == ("backbone", "adapters", "head")
    assert recognizer.dtype == torch.bfloat16 and recognizer.config.labels == load_recognizer("demo").config.labels


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
        assert find_backbone("ViT-B-32-quickgelu") == place
        assert torch.equal(load_tower("ViT-B-32-quickgelu").positional_embedding.half(), expected)
        place.unlink()


def test_finds_weights_in_the_hubs_cache(home: Path) -> None:
    repo = home / "hub" / "models--timm--vit_base_patch16_clip_224.openai"
    file = repo / "snapshots" / "abc" / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    assert find_backbone("ViT-B-16-quickgelu") == file


@pytest.mark.timing
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "demo"])
def test_missing_weights_are_explained_at_once(home: Path, name: str) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_recognizer(name)
    message = str(caught.value)
    assert time.monotonic() - start < 2
    assert "\n" not in message and "http" not in message
    repo = BACKBONES[name].hub_repo
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
    with pytest.raises(ModelError, match=r"weights.safetensors.* fetch open_clip_model"):
        load_recognizer("ViT-B-16-quickgelu")


def break_adapter(folder: Path, change: str) -> None:
    checkpoint = load_checkpoint(folder)
    tensors = dict(checkpoint.tensors)
    if change == "missing":
        del tensors["fuser.head.bias"]
    elif change == "shape":
        tensors["fuser.head.bias"] = torch.zeros(7)
    else:
        tensors["fuser.head.bias"] = torch.full((3,), float("nan"))
    save_file(tensors, folder / "adapter.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [("missing", "no tensor fuser.head.bias"), ("shape", r"shape \[7\] instead of \[3\]"), ("nan", "not finite")],
)
def test_broken_adapters(checkpoint: Path, change: str, message: str) -> None:
    break_adapter(checkpoint, change)
    with pytest.raises(ModelError, match=rf"adapter.safetensors.*{message}"):
        load_recognizer(checkpoint)


def test_truncated_and_missing_files(checkpoint: Path) -> None:
    adapter = checkpoint / "adapter.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-100])
    with pytest.raises(ModelError, match="adapter.safetensors cannot be read as safetensors"):
        load_recognizer(checkpoint)
    adapter.unlink()
    with pytest.raises(ModelError, match="adapter.safetensors cannot be read"):
        load_recognizer(checkpoint)
    (checkpoint / "config.json").write_text('{"format_version": 1, "labels": ["a"], "backbone": "demo", "rank": -1}')
    with pytest.raises(ModelError, match=r"config.json: rank must be"):
        load_recognizer(checkpoint)
    (checkpoint / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"config.json"):
        load_recognizer(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json cannot be read"):
        load_recognizer(checkpoint)


def test_unknown_names() -> None:
    with pytest.raises(ModelError, match="no model 'resnet'"):
        load_recognizer("resnet")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        load_recognizer("demo", device="gpu")
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        load_recognizer("demo", dtype="int8")
    with pytest.raises(ModelError, match="no device"):
        load_recognizer("demo", device="cuda:99")


def test_threads_share_a_recognizer() -> None:
    from concurrent.futures import ThreadPoolExecutor

    recognizer = make_recognizer(make_config())

    def label(seed: int) -> list[float]:
        session = recognizer.open()
        return [p.confidence for i in range(6) if (p := session.push(make_sample(i, seed=seed)))]

    alone = [label(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(label, range(3)))
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), atol=1e-5, rtol=1e-5)
