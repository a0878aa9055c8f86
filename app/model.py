"""The model that the options of the command line name."""

from __future__ import annotations

import argparse
import sys

from velora import Recognizer, load_recognizer


def load_model(arguments: argparse.Namespace) -> Recognizer:
    """Load `--model` as asked, and say on stderr where its weights are random. Raises ModelError."""
    recognizer = load_recognizer(
        arguments.model, device=arguments.device, dtype=arguments.dtype, random_weights=arguments.random_weights
    )
    if note := random_note(recognizer):
        print(f"velora: {note}", file=sys.stderr)
    return recognizer


def random_note(recognizer: Recognizer) -> str | None:
    """What to say wherever predictions of random weights are shown; None for a trained model."""
    if not recognizer.random_parts:
        return None
    return f"Random weights ({', '.join(recognizer.random_parts)}): the labels mean nothing yet."
