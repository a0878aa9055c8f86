"""The recipe of the demo's model, from nothing to a checkpoint; stopped at any moment, it goes on where it was.

python -m app.make_demo --out model --seed 0          on two cores, in less than 100 minutes
python -m app.make_demo --out small --quick           the same road in two minutes, to no avail
python -m app.make_demo --out model --install         puts what came of it into the package

stills      simulated pictures of cards, of every kind                                          stills/
backbone    a small vision transformer learns to name them; frozen from then on                 backbone.safetensors
adapters    `velora train` on simulated scenes                                                  the checkpoint
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from app.cli import main as velora
from app.pretrain import Pretraining, make_stills, pretrain
from app.pretrain import Progress as Pretrained
from app.train import SUMMARY
from app.train_progress import Lines
from streams.files import replaced_when_whole
from velora.checkpoint import CONFIG, load_checkpoint, load_config, save_checkpoint, save_tensors
from velora.loading import DEMO
from velora.vit import VisionTower
from velora.weights import BUNDLED

BACKBONE = "backbone.safetensors"
_CARD = """\
# The demo model

A small VELoRA that ships with the program, so that it runs offline and at once: it names playing cards that are held or
moved before a camera. It has seen simulated cards alone.

- Backbone: a vision transformer of 6 blocks, 192 features wide, trained from scratch on simulated stills of cards
  (colour, grey, inverted, blurred, and event images), then frozen. It stands in for CLIP and knows nothing but cards.
- Adapters and head: preset "paper", LoRA of rank 4, trained on simulated scenes by `velora train`.
- Labels: {labels}
- Window: 8 samples, {period} us apart; of longer exposures the events of the last {window} us
- Validation (scenes that were not trained on, all lights and speeds): top-1 {top1:.1%}; nearest class mean {mean:.1%}
- Made by: `python -m app.make_demo --out DIR --install --seed {seed}`
"""
#: of the adapters' training, as `velora train` takes them
_ADAPTERS = {
    "clips": 1000,
    "epochs": 1.5,
    "period-us": 33_333,
    "batch": 8,
    "rate": 2e-3,
    "w-rec": 0.1,
    "dropout": 0.0,
    "drop-modality": 0.25,
    "max-window-us": 8_000,
    "patience": 0,
}
_QUICK = {"clips": 12, "epochs": 0.5, "batch": 4}


def main(argv: list[str] | None = None) -> int:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(prog="python -m app.make_demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--install", action="store_true", help="as the model that the package brings")
    parser.add_argument("--quick", action="store_true", help="a few steps of each stage")
    arguments = parser.parse_args(argv)
    if arguments.quick and arguments.install:
        parser.error("--quick makes nothing that is worth to be installed")
    out: Path = arguments.out
    began = time.perf_counter()
    plan = replace(Pretraining(), seed=arguments.seed)
    if arguments.quick:
        plan = replace(plan, stills=256, images=1_200, warmup=5, chunk=128, held_out=64)
    _begin(out / "recipe.json", plan)
    if not (out / BACKBONE).exists():
        _make_backbone(out, plan)
    code = velora(_training(out, arguments.seed, arguments.quick))
    print(f"{out}: {(time.perf_counter() - began) / 60:.1f} minutes", file=sys.stderr)
    if code == 0 and arguments.install:
        _install(out, arguments.seed)
    return code


def _begin(note: Path, plan: Pretraining) -> None:
    """Note what is made here; what others have begun is not gone on with."""
    text = json.dumps(asdict(plan), indent=1)
    if note.exists():
        if note.read_text(encoding="utf-8") != text:
            raise SystemExit(f"make_demo: {note.parent} holds a run with other settings: choose another --out")
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(note) as part:
        part.write_text(text, encoding="utf-8")


def _install(out: Path, seed: int) -> None:
    """Copy the checkpoint and its backbone to where `--model demo` finds them, with a card of its own."""
    config = load_config(out / "checkpoint" / CONFIG)
    summary = json.loads((out / "checkpoint" / SUMMARY).read_text(encoding="utf-8"))
    card = _CARD.format(
        seed=seed,
        labels=", ".join(config.labels),
        period=config.sample_period_us,
        window=config.rendering.get("max_window_us"),
        top1=summary["validation_top1"],
        mean=summary["nearest_class_mean"],
    )
    with replaced_when_whole(BUNDLED) as part:
        shutil.copyfile(out / BACKBONE, part)
    save_checkpoint(DEMO, load_checkpoint(out / "checkpoint"), card=card)


def _make_backbone(out: Path, plan: Pretraining) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    lines = Lines(wanted=not console.is_terminal)
    with Progress(*columns, console=console) as bar:
        stills = bar.add_task("stills", total=plan.stills)

        def drawn(done: int) -> None:
            bar.update(stills, completed=done)
            lines.say(f"stills: {done} of {plan.stills}")

        make_stills(out / "stills", plan, drawn)
        backbone = bar.add_task("backbone", total=plan.steps)

        def learned(progress: Pretrained) -> None:
            text = f"backbone: loss {progress.loss:.2f}, {progress.held_out:.1%} of held-out stills right"
            bar.update(backbone, completed=progress.step, description=text)
            lines.say(f"step {progress.step} of {plan.steps}, {text}")

        tower = pretrain(out / "stills", out / "pretraining.pt", plan, learned)
    save_backbone(out / BACKBONE, tower)


def save_backbone(path: Path, tower: VisionTower) -> None:
    """In half precision, as the package brings it."""
    save_tensors(path, {name: tensor.detach().half() for name, tensor in tower.state_dict().items()})


def _training(out: Path, seed: int, quick: bool) -> list[str]:
    """The command line of the last stage."""
    options = _ADAPTERS | (_QUICK if quick else {})
    line = ["train", "--data", "cards", "--backbone", "demo", "--weights", str(out / BACKBONE), "--seed", str(seed)]
    line += ["--out", str(out / "checkpoint"), "--cache", str(out / "frames")]
    return line + [text for name, value in options.items() for text in (f"--{name}", str(value))]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
