"""Loading: the demo, backbones, checkpoints; what is missing or broken is said in one line, and nothing is fetched."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recordings import bundled
from streams import open_source, synchronize
from tests.velora.conftest import make_checkpoint, make_config, make_recognizer, make_sample, tiny_backbone
from velora import ModelError, load_recognizer
from velora.checkpoint import Checkpoint, load_checkpoint, random_tensors, save_checkpoint
from velora.loading import DEMO
from velora.weights import random_tower


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


def test_demo_is_trained_and_does_not_say_that_it_is_random() -> None:
    recognizer = load_recognizer("demo", device="cpu")
    session = recognizer.open()
    predictions = [p for i in range(9) if (p := session.push(make_sample(i)))]
    assert len(predictions) == 2 and predictions[0].model == recognizer.name == "demo"
    assert recognizer.random_parts == () and recognizer.config.trained
    assert load_checkpoint(DEMO).config.labels[-1] == "no card"


def test_checkpoint_round_trip(checkpoint: Path) -> None:
    assert sorted(p.name for p in checkpoint.iterdir()) == ["README.md", "adapter.safetensors", "config.json"]
    recognizer = load_recognizer(checkpoint, device="cpu")
    assert (recognizer.name, recognizer.random_parts) == ("cards", ())
    assert recognizer.config == make_config(trained=True)


def test_a_checkpoint_knows_the_weights_that_it_was_trained_on(tmp_path: Path) -> None:
    tower = load_recognizer("demo", device="cpu", dtype="fp32").model.tower
    config = make_config(trained=True, weights_digest=tower.digest())
    checkpoint = Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(0)))
    save_checkpoint(tmp_path, checkpoint, card="")
    assert load_recognizer(tmp_path, device="cpu", dtype="bf16").config == config
    with torch.no_grad():
        other = random_tower("demo", torch.Generator().manual_seed(1))
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="trained on other weights of demo: --weights takes"):
        load_recognizer(tmp_path, device="cpu", weights=str(tmp_path / "other.safetensors"))


def test_a_backbone_by_name(home: Path) -> None:
    recognizer = load_recognizer("ViT-B-32-quickgelu", device="cpu", dtype="bf16", random_weights=True)
    assert recognizer.random_parts == ("backbone", "adapters", "head")
    assert recognizer.dtype == torch.bfloat16 and recognizer.config.labels == load_recognizer("demo").config.labels


def break_adapter(folder: Path, change: str) -> None:
    checkpoint = load_checkpoint(folder)
    tensors = dict(checkpoint.tensors)
    if change == "missing":
        del tensors["fuser.head.bias"]
    else:
        bias = {"shape": torch.zeros(7), "nan": torch.full((3,), torch.nan), "whole": torch.zeros(3, dtype=torch.int8)}
        tensors["fuser.head.bias"] = bias[change]
    save_file(tensors, folder / "adapter.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "no tensor fuser.head.bias"),
        ("shape", r"shape \[7\] instead of \[3\]"),
        ("nan", "not finite"),
        ("whole", "fuser.head.bias holds I8 instead of floating-point numbers"),
    ],
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


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_folder_whose_name_is_no_utf_8_is_told_as_such(checkpoint: Path) -> None:
    folder = checkpoint.with_name("caf\udce9")
    shutil.copytree(checkpoint, folder)
    with pytest.raises(ModelError, match=r"caf\\udce9.* is no path in UTF-8, which safetensors need: rename it"):
        load_recognizer(folder)


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


def test_checkpoints_of_one_backbone_share_its_weights(tmp_path: Path) -> None:
    recognizers = [load_recognizer("demo", device="cpu", dtype="fp32")]
    for seed in range(3):
        config = make_config(adapter=("lora", "clora", "none")[seed], trained=True)
        tensors = random_tensors(config, torch.Generator().manual_seed(seed))
        save_checkpoint(tmp_path / str(seed), Checkpoint(config, tensors), card="")
        recognizers.append(load_recognizer(tmp_path / str(seed), device="cpu", dtype="fp32"))
    assert len({id(recognizer.model.tower) for recognizer in recognizers}) == 1
    assert load_recognizer("demo", device="cpu", dtype="bf16").model.tower is not recognizers[0].model.tower
    tower = weakref.ref(recognizers[0].model.tower)
    del recognizers
    gc.collect()
    assert tower() is None  # not kept for nobody


def test_towers_of_a_checkpoint_are_in_memory_once_in_every_dtype(tmp_path: Path) -> None:
    with tiny_backbone():
        checkpoint = make_checkpoint(make_config(preset="released", own_towers=3))
        shared = {n.replace("tower.rgb.", "tower."): t for n, t in checkpoint.tensors.items() if "tower.rgb." in n}
        rest = {n: t for n, t in checkpoint.tensors.items() if not n.startswith("tower.")}
        save_checkpoint(tmp_path, Checkpoint(checkpoint.config, rest | shared), card="")
        for dtype in ("fp32", "bf16"):
            encoders = load_recognizer(tmp_path, device="cpu", dtype=dtype).model.encoders
            places = {encoders.tower_of(stream).proj.data_ptr() for stream in ("rgb", "event", "diff")}
            assert len(places) == 1 and encoders.tower.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        with pytest.raises(ModelError, match="brings its own encoders: leave --weights out"):
            load_recognizer(tmp_path, weights="openai")


def test_a_swap_between_two_pushes_leaves_the_backbone_alone(tmp_path: Path) -> None:
    rendering = load_checkpoint(DEMO).config.rendering  # with another one, a new window would start
    config = make_config(adapter="clora", frames=8, rendering=rendering)
    tensors = random_tensors(config, torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "cards", Checkpoint(config, tensors), card="")
    first = load_recognizer("demo", device="cpu", dtype="fp32")
    other = load_recognizer(tmp_path / "cards", device="cpu", dtype="fp32")
    before = {name: (t.data_ptr(), t.clone()) for name, t in first.model.tower.state_dict().items()}
    session, fresh = first.open(), other.open()
    for i in range(8):
        session.push(make_sample(i))
        expected = fresh.push(make_sample(i))
    session.swap(other)
    with pytest.raises(ModelError, match="cards is for the backbone demo, but this stream runs on ViT-B-32"):
        load_recognizer("ViT-B-32", device="cpu", random_weights=True).open().swap(other)
    swapped, expected = session.push(make_sample(8)), fresh.push(make_sample(8))
    assert swapped and expected
    np.testing.assert_allclose(swapped.probabilities, expected.probabilities, atol=1e-5)
    for name, tensor in other.model.tower.state_dict().items():
        assert (tensor.data_ptr(), True) == (before[name][0], torch.equal(tensor, before[name][1]))


def test_bfloat16_keeps_the_answers_of_float32_on_the_demo_recording() -> None:
    with open_source(bundled()["cards"]) as source:
        samples = list(synchronize(source))[::4]
    exact, half = (load_recognizer("demo", device="cpu", dtype=dtype).open(stride=4) for dtype in ("fp32", "bf16"))
    for sample in samples:
        expected, found = exact.push(sample), half.push(sample)
        if expected and found:
            assert np.abs(found.probabilities - expected.probabilities).max() < 0.02
            second, first = np.sort(expected.probabilities)[-2:]
            assert found.label == expected.label or first - second < 0.04
    assert expected


def test_backbones_of_another_kind_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'ViT-B-16-SigLIP': .* timm's vit_base_patch16_siglip_224"):
        load_recognizer("ViT-B-16-SigLIP")
    (checkpoint / "config.json").write_text(
        (checkpoint / "config.json").read_text().replace('"backbone": "demo"', '"backbone": "coca_ViT-B-32"')
    )
    with pytest.raises(ModelError, match="config.json: backbone coca_ViT-B-32 pools by attention"):
        load_recognizer(checkpoint)
