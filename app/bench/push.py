"""A label from a sliding window, against the whole window at equal dtype, and against the released algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from app.bench.asked import Asked
from app.bench.book import Book, Row
from app.bench.fabricated import Feed
from app.bench.models import ReleasedAlgorithm, dtype_name, load, varied
from app.bench.timing import Work, alternate, finished
from streams import Sample
from velora import Recognizer
from velora.devices import choose_device
from velora.preprocess import normalize, resize_to

_RELEASED = 2  # windows: each takes seconds
_MANY = 100  # pushes, from which on the slowest ones are told
_VARIANTS = ({"adapter": "clora"}, {"preset": "released"}, {"preset": "zero-shot", "adapter": "none"})


def measure(asked: Asked, book: Book) -> None:
    """A row a model; the presets and adapters of each in more rows, where there is time."""
    for name in asked.models:
        recognizer = load(asked, name)
        book.doing(f"{name} against the released algorithm")
        released = None if recognizer.config.preset == "zero-shot" else released_window(recognizer)
        _row(asked, book, recognizer, asked.turns(_usual(recognizer), 5), released)
        for changes in () if asked.quick else _VARIANTS:
            book.doing(f"{name}, {', '.join(changes.values())}")
            _row(asked, book, varied(recognizer, **changes), asked.turns(7, 3), None)
    if choose_device("auto").type == "cpu":
        book.leave_out("on a GPU", "torch finds none on this machine")
    if asked.quick:
        book.leave_out("CLoRA, preset released, zero-shot", "--quick")


def _usual(recognizer: Recognizer) -> int:
    return 9 if recognizer.device.type == "cpu" else 2 * _MANY


def _row(
    asked: Asked,
    book: Book,
    recognizer: Recognizer,
    rounds: int,
    released: Callable[[Sequence[Sample]], object] | None,
) -> None:
    row = row_of(book, recognizer)
    feed = Feed(recognizer.config.frames)
    works: dict[str, Work] = {"push": pushing(recognizer, feed)}
    works["window"] = finished(recognizer.device, lambda: from_scratch(recognizer, list(feed.window)))
    if released is not None:
        works["released"] = finished(recognizer.device, lambda: released(list(feed.window)))
    seconds = alternate(works, rounds, book, fewer={"released": _RELEASED})
    for work, own in seconds.items():
        row.milliseconds(f"{work}_ms", own)
    row.ratio("push_vs_window", "window_ms", "push_ms")
    if released is not None:
        row.ratio("push_vs_released", "released_ms", "push_ms")
    if len(seconds["push"]) >= _MANY:
        row.figures["push_p99_ms"] = 1e3 * sorted(seconds["push"])[len(seconds["push"]) * 99 // 100]


def row_of(book: Book, recognizer: Recognizer) -> Row:
    """A row that says which model it is of."""
    config = recognizer.config
    return book.row(
        model=recognizer.name,
        preset=config.preset,
        adapter=config.adapter,
        dtype=dtype_name(recognizer.dtype),
        device=str(recognizer.device),
        random_weights=bool(recognizer.random_parts),
    )


def pushing(recognizer: Recognizer, feed: Feed) -> Work:
    """A push of the next sample to a session whose window is full. The result is read back, so nothing is left over."""
    session = recognizer.open()
    for sample in feed.fill():
        session.push(sample)
    return lambda: session.push(feed.next())


@torch.inference_mode()
def from_scratch(recognizer: Recognizer, window: Sequence[Sample]) -> Tensor:
    """Logits [1, C] of a window, every image of it encoded, in one batch."""
    logits: Tensor = recognizer.model(*normalised(recognizer, window))
    return logits.float().cpu()


def normalised(recognizer: Recognizer, window: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """RGB and event images of a window, float32 [1, T, 3, S, S] each."""
    config, size = recognizer.config, recognizer.model.tower.backbone.image_size
    rgb, event = (
        normalize(resize_to([getattr(s, kind) for s in window], size, recognizer.device), config.mean, config.std)
        for kind in ("rgb", "event_image")
    )
    return rgb.unsqueeze(0), event.unsqueeze(0)


def released_window(recognizer: Recognizer) -> Callable[[Sequence[Sample]], Tensor]:
    """The released algorithm, random weights, for windows of the recogniser's size."""
    algorithm = ReleasedAlgorithm(recognizer.config, recognizer.device)
    return lambda window: algorithm(*normalised(recognizer, window)).cpu()
