"""What training changes: nothing at the start, then exactly what the config says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.velora.conftest import TINY, VARIANTS, make_config, make_trainable
from velora.adapter import Adapter
from velora.errors import ModelError
from velora.model import VELoRA
from velora.training import loader

TRAINED = {name: changes for name, changes in VARIANTS.items() if name != "zero-shot"}


def trainable_variant(variant: str) -> VELoRA:
    return make_trainable(make_config(dropout=0.0, **TRAINED[variant]))


def loss_of(model: VELoRA) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rgb, event = torch.randn(2, 2, 3, 3, TINY.image_size, TINY.image_size, generator=generator)
    logits, reconstruction, _ = model.with_reconstruction(rgb, event)
    return F.cross_entropy(logits, torch.tensor([0, 2])) + reconstruction


def trained(model: VELoRA) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def reached(model: VELoRA) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("variant", [name for name in TRAINED if "full" not in name])
def test_adapters_change_nothing_at_the_start(variant: str) -> None:
    for adapter in trainable_variant(variant).encoders.adapters.values():
        assert isinstance(adapter, Adapter)
        for layer in adapter.layers:
            assert all(not adapter.delta(layer, stream).any() for stream in adapter.streams)


@pytest.mark.parametrize("variant", TRAINED)
def test_three_steps_move_all_that_trains_and_nothing_else(variant: str) -> None:
    model = trainable_variant(variant)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(trained(model).values(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(parameter, before[name]), name
        else:
            assert parameter.grad is None and torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("variant", TRAINED)
def test_gradients_reach_exactly_what_trains(variant: str) -> None:
    model = trainable_variant(variant)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "cores" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    loss_of(model).backward()
    assert reached(model) == set(trained(model))


@pytest.mark.parametrize(
    ("variant", "parts"),
    [
        ("paper", {"tower", "fuser.embedding", "fuser.top", "fuser.head"}),
        ("paper-clora", {"tower", "adapters", "fuser.embedding", "fuser.top", "fuser.head"}),
        ("paper-none", {"fuser.head"}),
        ("released-none", {"fuser." + part for part in ("visual_embed", "embedding", "blocks", "norm")}
         | {"fuser.fuse_blocks", "fuser.attention", "fuser.head"}),
    ],
)  # fmt: skip
def test_what_trains(variant: str, parts: set[str]) -> None:
    names = [name.removeprefix("encoders.") for name in trained(trainable_variant(variant))]
    assert {".".join(n.split(".")[:2]) if n.startswith("fuser") else n.split(".")[0] for n in names} == parts
    assert all("lora_" in name for name in names if name.startswith("tower"))


def test_the_first_step_of_the_paper_reaches_b_of_r_and_e_the_embeddings_and_the_head(trainable: VELoRA) -> None:
    rgb, event = torch.randn(2, 2, 2, 3, TINY.image_size, TINY.image_size)
    F.cross_entropy(trainable(rgb, event), torch.tensor([0, 2])).backward()
    assert reached(trainable) == {
        name
        for name in trained(trainable)
        if ("fuser.head" in name or "embedding.rgb" in name or "embedding.event" in name or "lora_B" in name)
        and ".diff" not in name
        and ".fusion" not in name
    }


def test_the_targets_of_the_papers_reconstruction_take_no_gradient(trainable: VELoRA) -> None:
    fuser, block = trainable.fuser, trainable.tower.blocks[-1]
    z_r, z_e = torch.randn(2, 2, TINY.tokens, TINY.width)
    embedded = [z + fuser.embedding[name] for z, name in ((z_r, "rgb"), (z_e, "event"))]
    normed = [F.layer_norm(z, z.shape[-1:]) for z in embedded]
    rebuilt = [F.layer_norm(y, y.shape[-1:]) for y in map(block, embedded)]  # B = 0: no adapter yet
    expected = F.mse_loss(rebuilt[1], normed[0].detach()) + F.mse_loss(rebuilt[0], normed[1].detach())
    loss, _ = fuser.reconstruction(trainable.encoders, z_r, z_e)
    torch.testing.assert_close(loss, expected)
    parameters = [fuser.embedding["rgb"], fuser.embedding["event"]]
    for ours, theirs in zip(*(torch.autograd.grad(x, parameters) for x in (loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-4)


def test_new_blocks_are_left_out_now_and_then_in_training_only() -> None:
    model = make_trainable(make_config(preset="released"))
    x = torch.randn(400, 2, 64)
    block = model.fuser.blocks.train()
    with torch.no_grad():
        branches = block(x) - x
        kept = (branches.abs().sum(dim=(1, 2)) > 0).float().mean()
        assert 0.96 < kept <= 1  # both branches are left out one time in a hundred
        assert torch.equal(block.eval()(x), block(x))
        assert not torch.allclose(block.train()(x), block.eval()(x))


@pytest.mark.parametrize("variant", TRAINED)
def test_trains_in_bfloat16_under_autocast_about_as_in_float32(variant: str) -> None:
    model = trainable_variant(variant)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "cores" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    loss_of(model).backward()
    exact = torch.cat([p.grad.flatten() for p in trained(model).values()])
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model)
    loss.backward()
    rounded = torch.cat([p.grad.flatten() for p in trained(model).values()])
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.98


@pytest.mark.parametrize("variant", ["paper", "paper-clora"])
def test_dropout_is_in_front_of_the_adapters_and_in_training_only(variant: str) -> None:
    model = make_trainable(make_config(dropout=0.5, **TRAINED[variant]))
    adapter = model.encoders.adapters["streams"]
    layer = adapter.layers[0]
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "cores" in name:
            torch.nn.init.normal_(parameter)
    x = torch.ones(1, 4000, TINY.width)
    route = model.encoders.route_to("rgb", 1)
    assert route
    with torch.no_grad():
        model.eval()
        whole = route.gain(layer, x)
        torch.testing.assert_close(whole, x @ adapter.delta(layer, "rgb").T, atol=1e-4, rtol=1e-4)
        model.train()
        dropped = route.gain(layer, x)
    assert not torch.equal(dropped[0, 0], dropped[0, 1])
    assert ((dropped.mean(dim=1) - whole[:, 0]).abs() < 6 * dropped.std(dim=1) / 4000**0.5).all()  # same on average


def test_new_blocks_start_small_and_keep_their_mean_when_some_are_left_out() -> None:
    block = make_trainable(make_config(preset="released")).fuser.blocks
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05) and not block.mlp.fc1.bias.any()
    x = torch.ones(20_000, 1, 1)
    assert block.train()._drop_path(x).mean().item() == pytest.approx(1, abs=0.02)
    assert block._drop_path(x).unique().tolist() == pytest.approx([0, 1 / 0.9])


def test_what_a_process_that_reads_windows_raises_is_one_line() -> None:
    def batches() -> Iterator[None]:
        yield None
        raise FileNotFoundError(
            "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "  File \"frame_cache.py\", line 55\nFileNotFoundError: [Errno 2] No such file or directory: 'a.frames'\n"
        )

    with pytest.raises(ModelError) as told:
        list(loader.read(batches()))
    assert "'a.frames'); the same command goes on" in str(told.value) and "\n" not in str(told.value)
