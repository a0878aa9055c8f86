"""CLoRA: its sum of shared bases and own cores, its penalty, and its parameters, each once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.velora.conftest import make_config, make_model, make_trainable
from velora.adapter import LAYERS
from velora.checkpoint import tensor_shapes, trained_tensors
from velora.clora import CLoRA, sade
from velora.config import STREAMS

SHARED = [f"clora.{kind}.{group}" for kind in ("down", "up", "cores") for group in LAYERS]


def randomized(**changes: object) -> CLoRA:
    model = make_model(make_config(adapter="clora", pairs=3, **changes))
    clora = model.encoders.adapters["streams"].double()
    assert isinstance(clora, CLoRA)
    return clora.requires_grad_(True)


def parts(clora: CLoRA, layer: str, stream: str) -> list[Tensor]:
    """dW_h = D_h Q_h U_h of one module, by the definition."""
    group = next(group for group in LAYERS if layer.endswith(group))
    block = int(layer.split(".")[2])
    cores = clora.cores[group][block, STREAMS.index(stream)]
    bases = zip(clora.up[group], cores, clora.down[group], strict=True)
    return [up @ core @ down for up, core, down in bases]


def modules(clora: CLoRA) -> list[tuple[str, str]]:
    return list(itertools.product(clora.layers, clora.streams))


def direct_sade(clora: CLoRA, normalize: bool) -> Tensor:
    """The penalty with its d x d products."""
    total = torch.zeros((), dtype=torch.float64)
    for layer, stream in modules(clora):
        for a, b in itertools.combinations(parts(clora, layer, stream), 2):
            term = (a.T @ b).square().sum()
            total = total + (term / (a.square().sum() * b.square().sum()) if normalize else term)
    return total


def test_a_change_is_the_sum_of_its_parts() -> None:
    clora = randomized()
    for layer, stream in modules(clora):
        torch.testing.assert_close(clora.delta(layer, stream), sum(parts(clora, layer, stream)), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_cheap_sade_equals_the_direct_one(normalize: bool) -> None:
    clora = randomized()
    cheap = sade(clora, normalize=normalize, eps=0.0)
    direct = direct_sade(clora, normalize)
    torch.testing.assert_close(cheap, direct, atol=1e-10, rtol=1e-10)
    parameters = list(clora.parameters())
    gradients = zip(torch.autograd.grad(cheap, parameters), torch.autograd.grad(direct, parameters), strict=True)
    for ours, theirs in gradients:
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_sade_is_zero_for_parts_that_do_not_overlap_and_positive_for_equal_ones() -> None:
    clora = randomized(rank=2)
    with torch.no_grad():
        for group in LAYERS:
            own = torch.linalg.qr(clora.up[group].transpose(0, 1).flatten(1))[0]  # orthogonal columns
            clora.up[group].copy_(own.unflatten(1, (3, 2)).transpose(0, 1))
    assert sade(clora).abs() < 1e-20
    with torch.no_grad():
        for group in LAYERS:
            clora.up[group].copy_(clora.up[group][:1].expand(3, -1, -1))
    assert sade(clora) > 1e-6


def test_only_the_raw_penalty_falls_when_weights_shrink() -> None:
    clora = randomized()
    raw, normal = sade(clora).item(), sade(clora, normalize=True).item()
    with torch.no_grad():
        for cores in clora.cores.values():
            cores *= 0.5
    assert sade(clora).item() == pytest.approx(raw / 16)
    assert sade(clora, normalize=True).item() == pytest.approx(normal, rel=1e-2)


def test_the_normalised_penalty_does_not_depend_on_the_size_of_the_bases() -> None:
    clora = randomized()
    with torch.no_grad():
        for cores in clora.cores.values():
            cores *= 1e-3  # so small that eps matters
    before = sade(clora, normalize=True).item()
    with torch.no_grad():
        for bases in (*clora.down.values(), *clora.up.values()):
            bases *= 100
    assert sade(clora, normalize=True).item() == pytest.approx(before, rel=1e-6)
    assert before < 0.9 * sade(clora, normalize=True, eps=0.0).item()


def test_sade_of_the_start_is_zero_and_finite_in_its_gradient() -> None:
    clora = make_trainable(make_config(adapter="clora")).encoders.adapters["streams"]
    for normalize in (False, True):
        clora.zero_grad()
        loss = sade(clora, normalize=normalize)
        loss.backward()
        assert loss == 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in clora.parameters())


def test_starts_without_change_and_with_bases_of_xaviers_size() -> None:
    clora = make_trainable(make_config(adapter="clora")).encoders.adapters["streams"]
    for layer, stream in modules(clora):
        assert torch.equal(clora.delta(layer, stream), torch.zeros_like(clora.delta(layer, stream)))
    bound = (6 / (64 + 4)) ** 0.5
    down = clora.down["c_fc"]
    assert 0.9 * bound < down.abs().max() <= bound
    assert not torch.equal(down[0], down[1])


def test_shared_tensors_are_counted_optimised_and_saved_once() -> None:
    model = make_trainable(make_config(adapter="clora"))
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert len({id(p) for p in parameters}) == len(parameters)
    saved = trained_tensors(model)
    assert [name for name in saved if name.startswith("clora.")] == SHARED
    assert len({tensor.data_ptr() for tensor in saved.values()}) == len(saved)
    assert sum(p.numel() for p in parameters) == sum(tensor.numel() for tensor in saved.values())


def test_parameters_of_the_published_size() -> None:
    shapes = tensor_shapes(make_config(adapter="clora", backbone="ViT-B-16-quickgelu", rank=4, pairs=4))
    assert sum(torch.Size(shapes[name]).numel() for name in SHARED) == 127_104
