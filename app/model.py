"""The model that the options of the command line name."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from streams import RenderConfig, Source
from velora.errors import ModelError

if TYPE_CHECKING:
    from velora import Recognizer


def load_model(arguments: argparse.Namespace) -> Recognizer:
    """Load `--model` as asked, and say on stderr where its weights are random. Raises ModelError."""
    from velora import load_recognizer  # imports torch

    recognizer = load_recognizer(
        arguments.model, device=arguments.device, dtype=arguments.dtype, random_weights=arguments.random_weights
    )
    if note := random_note(recognizer):
        print(f"velora: {note}", file=sys.stderr)
    return recognizer


def render_config(recognizer: Recognizer) -> RenderConfig:
    """How the recogniser's event images are drawn. Raises ModelError for a checkpoint that asks for the impossible."""
    try:
        return RenderConfig(**recognizer.config.rendering)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{recognizer.name}: its config.json has a rendering that cannot be used ({error})") from None


def window_stride(recognizer: Recognizer, source: Source) -> int:
    """Samples of a source from one of a window to the next, at the spacing that the recogniser was trained at."""
    events_alone = source.frame_size is None
    period_us = render_config(recognizer).period_us if events_alone else source.sample_period_us
    return recognizer.config.stride_for(period_us)


def random_note(recognizer: Recognizer) -> str | None:
    """What to say wherever predictions of random weights are shown; None for a trained model."""
    if not recognizer.random_parts:
        return None
    return f"Random weights ({', '.join(recognizer.random_parts)}): the labels mean nothing yet."
