"""What an adapter is: a low-rank change dW to feed-forward layers of a frozen tower, one for each stream.

    y = W x + b  +  up (mix_s (down drop(x)))       down [R, in], mix_s [R, R], up [out, R]; s: the image's own stream

The streams of a layer share one stack `down` and one stack `up`; `mix_s` says which part of the R middle features is
stream s's own. So every image of a batch passes the adapter of its stream in one call, whatever the mixture.
LoRA (velora/lora.py) stacks the streams' own pairs, so its mix_s is a mask; CLoRA (velora/clora.py) has pairs that the
streams share, so its mix_s is block-diagonal.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from velora.backbones import Backbone
    from velora.vit import VisionTower

FUSION = "fusion"  # the adapter of the last block, shared by the modalities
LAYERS = ("c_fc", "c_proj")


class Factors(NamedTuple):
    """One layer's changes: dW of stream s is `up @ mix[s] @ down`."""

    down: Tensor  # [R, in]
    mix: Tensor  # [S, R], the diagonals of diagonal matrices, or [S, R, R]
    up: Tensor  # [out, R]


class Adapter(nn.Module, ABC):
    """The changes to the feed-forward layers of some blocks, for some streams."""

    def __init__(self, streams: tuple[str, ...], layers: tuple[str, ...], *, dropout: float, scale: float) -> None:
        super().__init__()
        self.streams = streams
        self.layers = layers  # names of the layers in the tower
        self.dropout = dropout  # in front of `down`, in training
        self.scale = scale  # alpha / r, which is part of `mix`

    @abstractmethod
    def factors(self, layer: str) -> Factors:
        """The factors of one of `layers`."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores, every tensor once, under its name there."""

    def delta(self, layer: str, stream: str) -> Tensor:
        """dW [out, in] of one layer and stream."""
        down, mix, up = self.factors(layer)
        own = mix[self.streams.index(stream)]
        return up @ (torch.diag(own) if own.ndim == 1 else own) @ down


@dataclass(frozen=True, eq=False)
class Route:
    """An adapter, and which of its streams each image of a batch belongs to."""

    adapter: Adapter
    streams: Tensor  # [n] int64, positions in `adapter.streams`

    def gain(self, layer: str, x: Tensor) -> Tensor:
        """What the adapter adds to a layer's output for its input x [n, N, in]; [n, N, out]."""
        hidden, up = self._hidden(layer, x)
        return F.linear(hidden, up)

    def add(self, layer: str, x: Tensor, y: Tensor) -> Tensor:
        """y [n, N, out], fresh from the frozen layer, plus `gain`; in place, unless there is a way back through it."""
        hidden, up = self._hidden(layer, x)
        sum_of, factors = y.view(-1, y.shape[-1]), (hidden.flatten(0, 1).to(y.dtype), up.T.to(y.dtype))
        if torch.is_grad_enabled():  # the backward of a change in place to a view copies all of it
            return torch.addmm(sum_of, *factors).view_as(y)
        sum_of.addmm_(*factors)  # autocast leaves it alone
        return y

    def _hidden(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed middle features [n, N, R], and `up`, in x's dtype."""
        down, mix, up = (factor.to(x.dtype) for factor in self.adapter.factors(layer))
        hidden = F.linear(F.dropout(x, self.adapter.dropout, self.adapter.training), down)
        own = mix[self.streams]
        return (hidden * own.unsqueeze(1) if own.ndim == 2 else hidden @ own.mT), up


def adapted_layers(backbone: Backbone, blocks: range) -> tuple[str, ...]:
    """Names in the tower of the layers that adapters of these blocks change."""
    return tuple(layer_name(i, layer) for i in blocks for layer in LAYERS)


def layer_name(block: int, layer: str) -> str:
    """The name in the tower of a block's feed-forward layer, "c_fc" or "c_proj"."""
    return f"transformer.resblocks.{block}.mlp.{layer}"


def fan(backbone: Backbone, layer: str) -> tuple[int, int]:
    """Inputs and outputs of a feed-forward layer, by its name or the end of it."""
    d = backbone.width
    return (d, 4 * d) if layer.endswith("c_fc") else (4 * d, d)


@torch.no_grad()
def merge(tower: VisionTower, adapter: Adapter, stream: str) -> None:
    """Add a stream's dW to the weights of a bare tower, which then computes it at no cost. Undone by `unmerge`.

    A tower may be shared with other models: merge into a copy of it (`merged`).
    """
    for weight, delta in _deltas(tower, adapter, stream):
        weight += delta


@torch.no_grad()
def unmerge(tower: VisionTower, adapter: Adapter, stream: str) -> None:
    """Take a stream's dW out of a tower again; the weights are the old ones up to rounding."""
    for weight, delta in _deltas(tower, adapter, stream):
        weight -= delta


def merged(tower: VisionTower, adapter: Adapter, stream: str) -> VisionTower:
    """A copy of a bare tower with a stream's dW in its weights."""
    own = copy.deepcopy(tower)
    merge(own, adapter, stream)
    return own


def _deltas(tower: VisionTower, adapter: Adapter, stream: str) -> Iterator[tuple[Tensor, Tensor]]:
    for layer in adapter.layers:
        weight = tower.get_parameter(f"{layer}.weight")
        yield weight, adapter.delta(layer, stream).to(weight)
