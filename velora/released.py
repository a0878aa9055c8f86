"""Preset "released": what the authors' evaluation computes (Event-AHU/VELoRA at 54069bc), to run their checkpoints.

    encode     all blocks, each stream with its own adapter; ln_post and CLIP's projection, all tokens     [n, N, o]
    pool       Z_m = V mean over time + b + e_m                                                        each [B, N, d]
    fusion     a new block on [Z_f ; Z_r ; Z_e] -> Y_r, Y_e
    top        H_m = the last block with its adapter on Z_m;  O_m = H_m + Y_m + g_m(Y_m)
    head       single-head attention over [O_r ; O_e]; its halves added; the last ten tokens, one linear layer

g_m applies the adapter's own matrices of the last block, c_fc's then c_proj's, without the frozen ones and the scale
alpha / r. The logits are log-probabilities. Only rows that reach them are computed.

As released, H_m's attention runs over the batch instead of the tokens, so that a sample's result depends on its
neighbours. `attend_over` says what to do: "batch_of_one" (every sample as their model computes it at batch 1),
"tokens", or "batch" (as released; for who calls the model itself: a recogniser refuses it, and training does).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.adapter import Route
from velora.backbones import backbone
from velora.config import VELoRAConfig
from velora.encoders import Encoders
from velora.paper import spread
from velora.vit import Block as ClipBlock
from velora.vit import Tower, split_heads

READ = 10  # tokens that the head reads
DROP_PATH = 0.1  # how often training leaves a branch of a new block out
_EPS = 1e-6
_HEAD = 64  # features of a head


class ReleasedFusion(nn.Module):
    """What is trained beside the adapters of the encoders, and the stages of this preset."""

    def __init__(self, config: VELoRAConfig) -> None:
        super().__init__()
        vit = backbone(config.backbone)
        d = vit.width
        self.attend_over = config.attend_over
        self.visual_embed = nn.Linear(vit.output_dim, d)
        self.embedding = nn.ParameterDict({stream: nn.Parameter(torch.zeros(1, 1, d)) for stream in config.streams})
        self.blocks = FusionBlock(d)  # of the reconstruction
        self.norm = nn.LayerNorm(d, eps=_EPS)
        self.fuse_blocks = FusionBlock(d)
        self.attention = HeadAttention(d)
        self.head = nn.Linear(READ * d, len(config.labels))

    def encode(self, tower: Tower, images: Tensor, route: Route | None) -> Tensor:
        """Normalised images [n, 3, H, W] to tokens in CLIP's joint space, [n, N, o]."""
        tokens = tower.run(tower.embed(images), 0, tower.backbone.layers, route)
        codes: Tensor = tower.ln_post(tokens) @ tower.proj
        return codes

    def fuse(self, encoders: Encoders, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """Encodings pooled over time [B, N, o] (diff is None for windows of one sample) to log-probabilities [B, C]."""
        z = {"rgb": self._embed("rgb", rgb), "event": self._embed("event", event)}
        motion = [] if diff is None else [self._embed("diff", diff)]
        tokens = torch.cat([*motion, z["rgb"], z["event"]], dim=1)
        n = rgb.shape[1]
        y_r, y_e = self.fuse_blocks(tokens, last=2 * n).chunk(2, dim=1)
        o = torch.cat([self._top(encoders, "rgb", z["rgb"], y_r), self._top(encoders, "event", z["event"], y_e)], dim=1)
        rows = torch.cat([o[:, n - READ : n], o[:, -READ:]], dim=1)
        s_r, s_e = self.attention(rows, o).chunk(2, dim=1)
        return F.log_softmax(self.head((s_r + s_e).flatten(1)), dim=1)

    def reconstruction(self, encoders: Encoders, rgb: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        """L_rec: how far the reconstruction block's image of each modality is from the other one; and L_mean."""
        z_r, z_e = self._embed("rgb", rgb), self._embed("event", event)
        from_r, from_e = self.norm(self.blocks(torch.cat([z_r, z_e]))).chunk(2)
        return F.mse_loss(from_e, z_r) + F.mse_loss(from_r, z_e), spread(z_r) + spread(z_e)

    def _embed(self, stream: str, pooled: Tensor) -> Tensor:
        """Z_m [B, N, d]."""
        embedded: Tensor = self.visual_embed(pooled.to(self.visual_embed.weight.dtype)) + self.embedding[stream]
        return embedded

    def _top(self, encoders: Encoders, stream: str, z: Tensor, y: Tensor) -> Tensor:
        """O_m [B, N, d]."""
        tower, route = encoders.tower_of(stream), encoders.route_to(stream, len(z))
        block = tower.blocks[-1]
        x = z.to(tower.dtype)
        attended = x + self._attention(block, x)
        h = attended + block.mlp(block.ln_2(attended), route)
        o: Tensor = h.to(y.dtype) + y
        return o if route is None else o + block.mlp.gain(y.to(tower.dtype), route).to(y.dtype)

    def _attention(self, block: ClipBlock, x: Tensor) -> Tensor:
        normed: Tensor = block.ln_1(x)
        if self.attend_over == "batch":
            normed = normed.transpose(0, 1)
        read: Tensor = block.attn.read_self(normed) if self.attend_over == "batch_of_one" else block.attn(normed)
        return read.transpose(0, 1) if self.attend_over == "batch" else read


class HeadAttention(nn.Module):
    """Self-attention with one head and no output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """What some rows [B, R, d] of x read from x [B, M, d]; [B, R, d]."""
        return F.scaled_dot_product_attention(self.query(rows), self.key(x), self.value(x))


class FusionBlock(nn.Module):
    """A ViT block as timm makes them: pre-norm, exact GELU; the names of its layers are timm's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = FusionAttention(width, width // _HEAD)
        self.mlp = FusionMlp(width)
        if not self.norm1.weight.is_meta:
            self.apply(_truncated_normal)

    def forward(self, x: Tensor, *, last: int | None = None) -> Tensor:
        """x [B, N, d] through the block; only the last rows, where `last` is given."""
        rows = x if last is None else x[:, -last:]
        rows = rows + self._drop_path(self.attn(self.norm1(rows), self.norm1(x)))
        return rows + self._drop_path(self.mlp(self.norm2(rows)))

    def _drop_path(self, branch: Tensor) -> Tensor:
        """Stochastic depth: in training, leave the branch out for some samples. Huang et al., arXiv 1603.09382."""
        if not self.training:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= DROP_PATH
        return branch * kept / (1 - DROP_PATH)


class FusionAttention(nn.Module):
    """Multi-head self-attention with one layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, rows: Tensor, x: Tensor) -> Tensor:
        """What some rows [B, R, d] of x read from x [B, N, d]; [B, R, d]."""
        d, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        q = split_heads(F.linear(rows, weight[:d], bias[:d]), self.heads)
        k, v = (split_heads(part, self.heads) for part in F.linear(x, weight[d:], bias[d:]).chunk(2, dim=-1))
        read = F.scaled_dot_product_attention(q, k, v)
        merged: Tensor = self.proj(read.transpose(1, 2).flatten(2))
        return merged


class FusionMlp(nn.Module):
    """The feed-forward half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


def _truncated_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
