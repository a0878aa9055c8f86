"""A frozen tower and an adapter, prepared for inference: the same numbers up to rounding, in fewer passes over memory.

    c_fc and its adapter     one product:  [x ; m h] [W B]^T + b      h = A x, m: the mask of the image's own stream
    QuickGELU                its factor is part of that product:      x sigmoid(1.702 x) = silu(1.702 x) / 1.702
    residuals                are added by the products themselves
    class rows               of the last block pass its feed-forward layers together
    bfloat16 on a CPU        weights lie as oneDNN reads them, and K is a multiple of the rows of a tile of AMX

benchmarks/NOTES.md has what each of these brings. Weights that change later are not followed: prepare anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from velora.adapter import LAYERS, Adapter, Route, layer_name
from velora.backbones import Backbone
from velora.vit import Block, Rows, VisionTower, attention, features, patches_of, split_heads

_TILE = 32  # bfloat16 rows
_QUICK = 1.702
Function = Callable[[Tensor], Tensor]


class Stack(NamedTuple):
    """One layer's changes of all streams: of stream s, `up @ diag(mask[s]) @ down`; float32."""

    down: Tensor  # [K, in]
    up: Tensor  # [out, K]
    mask: Tensor  # [S, K] of zeros and ones


def stack(adapter: Adapter, layer: str) -> Stack:
    """The changes of a layer, with what mixes them taken into `down`."""
    down, mix, up = (factor.detach().float() for factor in adapter.factors(layer))
    if mix.ndim == 2:
        kept = [own.nonzero()[:, 0] for own in mix]
        downs = [own[rows, None] * down[rows] for own, rows in zip(mix, kept, strict=True)]
        ups = [up[:, rows] for rows in kept]
    else:
        downs, ups = [own @ down for own in mix], [up] * len(mix)
    owner = torch.cat([torch.full((len(rows),), s, device=down.device) for s, rows in enumerate(downs)])
    mask = (owner == torch.arange(len(downs), device=down.device)[:, None]).float()
    return Stack(torch.cat(downs), torch.cat(ups, dim=1), mask)


@dataclass(frozen=True, slots=True)
class _Adapted:
    """The low-rank part of a layer in the tower's dtype."""

    down: Tensor  # [K, in]
    up: Tensor  # [K, out]
    mask: Tensor  # [S, K]

    def hidden(self, x: Tensor, streams: Tensor) -> Tensor:
        """The middle features [n, N, K] of x [n, N, in], each image with those of its stream alone."""
        return F.linear(x, self.down).mul_(self.mask[streams].unsqueeze(1))


def _adapted(low: Stack, like: Tensor) -> _Adapted:
    return _Adapted(low.down.to(like), low.up.T.contiguous().to(like), low.mask.to(like))


def _padded(low: Stack) -> Stack:
    """The same, with K a multiple of a tile's rows."""
    spare = -low.up.shape[1] % _TILE
    return Stack(F.pad(low.down, (0, 0, 0, spare)), F.pad(low.up, (0, spare)), F.pad(low.mask, (0, spare)))


class _PreparedBlock:
    """One block; without an adapter, the frozen one."""

    def __init__(self, block: Block, backbone: Backbone, index: int, adapter: Adapter | None) -> None:
        self.ln_1, self.ln_2, self.heads = block.ln_1, block.ln_2, backbone.heads
        self.gelu: Function = _silu if backbone.quick_gelu else F.gelu
        self.factor = _QUICK if backbone.quick_gelu else 1.0
        attn, mlp = block.attn, block.mlp
        self.qkv = _linear(attn.in_proj_weight, attn.in_proj_bias)
        self.out, self.proj = attn.out_proj, mlp.c_proj
        self.fc_low = self.proj_low = None
        wide = mlp.c_fc.weight
        if adapter is not None:
            low = _padded(stack(adapter, layer_name(index, "c_fc")))
            self.fc_low = _adapted(low, wide)
            wide = torch.cat([wide, low.up.to(wide)], dim=1)
            self.proj_low = _adapted(stack(adapter, layer_name(index, "c_proj")), wide)
        self.fc = _linear(wide * self.factor, mlp.c_fc.bias * self.factor)

    def __call__(self, x: Tensor, streams: Tensor) -> None:
        """Tokens x [n, N, d], contiguous, through the block, in place."""
        flat = x.view(-1, x.shape[-1])
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.ln_1(x)).chunk(3, dim=-1))
        read = attention(q, k, v).transpose(1, 2).reshape(flat.shape)
        flat.add_(self.out.bias).addmm_(read, self.out.weight.T)
        hidden = self.gelu(self.fc(self._with_low(self.ln_2(x), streams)))
        flat.add_(self.proj.bias).addmm_(hidden.flatten(0, 1), self.proj.weight.T, alpha=1 / self.factor)
        if self.proj_low is not None:
            low = self.proj_low.hidden(hidden, streams).flatten(0, 1)
            flat.addmm_(low, self.proj_low.up, alpha=1 / self.factor)

    def _with_low(self, x: Tensor, streams: Tensor) -> Tensor:
        """x [n, N, d] and behind it the adapter's middle features; [n, N, d + K]."""
        return x if self.fc_low is None else torch.cat([x, self.fc_low.hidden(x, streams)], dim=-1)


