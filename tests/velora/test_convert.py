"""The authors' files become folders of ours: every key accounted for, as small as they can be, the same results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.velora.conftest import make_sample, tiny_backbone
from tests.velora.fabricate import FULL, released_checkpoint
from tests.velora.reference import PARTS, released, vision_of
from velora import ModelError, load_recognizer
from velora.checkpoint import ADAPTER, build_model, load_checkpoint, save_checkpoint
from velora.convert import Conversion, convert
from velora.released_file import Released, read_released
from velora.weights import load_tower

LABELS = tuple(f"class {i}" for i in range(114))


@pytest.fixture(autouse=True)
def tiny(request: pytest.FixtureRequest) -> Iterator[None]:
    with tiny_backbone():
        yield


def save(folder: Path, *, legacy: bool = False, **options: object) -> Path:
    file = folder / "released.pth"
    torch.save(released_checkpoint(**options), file, _use_new_zipfile_serialization=not legacy)
    return file


def windows(batch: int, size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, batch, 8, 3, size, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rgb, event = images.to(dtype)
    return rgb, event


@pytest.mark.parametrize("style", ["lora_A.default", "lora_A", "no base_layer"])
@pytest.mark.parametrize("module", [True, False])
def test_gives_the_same_results_whatever_the_names(tmp_path: Path, style: str, module: bool) -> None:
    check_results(save(tmp_path, style=style, module=module))


@pytest.mark.parametrize("encoders", ["equal", "different"])
@pytest.mark.parametrize("legacy", [True, False])
def test_gives_the_same_results_whatever_the_format(tmp_path: Path, encoders: str, legacy: bool) -> None:
    check_results(save(tmp_path, encoders=encoders, legacy=legacy))


@torch.no_grad()
def check_results(file: Path) -> None:
    folder = file.with_name("ours")
    save_checkpoint(folder, convert(read_released(file), LABELS).checkpoint, card="")
    expected, _ = released(torch.load(file, weights_only=True), *windows(2, 32), heads=2)
    for dtype, close in ((torch.float64, 1e-6), (torch.float32, 1e-4)):
        model = build_model(load_checkpoint(folder)).to(dtype)
        torch.testing.assert_close(model(*windows(2, 32, dtype)).double(), expected, atol=close, rtol=0)


def test_data_parallel_training_may_have_wrapped_the_encoders(tmp_path: Path) -> None:
    parts = released_checkpoint()
    plain = convert(saved(parts, tmp_path), LABELS).checkpoint.tensors
    for part in PARTS.values():
        parts[part] = {f"module.{name}": tensor for name, tensor in parts[part].items()}
    wrapped = convert(saved(parts, tmp_path), LABELS).checkpoint.tensors
    assert plain.keys() == wrapped.keys() and all(torch.equal(plain[name], wrapped[name]) for name in plain)


def saved(parts: object, folder: Path) -> Released:
    torch.save(parts, folder / "parts.pth")
    return read_released(folder / "parts.pth")


def test_accounts_for_every_key(tmp_path: Path) -> None:
    file = save(tmp_path)
    parts = torch.load(file, weights_only=True)
    states = [part for part in parts if part.endswith("model_state_dict")]
    keys = {f"{part}/{name}" for part in states for name in parts[part]}
    found = read_released(file)
    assert keys | {"optimizer_state_dict", "epoch"} == found.used.keys() | found.dropped.keys()
    assert not found.used.keys() & found.dropped.keys()
    unused = [key.partition("module.")[2].partition(".")[0] for key in found.dropped if "/module." in key]
    never = ("word_embed", "weight_layer", "remain_weight_layer", "bn", "tex_embed", "CLS_token", "cross_model")
    assert {*unused} == {*never}


def stored_towers(done: Conversion) -> int:
    return sum(name.startswith("tower.") for name in done.checkpoint.tensors)


def test_stores_the_encoders_as_seldom_as_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velora.weights.BUNDLED", tmp_path / "none.safetensors")
    equal, different = (save(tmp_path / kind, encoders=kind) for kind in made(tmp_path, "equal", "different"))
    one = convert(read_released(equal), LABELS)
    without = sum(t.nbytes for name, t in one.checkpoint.tensors.items() if not name.startswith("tower."))
    assert one.encoders.endswith(f"the folder would be {without / 1e6:,.1f} MB")
    three = convert(read_released(different), LABELS)
    assert (one.checkpoint.config.own_towers, three.checkpoint.config.own_towers) == (1, 3)
    assert stored_towers(three) == 3 * stored_towers(one) > 0
    base, _ = vision_of(torch.load(equal, weights_only=True)["ViT_model_state_dict"], torch.float32)
    save_file(base, tmp_path / "clip.safetensors")
    monkeypatch.setattr("velora.weights.BUNDLED", tmp_path / "clip.safetensors")
    none = convert(read_released(equal), LABELS)
    assert (none.checkpoint.config.own_towers, stored_towers(none)) == (0, 0)
    assert none.encoders == "equal to demo's own weights, not stored"
    models = build_model(none.checkpoint, load_tower("demo")), build_model(one.checkpoint)
    assert torch.equal(*(model(*windows(1, 32, torch.float32)) for model in models))
    save_file({name: 2 * tensor for name, tensor in base.items()}, tmp_path / "clip.safetensors")
    other = convert(read_released(equal), LABELS)
    assert (other.checkpoint.config.own_towers, other.encoders) == (
        1,
        "equal, stored once; other weights than demo's own",
    )
    sizes = [adapter_of(done, tmp_path / name).stat().st_size for name, done in (("1", one), ("3", three), ("0", none))]
    assert sizes[1] > sizes[0] > sizes[2]


def adapter_of(done: Conversion, folder: Path) -> Path:
    save_checkpoint(folder, done.checkpoint, card="")
    return folder / ADAPTER


def made(folder: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (folder / name).mkdir()
    return names


def test_what_comes_from_half_precision_is_stored_so(tmp_path: Path) -> None:
    parts = released_checkpoint()
    for part in ("ViT_model_state_dict", "Event_ViT_model_state_dict", "frame_ViT_model_state_dict"):
        parts[part] = {n: t if ".lora_" in n else t.half().float() for n, t in parts[part].items()}
    torch.save(parts, tmp_path / "released.pth")
    tensors = convert(read_released(tmp_path / "released.pth"), LABELS).checkpoint.tensors
    assert {t.dtype for name, t in tensors.items() if name.startswith("tower.")} == {torch.float16}
    assert {t.dtype for name, t in tensors.items() if not name.startswith("tower.")} == {torch.float32}
    assert torch.equal(tensors["tower.proj"].float(), parts["ViT_model_state_dict"]["base_model.model.visual.proj"])


def test_the_config_says_what_the_file_cannot(tmp_path: Path) -> None:
    config = convert(read_released(save(tmp_path)), LABELS, alpha=16).checkpoint.config
    assert (config.preset, config.adapter, config.rank, config.alpha, config.frames) == ("released", "lora", 4, 16, 8)
    assert (config.mean, config.std, config.backbone) == ((0.5,) * 3, (0.5,) * 3, "demo")
    assert config.trained and config.labels == LABELS and config.attend_over == "batch_of_one"


@torch.no_grad()
def test_at_full_size(tmp_path: Path) -> None:
    file = save(tmp_path, sizes=FULL)
    done = convert(read_released(file), LABELS)
    assert done.checkpoint.config.backbone == "ViT-B-16-quickgelu"
    save_checkpoint(tmp_path / "ours", done.checkpoint, card="")
    assert (tmp_path / "ours" / "adapter.safetensors").stat().st_size < file.stat().st_size / 2.5
    model = build_model(load_checkpoint(tmp_path / "ours"))
    rgb, event = windows(1, 224, torch.float32)
    expected, _ = released(torch.load(file, weights_only=True, mmap=True), rgb, event, heads=12)
    torch.testing.assert_close(model(rgb, event), expected, atol=1e-4, rtol=0)
    file.unlink()
    (tmp_path / "ours" / "adapter.safetensors").unlink()


def test_a_converted_folder_recognises(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours", convert(read_released(save(tmp_path)), LABELS).checkpoint, card="")
    recognizer = load_recognizer(tmp_path / "ours", device="cpu", dtype="fp32")
    session = recognizer.open()
    prediction = [session.push(make_sample(i)) for i in range(8)][-1]
    assert prediction and prediction.label in LABELS and recognizer.random_parts == ()


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.marker,)


Broken = Callable[[dict[str, object], Path], object]


def without(part: str, name: str) -> Broken:
    def change(parts: dict[str, object], folder: Path) -> object:
        return parts | {part: {n: t for n, t in parts[part].items() if not n.endswith(name)}}  # type: ignore[attr-defined]

    return change


def with_encoder(name: str, tensor: Tensor) -> Broken:
    def change(parts: dict[str, object], folder: Path) -> object:
        parts["Event_ViT_model_state_dict"][f"base_model.model.visual.{name}"] = tensor  # type: ignore[index]
        return parts

    return change


def with_nan(parts: dict[str, object], folder: Path) -> object:
    parts["model_state_dict"]["module.fc1.bias"][3] = float("nan")  # type: ignore[index]
    return parts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts, folder: parts | {"extra": Hostile(folder / "marker")}, "cannot be read as a checkpoint"),
        (lambda parts, folder: [1, 2], "is no checkpoint of the released code"),
        (lambda parts, folder: {"model_state_dict": {}}, "is no checkpoint of the released code"),
        (without("model_state_dict", "fc1.weight"), "no tensor that ends with fuser.head.weight"),
        (without("model_state_dict", "module.fc1.bias"), "lacks 1 of the .* that are needed: fuser.head.bias"),
        (without("frame_ViT_model_state_dict", "lora_B.default.weight"), "lacks 6 of the"),
        (without("ViT_model_state_dict", "ln_post.bias"), r"its encoders \(.*\) are none of ViT-B-16-quickgelu"),
        (without("Event_ViT_model_state_dict", "ln_post.bias"), "its event encoder is not built .*: ln_post.bias"),
        (
            with_encoder("transformer.resblocks.3.ln_1.bias", torch.zeros(64)),
            "its event encoder is not built .* 1 tens",
        ),
        (with_encoder("proj", torch.zeros(64, 8)), "its event encoder is not built .*: proj"),
        (with_encoder("proj", torch.zeros(1).expand(1 << 40)), "its event encoder is not built .*: proj"),
        (with_encoder("proj", torch.zeros(64, 16).long()), r"event encoder's proj holds no plain real .*int64"),
        (with_encoder("proj", torch.zeros(64, 16).to_sparse()), r"event encoder's proj holds no plain real .*sparse"),
        (with_encoder("proj", torch.full((64, 16), torch.nan)), "tower.event.proj holds numbers that are not finite"),
        (with_nan, "fuser.head.bias holds numbers that are not finite"),
    ],
)
def test_refuses_in_one_line_what_it_cannot_convert(tmp_path: Path, change: Broken, message: str) -> None:
    torch.save(change(released_checkpoint(), tmp_path), tmp_path / "odd.pth")
    check_refused(tmp_path, message)


def test_runs_nothing_in_a_file_of_the_older_format(tmp_path: Path) -> None:
    parts = released_checkpoint() | {"extra": Hostile(tmp_path / "marker")}
    torch.save(parts, tmp_path / "odd.pth", _use_new_zipfile_serialization=False)
    check_refused(tmp_path, "cannot be read as a checkpoint")


def check_refused(tmp_path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=f"odd.pth.*{message}") as caught:
        convert(read_released(tmp_path / "odd.pth"), LABELS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


def test_refuses_labels_that_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tells 114 classes apart, but 3 labels are given"):
        convert(read_released(save(tmp_path)), LABELS[:3])


def test_refuses_a_backbone_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its encoders \(.* are not ViT-B-32-quickgelu"):
        convert(read_released(save(tmp_path)), LABELS, backbone_name="ViT-B-32-quickgelu")


def test_numbers_too_large_for_single_precision_are_refused(tmp_path: Path) -> None:
    parts = released_checkpoint()
    parts["model_state_dict"]["module.fc1.bias"] = torch.full((114,), 1e300, dtype=torch.float64)
    torch.save(parts, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match="fuser.head.bias holds numbers that are not finite"):
        convert(read_released(tmp_path / "odd.pth"), LABELS)


def test_a_rank_that_no_model_has_names_the_file(tmp_path: Path) -> None:
    parts = released_checkpoint()
    for part in ("ViT_model_state_dict", "Event_ViT_model_state_dict", "frame_ViT_model_state_dict"):
        parts[part] = {n: t.repeat(75, 1) if ".lora_A" in n else t for n, t in parts[part].items()}
    torch.save(parts, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match="odd.pth and its labels make no model: rank must be"):
        convert(read_released(tmp_path / "odd.pth"), LABELS)
