"""The model that the options of the command line name."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streams import RenderConfig
from streams.cores import usable_cores
from velora.config import check_labels
from velora.errors import ModelError

if TYPE_CHECKING:
    from velora import Recognizer, VELoRAConfig


def load_model(arguments: argparse.Namespace) -> Recognizer:
    """Load `--model` as asked, and say on stderr where its weights are random. Raises ModelError."""
    from velora import load_recognizer  # imports torch

    labels = None if arguments.labels is None else read_labels(arguments.labels)
    if labels and arguments.model and (arguments.model == "demo" or is_there(arguments.model)):
        raise ModelError("--labels asks CLIP itself: --model must then name a backbone, such as ViT-B-16-quickgelu")
    recognizer = load_recognizer(
        (arguments.model or "demo") if labels is None else "zero-shot",
        device=arguments.device,
        dtype=arguments.dtype,
        weights=arguments.weights,
        random_weights=arguments.random_weights,
        labels=labels,
        backbone=None if labels is None else arguments.model,
    )
    if note := random_note(recognizer):
        print(f"velora: {note}", file=sys.stderr)
    return recognizer


def read_labels(text: str) -> list[str]:
    """Labels from a file, a line each, or from a text with commas. Raises ModelError that says what is wrong."""
    if is_there(text):
        return read_label_file(Path(text))
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if len(labels) < 2:
        raise ModelError(f"--labels {text}: no such file; give a file of labels, or two words or more with commas")
    return labels


def is_there(text: str) -> bool:
    """Whether a text is the path of something; a long one never is."""
    try:
        return Path(text).exists()
    except OSError:
        return False


def read_label_file(path: Path) -> list[str]:
    """The labels in a text file, a line each. Raises ModelError where it cannot be read or is empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read as UTF-8 text, a label a line ({error})") from None
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise ModelError(f"{path} holds no label: write one a line")
    try:
        return list(check_labels(labels))
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None


def live_rendering(config: VELoRAConfig) -> dict[str, Any]:
    """How event images are drawn live: of a source that does not tell its exposures, of those it was trained on."""
    return {**({"window_us": config.exposure_us} if config.exposure_us else {}), **config.rendering}


def render_config(recognizer: Recognizer) -> RenderConfig:
    """How the recogniser's event images are drawn. Raises ModelError for a checkpoint that asks for the impossible."""
    try:
        return RenderConfig(**live_rendering(recognizer.config))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{recognizer.name}: its config.json has a rendering that cannot be used ({error})") from None


class Paced(Protocol):
    """What tells how far apart samples are: a source, or what another process has told of it."""

    @property
    def frame_size(self) -> tuple[int, int] | None: ...

    @property
    def sample_period_us(self) -> int: ...


def window_stride(recognizer: Recognizer, source: Paced) -> int:
    """Samples of a source from one of a window to the next, at the spacing that the recogniser was trained at."""
    events_alone = source.frame_size is None
    period_us = render_config(recognizer).period_us if events_alone else source.sample_period_us
    return recognizer.config.stride_for(period_us)


def leave_a_core() -> None:
    """To what runs beside the model: torch's threads wait for one another, and one too many holds up all."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() - 1)))


def random_note(recognizer: Recognizer) -> str | None:
    """What to say wherever predictions of random weights are shown; None for a trained model."""
    if not recognizer.random_parts:
        return None
    return f"Random weights ({', '.join(recognizer.random_parts)}): the labels mean nothing yet."
