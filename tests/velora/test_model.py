"""Preset "paper": equal to its equations over all tokens, and trained where it should be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.velora.conftest import make_config, make_recognizer
from velora.model import VELoRA


def by_the_equations(model: VELoRA, r: Tensor, e: Tensor, f: Tensor | None) -> Tensor:
    """Steps 2 to 5 over all tokens, in the order of the specification."""
    fuser, block, n = model.fuser, model.tower.blocks[-1], r.shape[1]
    z_r, z_e = r + fuser.embedding["rgb"], e + fuser.embedding["event"]
    parts = [z_r, z_e] if f is None else [f + fuser.embedding["diff"], z_r, z_e]
    y = block(torch.cat(parts, dim=1), torch.ones(()))
    cls = []
    for name, z, y_m in (("rgb", z_r, y[:, -2 * n : -n]), ("event", z_e, y[:, -n:])):
        attended = z + block.attn(block.ln_1(z))
        ffn = block.mlp(block.ln_2(attended)) + fuser.top[name](F.layer_norm(y_m, y_m.shape[-1:]))
        cls.append(model.tower.ln_post(attended + ffn)[:, 0])
    return fuser.head(torch.cat(cls, dim=1))


@pytest.mark.parametrize("frames", [1, 3])
def test_fuse_equals_the_equations(frames: int) -> None:
    model = make_recognizer(make_config(frames=frames)).model
    r, e, f = torch.randn(3, 2, 17, 64)
    motion = f if frames > 1 else None
    torch.testing.assert_close(model.fuse(r, e, motion), by_the_equations(model, r, e, motion), atol=1e-4, rtol=1e-4)


def test_forward_treats_each_window_alone() -> None:
    model = make_recognizer(make_config()).model
    rgb, event = torch.randn(2, 2, 4, 3, 32, 32)
    both = model(rgb, event)
    assert both.shape == (2, 3)
    torch.testing.assert_close(model(rgb[1:], event[1:]), both[1:], atol=1e-4, rtol=1e-4)


def test_forward_refuses_unequal_windows() -> None:
    model = make_recognizer(make_config()).model
    with pytest.raises(ValueError, match=r"\[1, 2, 3, 224, 224\]"):
        model(torch.zeros(1, 2, 3, 224, 224), torch.zeros(1, 1, 3, 224, 224))


def test_first_step_reaches_b_of_r_and_e_the_embeddings_and_the_head(trainable: VELoRA) -> None:
    loss_of(trainable).backward()
    moved = {name for name, p in trainable.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {
        name
        for name, p in trainable.named_parameters()
        if p.requires_grad
        and ("fuser.head" in name or "embedding.rgb" in name or "embedding.event" in name or "lora_B" in name)
        and ".diff" not in name
        and ".fusion" not in name
    }
    assert moved == expected


def test_three_steps_move_everything_that_trains(trainable: VELoRA) -> None:
    before = {name: p.detach().clone() for name, p in trainable.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in trainable.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(trainable).backward()
        optimizer.step()
    for name, parameter in trainable.named_parameters():
        if name in before:
            assert not torch.equal(parameter, before[name]), name
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def loss_of(model: VELoRA) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rgb, event = torch.randn(2, 2, 2, 3, 224, 224, generator=generator)
    return F.cross_entropy(model(rgb, event), torch.tensor([0, 2]))
