"""A label from a sliding window, against the least that its three encodings could take.

The floor is three images through all blocks of the bare tower of open_clip, in bfloat16: no adapters, no fusion, no
preprocessing; beside it, the same through this project's own tower. The bound by matrices is what these multiply and
add, at the rate at which this machine multiplies a large bfloat16 matrix.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from app.bench.asked import Asked
from app.bench.book import Book
from app.bench.fabricated import Feed
from app.bench.models import dtype_name, load
from app.bench.push import pushing, row_of
from app.bench.timing import Work, alternate, finished
from velora.backbones import Backbone
from velora.devices import choose_device, cpu_has_bf16
from velora.graphs import Replays, record_on_cuda
from velora.vit import VisionTower

IMAGES = 3
_SIDE = {"cpu": 2048}  # of the matrices
_LARGE_SIDE = 8192


def measure(asked: Asked, book: Book) -> None:
    """A row a model."""
    device = choose_device(asked.device)
    if device.type == "cpu" and not cpu_has_bf16():
        book.leave_out("the floor in bfloat16", "this processor has no bfloat16 instructions")
        return
    for name in asked.models:
        book.doing(name)
        recognizer = load(asked, name)
        if recognizer.dtype != torch.bfloat16:
            book.leave_out(
                f"{name} against the floor", f"it runs in {dtype_name(recognizer.dtype)}, the floor in bfloat16"
            )
            continue
        vit = recognizer.model.tower.backbone
        side = _SIDE.get(device.type, _LARGE_SIDE)
        feed = Feed(recognizer.config.frames)
        works = {
            "push": pushing(recognizer, feed),
            "floor": encodings(bare_tower(vit), vit, device),
            "own_floor": encodings(AllBlocks(vit), vit, device),
            "gemm": multiplication(side, device),
        }
        seconds = alternate(works, asked.turns(9, 5), book, warm=2)
        row = row_of(book, recognizer)
        for work in ("push", "floor", "own_floor"):
            row.milliseconds(f"{work}_ms", seconds[work])
        row.rate("bf16_tflops", 2 * side**3 / 1e12, seconds["gemm"])
        row.figures["encodings_gflop"] = flops(vit) / 1e9
        row.figures["gemm_floor_ms"] = row.figures["encodings_gflop"] / row.figures["bf16_tflops"]
        for floor in ("floor", "own_floor", "gemm_floor"):
            row.ratio(f"push_vs_{floor}", "push_ms", f"{floor}_ms")


def encodings(tower: nn.Module, vit: Backbone, device: torch.device) -> Work:
    """Three images through a tower."""
    tower = tower.to(device, torch.bfloat16).eval().requires_grad_(False)
    images = torch.randn(IMAGES, 3, vit.image_size, vit.image_size, device=device, dtype=torch.bfloat16)

    encoded = Replays(tower, record_on_cuda) if device.type == "cuda" else tower  # as a push is sent off there

    @torch.inference_mode()
    def encode() -> None:
        encoded(images)

    return finished(device, encode)


class AllBlocks(nn.Module):
    """Our own tower, all rows of all blocks of it, without adapters."""

    def __init__(self, vit: Backbone) -> None:
        super().__init__()
        self.tower = VisionTower(vit)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens [n, N, d] of images [n, 3, H, W]."""
        return self.tower.run(self.tower.embed(images), 0, self.tower.backbone.layers)


def bare_tower(vit: Backbone) -> nn.Module:
    """open_clip's own, of a backbone's shape; all of its blocks."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    tower: nn.Module = VisionTransformer(
        image_size=vit.image_size,
        patch_size=vit.patch_size,
        width=vit.width,
        layers=vit.layers,
        heads=vit.heads,
        mlp_ratio=4.0,
        output_dim=vit.output_dim,
        act_layer=QuickGELU if vit.quick_gelu else nn.GELU,
    )
    return tower


def multiplication(side: int, device: torch.device) -> Work:
    """Of two square matrices in bfloat16."""
    a, b, out = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(3))

    @torch.inference_mode()
    def multiply() -> None:
        torch.mm(a, b, out=out)

    return finished(device, multiply)


def flops(vit: Backbone, images: int = IMAGES) -> float:
    """Multiplications and additions of images that pass all blocks of a tower."""
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        AllBlocks(vit)(torch.empty(images, 3, vit.image_size, vit.image_size))
    return float(counted.get_total_flops())
