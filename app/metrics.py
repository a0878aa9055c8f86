"""The figures of the status line as Prometheus reads them (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.meters import memory_mb
from app.viewer import Viewer
from streams.text import storable

_FIGURES = {
    "source_fps": ("velora_source_frames_per_second", "Samples that the source brings."),
    "shown_fps": ("velora_shown_frames_per_second", "Pictures that the tab takes."),
    "labels_per_s": ("velora_labels_per_second", "Predictions."),
    "stride": ("velora_stride_samples", "Samples from one of a window to the next, in force."),
}
_LATENCIES = {
    "arrival_ms": ("velora_arrival_seconds", "From the end of an exposure to its arrival, beyond the least."),
    "label_ms": ("velora_label_seconds", "From a sample to its label."),
    "paint_ms": ("velora_paint_seconds", "From a sample to its picture on the screen."),
}


def exposition(viewers: Mapping[str, Viewer], *, named: bool) -> str:
    """All tabs, numbered, since their tokens are secret; with what each watches, if `named`."""
    return "\n".join([*_lines(list(viewers.values()), named), ""])


def _lines(viewers: list[Viewer], named: bool) -> Iterator[str]:
    yield from _head("velora_viewers", "gauge", "Tabs that watch.")
    yield f"velora_viewers {len(viewers)}"
    yield from _head("velora_resident_memory_bytes", "gauge", "Of the program.")
    yield f"velora_resident_memory_bytes {memory_mb() * 1e6:.0f}"
    names = [f',source="{_escaped(viewer.channel.name)}"' if named else "" for viewer in viewers]
    states = [(f'tab="{k}"{names[k]}', viewer.figures()) for k, viewer in enumerate(viewers)]
    for name, (metric, text) in _FIGURES.items():
        yield from _head(metric, "gauge", text)
        yield from (f"{metric}{{{labels}}} {state[name]}" for labels, state in states)
    for name, (metric, text) in _LATENCIES.items():
        yield from _head(metric, "summary", text)
        for labels, state in states:
            for quantile, ms in zip(("0.5", "0.95"), state[name] or (), strict=False):
                yield f'{metric}{{{labels},quantile="{quantile}"}} {ms / 1e3:.4f}'
    yield from _head("velora_dropped_samples_total", "counter", "Samples that were offered to the model in vain.")
    for labels, state in states:
        for reason, count in state["dropped"].items():
            yield f'velora_dropped_samples_total{{{labels},reason="{_escaped(reason)}"}} {count}'


def _head(metric: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {metric} {text}"
    yield f"# TYPE {metric} {kind}"


def _escaped(text: str) -> str:
    return storable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
