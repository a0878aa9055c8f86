"""Top-1 of each fast mode on simulated scenes, and how far it is from that of float32, in points.

A mode is a line in MODES: a function from options and a model's name to a recogniser. Those that cannot run here raise
NotHere, which says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from app.bench.asked import Asked
from app.bench.book import Book
from app.bench.models import dtype_name, load, placed
from app.datasets import CardOptions, open_dataset
from streams.simulation.cards import LABELS
from velora import Recognizer
from velora.adapter import Adapter, merged
from velora.devices import choose_device, cpu_has_bf16
from velora.encoders import Encoders
from velora.errors import ModelError
from velora.model import VELoRA
from velora.training.clips import ClipSet
from velora.training.evaluate import Answers, answer

_CLIPS = 100  # of five windows at most: one that changes its label is 0.2 points


class NotHere(Exception):
    """Why a mode cannot run on this machine."""


def measure(asked: Asked, book: Book) -> None:
    """A row a mode, for each model that knows the simulated cards."""
    if asked.quick and asked.clips is None:
        book.leave_out("top-1", "simulating scenes takes minutes; with --quick it is done where --clips says how many")
        return
    for name in asked.models:
        try:
            reference = _float32(asked, name)
        except ModelError as error:
            book.leave_out(name, str(error))
            continue
        if reference.random_parts or reference.config.labels != LABELS:
            book.leave_out(name, "it is not trained on the simulated cards: its answers mean nothing there")
            continue
        book.leave_out("compiled, int8", "tried, and left out: they cost more than they save (benchmarks/NOTES.md)")
        if reference.device.type != "cuda":
            book.leave_out("graphs", "of CUDA and ROCm builds of torch, with a GPU")
        book.doing(f"{name}: simulating scenes")
        _rows(asked, book, name, _scenes(asked, reference))


def _scenes(asked: Asked, recognizer: Recognizer) -> ClipSet:
    size, rendering = recognizer.model.tower.backbone.image_size, dict(recognizer.config.rendering)
    cache, options = asked.folder / "frames", CardOptions(clips=asked.clips or _CLIPS)
    return open_dataset("cards", "test", cache, size=size, rendering=rendering, labels=LABELS, options=options)


def _rows(asked: Asked, book: Book, name: str, scenes: ClipSet) -> None:
    reference: Answers | None = None
    for mode, make in MODES.items():
        book.doing(f"{name}, {mode}")
        try:
            recognizer = make(asked, name)
        except NotHere as reason:
            book.leave_out(f"{name}, {mode}", str(reason))
            continue
        found = answer(recognizer, scenes, "stream", told=lambda done, total: book.heed())
        reference = reference or found
        said, truth, expected = found.logits.argmax(axis=1), found.truth, reference.logits.argmax(axis=1)
        right, was_right = said == truth, expected == truth
        row = book.row(model=name, mode=mode, dtype=dtype_name(recognizer.dtype), device=str(recognizer.device))
        row.what |= {"scenes": len(scenes.clips), "windows": len(truth)}
        row.what |= {"windows_lost": int((was_right & ~right).sum()), "windows_gained": int((right & ~was_right).sum())}
        row.figures["top1"] = float(right.mean())
        row.figures["fp32_top1"] = float(was_right.mean())
        row.figures["difference_points"] = 100 * (row.figures["top1"] - row.figures["fp32_top1"])
        row.figures["same_label"] = float((said == expected).mean())


def _float32(asked: Asked, name: str) -> Recognizer:
    return load(asked, name, dtype="fp32")


def _bfloat16(asked: Asked, name: str) -> Recognizer:
    device = choose_device(asked.device)
    if device.type == "cpu" and not cpu_has_bf16():
        raise NotHere("this processor has no bfloat16 instructions")
    return load(asked, name, dtype="bf16")


def plain(recognizer: Recognizer) -> Recognizer:
    """Encoded block by block as it is written down, not prepared for inference."""
    recognizer.model.encoders.prepare(False)
    # another one, which has recorded no graphs of what was prepared
    return Recognizer(recognizer.name, recognizer.model, recognizer.random_parts)


def merged_adapters(recognizer: Recognizer) -> Recognizer:
    """A tower for each stream, the stream's adapter in its weights; otherwise it is added to each layer."""
    model, encoders = recognizer.model, recognizer.model.encoders
    if "streams" not in encoders.adapters:
        raise NotHere("it has no adapters of streams")
    adapters = cast("dict[str, Adapter]", dict(encoders.adapters.items()))
    own = adapters.pop("streams")
    towers = {stream: merged(encoders.tower_of(stream), own, stream) for stream in encoders.streams}
    apart = VELoRA(model.config, encoders=Encoders(model.config, towers, adapters))
    apart.fuser.load_state_dict(model.fuser.state_dict())
    apart.eval().requires_grad_(False)
    return placed(f"{recognizer.name}, merged", apart, recognizer.device, recognizer.dtype)


#: the first one is the reference
MODES: Mapping[str, Callable[[Asked, str], Recognizer]] = {
    "fp32, plain": lambda asked, name: plain(_float32(asked, name)),
    "fp32, prepared": _float32,
    "fp32, merged": lambda asked, name: merged_adapters(_float32(asked, name)),
    "bf16, plain": lambda asked, name: plain(_bfloat16(asked, name)),
    "bf16, prepared": _bfloat16,
    "bf16, merged": lambda asked, name: merged_adapters(_bfloat16(asked, name)),
}
