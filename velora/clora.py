"""CLoRA, collaborative low-rank adaptation: all streams and blocks share p pairs of bases; each has its own cores.

    dW_j = sum over h of  D_h Q_h^j U_h           D_h [out, r], Q_h^j [r, r], U_h [r, in]; j: a stream in a block

The layers of one shape share their bases: c_fc is one group, c_proj another. So the bases are what the modalities have
in common and the cores are what is specific. arXiv 2512.24603 (no public code; other methods share the name CLoRA).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from velora.adapter import LAYERS, Adapter, Factors, fan
from velora.backbones import backbone

if TYPE_CHECKING:
    from velora.config import VELoRAConfig

_PREFIX = "clora."


class CLoRA(Adapter):
    """CLoRA's parameters, for training and inference alike; dW = 0 at the start, because the cores are zero."""

    def __init__(self, streams: tuple[str, ...], layers: tuple[str, ...], config: VELoRAConfig) -> None:
        super().__init__(streams, layers, dropout=config.dropout, scale=1.0)
        shapes = clora_shapes(config, streams, layers)
        self.down, self.up, self.cores = (
            nn.ParameterDict({group: nn.Parameter(torch.zeros(shapes[clora_key(kind, group)])) for group in LAYERS})
            for kind in ("down", "up", "cores")
        )
        self._places = {layer: _place(layer, layers) for layer in layers}
        for bases in (*self.down.values(), *self.up.values()):
            if not bases.is_meta:
                _xavier(bases)

    def factors(self, layer: str) -> Factors:
        group, block = self._places[layer]
        mix = _block_diagonal(self.cores[group][block])  # [S, p r, p r]
        return Factors(self.down[group].flatten(0, 1), mix, self.up[group].transpose(0, 1).flatten(1))

    def state(self) -> dict[str, Tensor]:
        return {_PREFIX + name: parameter for name, parameter in self.named_parameters()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of a checkpoint's tensors."""
        self.load_state_dict({name: tensors[_PREFIX + name] for name, _ in self.named_parameters()})


def clora_key(kind: str, group: str) -> str:
    """The key in a checkpoint of a group's `down`, `up` or `cores`."""
    return f"{_PREFIX}{kind}.{group}"


def clora_shapes(config: VELoRAConfig, streams: tuple[str, ...], layers: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Key and shape of CLoRA's tensors: U [p, r, in], D [p, out, r], Q [blocks, S, p, r, r] for each group."""
    pairs, rank = config.pairs, config.rank
    shapes: dict[str, tuple[int, ...]] = {}
    for group in LAYERS:
        inputs, outputs = fan(backbone(config.backbone), group)
        blocks = len(layers) // len(LAYERS)
        shapes |= {clora_key("down", group): (pairs, rank, inputs), clora_key("up", group): (pairs, outputs, rank)}
        shapes |= {clora_key("cores", group): (blocks, len(streams), pairs, rank, rank)}
    return shapes


def sade(adapter: CLoRA, *, normalize: bool = False, eps: float = 1e-6) -> Tensor:
    """Sample-agnostic diversity enhancement: how much the p parts of each dW overlap; a scalar to minimise.

    L = sum over modules j and pairs h < k of || dW_hj^T dW_kj ||_F^2 with dW_hj = D_h Q_h^j U_h, computed without any
    d x d product: trace(K_h M K_k M^T) with M = Q_h^T (D_h^T D_k) Q_k and K_h = U_h U_h^T, which costs O(p^2 d r^2)
    once and O(m p^2 r^3) for m modules. `normalize` divides each term by || dW_hj ||_F^2 || dW_kj ||_F^2, so that it
    cannot be lowered by shrinking the weights; `eps`, added to each, is relative to || D_h ||_F^2 || U_h ||_F^2.
    """
    terms = [_overlap(adapter, group, eps if normalize else None) for group in LAYERS]
    return torch.stack(terms).sum()


def _overlap(adapter: CLoRA, group: str, eps: float | None) -> Tensor:
    """The sum of one group of layers; with `eps`, of normalised terms."""
    up, down = adapter.up[group], adapter.down[group]
    grams_up = torch.einsum("hor,kos->hkrs", up, up)  # D_h^T D_k
    grams_down = down @ down.mT  # K_h
    cores = adapter.cores[group].flatten(0, 1)  # [m, p, r, r]

    def size(i: int) -> Tensor:  # || dW_ij ||_F^2 of all modules j, kept from zero
        return _norm(cores[:, i], grams_up[i, i], grams_down[i]) + (eps or 0) * _base_norm(
            grams_up[i, i], grams_down[i]
        )

    total: Tensor = cores.new_zeros(())
    for h, k in itertools.combinations(range(len(up)), 2):
        middle = cores[:, h].mT @ grams_up[h, k] @ cores[:, k]  # M [m, r, r]
        term = _trace(grams_down[h] @ middle, grams_down[k] @ middle.mT)
        if eps is not None:
            term = term / (size(h) * size(k))
        total = total + term.sum()
    return total


def _norm(cores: Tensor, gram_up: Tensor, gram_down: Tensor) -> Tensor:
    """|| D Q U ||_F^2 for cores [m, r, r]; [m]."""
    return _trace(gram_down @ cores.mT, gram_up @ cores)


def _base_norm(gram_up: Tensor, gram_down: Tensor) -> Tensor:
    """|| D ||_F^2 || U ||_F^2, to which eps is relative; it takes no part in the gradient."""
    return (torch.trace(gram_up) * torch.trace(gram_down)).detach()


def _block_diagonal(cores: Tensor) -> Tensor:
    """Cores [S, p, r, r] to one matrix a stream with the cores on its diagonal, [S, p r, p r]."""
    streams, pairs, rank, _ = cores.shape
    spread = torch.diag_embed(cores.permute(0, 2, 3, 1))  # [S, r, r, p, p]
    return spread.permute(0, 3, 1, 4, 2).reshape(streams, pairs * rank, pairs * rank)


def _trace(a: Tensor, b: Tensor) -> Tensor:
    """trace(a b) over the last two dimensions."""
    trace: Tensor = (a * b.mT).sum(dim=(-2, -1))
    return trace


@torch.no_grad()
def _xavier(bases: Tensor) -> None:
    for base in bases:
        nn.init.xavier_uniform_(base)


def _place(layer: str, layers: tuple[str, ...]) -> tuple[str, int]:
    """The group of a layer, and its place in the group."""
    group = next(group for group in LAYERS if layer.endswith(group))
    return group, [name for name in layers if name.endswith(group)].index(layer)