class PreparedLast:
    """Stands for the last block, of which the fusion reads a few rows; its adapter is the fusion's, whatever the route.

    All rows pass the feed-forward layers together: for so few, reading the weights is what takes time.
    """

    def __init__(self, tower: VisionTower, adapter: Adapter) -> None:
        block, backbone = tower.blocks[-1], tower.backbone
        attn, mlp, d = block.attn, block.mlp, backbone.width
        self.ln_1, self.ln_2, self.heads, self.activate = block.ln_1, block.ln_2, backbone.heads, mlp.activate
        with torch.no_grad():
            weight, bias = attn.in_proj_weight, attn.in_proj_bias
            self.q, self.kv = _linear(weight[:d], bias[:d]), _linear(weight[d:], bias[d:])
            self.out = _linear(attn.out_proj.weight, attn.out_proj.bias)
            self.fc, self.proj = _linear(mlp.c_fc.weight, mlp.c_fc.bias), _linear(mlp.c_proj.weight, mlp.c_proj.bias)
            layers = (stack(adapter, layer_name(backbone.layers - 1, name)) for name in LAYERS)
            self.fc_low, self.proj_low = (_adapted(low, weight) for low in layers)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Block.keys_values`."""
        k, v = self.kv(self.ln_1(x)).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def two_rows(self, frozen: Rows, adapted: Rows, route: Route | None) -> tuple[Tensor, Tensor]:
        """As `Block.two_rows`."""
        own, shared = self._read(*frozen), self._read(*adapted)
        flat = torch.cat([own.flatten(0, 1), shared.flatten(0, 1)])  # [rows, d]
        count = own.shape[:2].numel()
        flat += self._feed(flat, count)
        return flat[:count].view_as(own), flat[count:].view_as(shared)

    def _read(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        read = attention(split_heads(self.q(self.ln_1(x)), self.heads), keys, values)
        return x + self.out(read.transpose(1, 2).flatten(2))

    def _feed(self, x: Tensor, frozen: int) -> Tensor:
        """The feed-forward half of rows x [rows, d], with the adapter for all but the first `frozen`."""
        normed = self.ln_2(x)
        hidden = self.fc(normed)
        _add_low(self.fc_low, normed[frozen:], hidden[frozen:])
        hidden = self.activate(hidden)
        fed = self.proj(hidden)
        _add_low(self.proj_low, hidden[frozen:], fed[frozen:])
        return fed


def _add_low(low: _Adapted, x: Tensor, y: Tensor) -> None:
    """To y what the only stream of an adapter makes of x; both [rows, features]."""
    y.addmm_(F.linear(x, low.down), low.up)


class PreparedTower:
    """Stands for a tower where nothing is trained; `run` takes its own adapter, whatever the route."""

    def __init__(self, tower: VisionTower, adapter: Adapter | None, *, last: bool = False) -> None:
        """`last`: whether the last block is run as a whole too."""
        self.tower, self.backbone = tower, tower.backbone
        self.ln_post, self.proj = tower.ln_post, tower.proj
        adapted = set(adapter.layers) if adapter is not None else set()
        with torch.no_grad():
            weight = tower.conv1.weight.flatten(1)
            self._patches = _linear(weight, weight.new_zeros(len(weight)))
            self._blocks = [
                _PreparedBlock(block, tower.backbone, i, adapter if layer_name(i, "c_fc") in adapted else None)
                for i, block in enumerate(tower.blocks if last else tower.blocks[:-1])
            ]

    def embed(self, images: Tensor) -> Tensor:
        """As the tower's own."""
        return self.tower.tokens(self._patches(patches_of(images.to(self.tower.dtype), self.backbone.patch_size)))

    def run(self, x: Tensor, start: int, stop: int, route: Route | None = None) -> Tensor:
        """Tokens [n, N, d] through the blocks [start, stop); x itself changes."""
        streams = x.new_zeros(len(x), dtype=torch.int64) if route is None else route.streams
        for block in self._blocks[start:stop]:
            block(x, streams)
        return x

    def __call__(self, images: Tensor) -> Tensor:
        """CLIP's image features, as the tower's own forward."""
        return features(self, self.tower, images)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)


def _linear(weight: Tensor, bias: Tensor) -> Function:
    """x -> x W^T + b, by the fastest way for where the weights are."""
    weight, bias = weight.detach(), bias.detach()
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
        try:
            return _packed(weight, bias)
        except (AttributeError, RuntimeError):  # operators that torch does not promise to keep
            pass
    return lambda x: F.linear(x, weight, bias)


def _packed(weight: Tensor, bias: Tensor) -> Function:
    ops = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight.contiguous())
    ops._linear_pointwise(weight[:1], packed, bias, "none", [], "")
    return lambda x: ops._linear_pointwise(x, packed, bias, "none", [], "")
