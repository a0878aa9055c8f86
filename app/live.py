"""`velora live`: the labels of a live source; headless, as `replay` prints them, else on the page."""

from __future__ import annotations

import argparse
import sys

from app.demo import watch
from app.model import load_model, render_config, window_stride
from app.replay import JsonLines, LiveTable, Tally, closing, losses
from streams import LATEST, Live, RunSummary, StreamError, open_source, run


def live(arguments: argparse.Namespace) -> int:
    """Run until interrupted. Raises StreamError and ModelError."""
    if not arguments.headless:
        return watch(arguments)
    recognizer = load_model(arguments)
    with open_source(arguments.source) as source:
        if not source.live:
            raise StreamError(f"{arguments.source} is a recording: velora replay reads it")
        stride = arguments.stride or window_stride(recognizer, source)
        samples, tally, summary = Live(source, render=render_config(recognizer)), Tally(), RunSummary()
        with JsonLines() if arguments.json else LiveTable(recognizer, arguments.source, stride) as shown:
            try:
                run(
                    samples,
                    recognizer,
                    sinks=[tally, shown],
                    policy=LATEST,
                    stride=stride,
                    hop=arguments.hop,
                    summary=summary,
                    max_lag_ms=arguments.max_lag_ms,
                )
            except KeyboardInterrupt:
                samples.stop()
    lines = closing(tally, summary, samples.counts, recognizer, stride)
    for line in [*lines, *(f"not recognised, {reason}" for reason in losses(summary.drops))]:
        print(line, file=sys.stderr)
    return 130
