"""A label from a sliding window: encoding what is new, against encoding the whole window anew, at equal dtype.

    python benchmarks/push.py [--model ViT-B-16-quickgelu] [--preset released] [--adapter clora] [--pairs 7]

The two alternate, and the medians are of the same run. A backbone without weights at hand runs with random ones, which
cost the same. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import time

import torch

from recordings import bundled
from streams import open_source, synchronize
from velora import Recognizer, load_recognizer
from velora.checkpoint import Checkpoint, build_model, random_tensors
from velora.preprocess import normalize, resize


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--preset", default="paper", choices=["paper", "released", "zero-shot"])
    parser.add_argument("--adapter", choices=["lora", "clora", "none"])
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    recognizer = make_recognizer(arguments)
    frames = recognizer.config.frames
    with open_source(bundled()["cards"]) as source:
        samples = list(itertools.islice(synchronize(source), 60, 60 + frames + arguments.pairs))
    session = recognizer.open()
    for sample in samples[:frames]:
        session.push(sample)
    push_ms, window_ms = [], []
    for i in range(frames, len(samples)):
        began = time.perf_counter()
        session.push(samples[i])
        push_ms.append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        from_scratch(recognizer, samples[i + 1 - frames : i + 1])
        window_ms.append((time.perf_counter() - began) * 1e3)
    push, window = statistics.median(push_ms), statistics.median(window_ms)
    figures = {"push_ms": round(push, 1), "window_ms": round(window, 1), "push_vs_window": round(window / push, 1)}
    what = {"model": recognizer.name, "preset": recognizer.config.preset, "adapter": recognizer.config.adapter}
    print(json.dumps(what | {"dtype": str(recognizer.dtype), "pairs": len(push_ms)} | figures))


def make_recognizer(arguments: argparse.Namespace) -> Recognizer:
    """The demo's labels on a backbone; random adapters, and a random backbone but for the demo's."""
    loaded = load_recognizer(arguments.model, dtype=arguments.dtype, random_weights=arguments.model != "demo")
    adapter = arguments.adapter or ("none" if arguments.preset == "zero-shot" else "lora")
    config = dataclasses.replace(loaded.config, preset=arguments.preset, adapter=adapter)
    checkpoint = Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(0)))
    model = build_model(checkpoint, loaded.model.tower)
    model.encoders.adapters.to(loaded.device, loaded.dtype)
    model.fuser.to(loaded.device)
    model.encoders.prepare()
    return Recognizer(arguments.model, model)


@torch.inference_mode()
def from_scratch(recognizer, samples) -> None:  # type: ignore[no-untyped-def]
    """Logits of a window, every image of it encoded, in one batch."""
    model, config = recognizer.model, recognizer.config
    size = model.tower.backbone.image_size
    rgb, event = (
        normalize(resize([getattr(s, name) for s in samples], size).to(recognizer.device), config.mean, config.std)
        for name in ("rgb", "event_image")
    )
    model(rgb.unsqueeze(0), event.unsqueeze(0))


if __name__ == "__main__":
    main()
