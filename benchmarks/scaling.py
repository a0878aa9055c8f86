"""What labelling a large set costs, recording by recording, and what that makes on 1, 8 and 64 GPUs.

    python benchmarks/scaling.py [--model ViT-B-16-quickgelu] [--seconds 5] [--recordings 100000] [--real FILE]
        [--gpu-rate 3500] [--cores 16] [--notes 500]

Measured here, as seconds of one core (so that what else runs on the machine matters little): decoding, drawing and
resizing the samples of a recording, of several kinds, and encoding them; a real recording is taken `--seconds` long.
The rate of a GPU, the cores beside it and what one driver takes in are passed in. Tables as Markdown on stdout;
docs/SCALING.md tells what follows from them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from app.cli import main as velora
from app.model import load_model, render_config
from streams import Sample, open_source, synchronize
from velora import Recognizer
from velora.preprocess import resize

GPUS = (1, 8, 64)
_IMAGES_EVERY = 5  # frames: what HARDVS keeps


@dataclass(frozen=True)
class Kind:
    """What a recording of one kind costs."""

    name: str
    bytes: int
    samples: int
    decode_s: float  # opening and decoding included
    render_s: float
    resize_s: float

    @property
    def read_s(self) -> float:
        return self.decode_s + self.render_s + self.resize_s


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="a backbone, whose weights are random")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a recording")
    parser.add_argument("--recordings", type=int, default=100_000)
    parser.add_argument("--gpu-rate", type=float, default=3500.0, help="samples a second of one GPU (assumed)")
    parser.add_argument("--cores", type=int, default=16, help="beside each GPU (assumed)")
    parser.add_argument("--notes", type=float, default=500.0, help="recordings a second that one driver takes in")
    parser.add_argument("--real", type=Path, help="a recording of a camera")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = {"model": arguments.model, "labels": None, "weights": None, "device": "cpu", "dtype": "float32"}
    recognizer = load_model(argparse.Namespace(**model, random_weights=True))
    with tempfile.TemporaryDirectory() as folder:
        kinds = [_measured(name, path, recognizer) for name, path in _recordings(Path(folder), arguments.seconds)]
        encode_s = _encoding(recognizer, next(iter(_recordings(Path(folder), arguments.seconds)))[1])
    if arguments.real:
        kinds.append(_scaled(_measured("a real DAVIS346, moving", arguments.real, recognizer), arguments))
    _show_costs(kinds, encode_s)
    _show_sets(kinds, arguments)


def _scaled(kind: Kind, arguments: argparse.Namespace) -> Kind:
    """Of another length."""
    with open_source(arguments.real) as source:
        assert source.span_us is not None
        times = arguments.seconds * 1e6 / (source.span_us[1] - source.span_us[0])
    costs = (seconds * times for seconds in (kind.decode_s, kind.render_s, kind.resize_s))
    return Kind(kind.name, round(kind.bytes * times), round(kind.samples * times), *costs)


def _recordings(folder: Path, seconds: float) -> Iterator[tuple[str, Path]]:
    """The same scene as one file with frames and events, and as HARDVS stores it: every 5th frame, with its events."""
    file = folder / "scene.aedat4"
    if not file.exists():
        velora(["simulate", "cards", "--out", str(file), "--seconds", str(seconds), "--seed", "1"])
    yield "AEDAT 4, 30 frames/s", file
    yield "image folder, all frames", _as_images(file, folder / "all" / "scene", 1)
    yield f"image folder, every {_IMAGES_EVERY}th frame", _as_images(file, folder / "some" / "scene", _IMAGES_EVERY)


def _as_images(file: Path, clip: Path, every: int) -> Path:
    if clip.exists():
        return clip
    for kind in ("aps", "dvs"):
        (clip / f"{clip.name}_{kind}").mkdir(parents=True)
    with open_source(file) as source:
        for k, sample in enumerate(synchronize(source)):
            if k % every == 0:
                for kind, image in (("aps", sample.rgb), ("dvs", sample.event_image)):
                    cv2.imwrite(str(clip / f"{clip.name}_{kind}" / f"{k:08d}.png"), image[..., ::-1])
    return clip


def _measured(name: str, path: Path, recognizer: Recognizer) -> Kind:
    size, held = recognizer.model.tower.backbone.image_size, list[Sample]()

    def read() -> None:
        held.clear()
        with open_source(path) as source:
            held.extend(synchronize(source, render=render_config(recognizer)))

    def resized() -> None:
        for sample in held:
            resize([sample.rgb, sample.event_image], size)

    both_s = _core_seconds(read)
    render_s = min(sum(sample.render_ms for sample in held) / 1e3, both_s)
    stored = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*.png")))
    return Kind(name, stored, len(held), both_s - render_s, render_s, _core_seconds(resized))


def _core_seconds(work: Callable[[], None], times: int = 3) -> float:
    """The least of several runs, after one that warms up."""
    work()
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def _encoding(recognizer: Recognizer, path: Path, count: int = 16) -> float:
    """Core seconds of a sample on the CPU: three images each."""
    with open_source(path) as source:
        samples = [sample for sample, _ in zip(synchronize(source), range(count), strict=False)]
    session = recognizer.open()

    def encode() -> None:
        recognizer.step([(session, sample) for sample in samples])

    return _core_seconds(encode, 1) / len(samples)


def _show_costs(kinds: list[Kind], encode_s: float) -> None:
    print("| a recording | samples | MB | decode | draw | resize | read, all of it | samples/s a core reads |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in kinds:
        parts = " | ".join(f"{1e3 * s:.0f} ms" for s in (kind.decode_s, kind.render_s, kind.resize_s, kind.read_s))
        rate = kind.samples / kind.read_s
        print(f"| {kind.name} | {kind.samples} | {kind.bytes / 1e6:.2f} | {parts} | {rate:.0f} |")
    print(f"\nEncoding a sample on one core: {1e3 * encode_s:.0f} ms.\n")


def _show_sets(kinds: list[Kind], arguments: argparse.Namespace) -> None:
    heads = " | ".join(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in GPUS)
    print(f"| {arguments.recordings:,} recordings | samples | TB | core hours of reading | {heads} |")
    print("| --- | --- | --- | --- |" + " --- |" * len(GPUS))
    for kind in kinds:
        count = arguments.recordings
        stored, core_h = count * kind.bytes / 1e12, count * kind.read_s / 3600
        times = " | ".join(_bound(kind, arguments, gpus) for gpus in GPUS)
        print(f"| {kind.name} | {count * kind.samples / 1e6:.1f} M | {stored:.2f} | {core_h:.0f} | {times} |")


def _bound(kind: Kind, arguments: argparse.Namespace, gpus: int) -> str:
    """How long it takes, what it is that takes so long, and what storage has to give meanwhile."""
    count = arguments.recordings
    seconds = {
        "encoding": count * kind.samples / arguments.gpu_rate / gpus,
        "reading": count * kind.read_s / (arguments.cores - 1) / gpus,
        "the driver": count / arguments.notes,
    }
    longest = max(seconds, key=lambda name: seconds[name])
    speed = count * kind.bytes / seconds[longest] / 1e9
    return f"{seconds[longest] / 60:.0f} min, {longest}, {speed:.2f} GB/s"


if __name__ == "__main__":
    main()
