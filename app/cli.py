"""The command line: `velora COMMAND …`. Commands are imported when they run, so that `velora --help` is instant.

Exit codes: 0 done, 1 a one-line error, 2 wrong usage, 130 interrupted. A traceback needs `--debug`.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.cli_bench import add_bench
from app.cli_export import add_export, add_render, add_report
from app.cli_label import add_label
from app.cli_live import add_align, add_live
from app.cli_options import (
    add_filters,
    add_format,
    add_model,
    add_page,
    classes,
    lamp,
    positive_int,
    ranks,
    seconds,
    seed,
    speed,
)
from app.output import let_go_of_stdout
from streams.endings import heeded

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST = 800  # characters of an error
_OPENCV_HINT = "OpenCV needs the system's libGL; on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        for number in heeded():
            signal.signal(number, signal.default_int_handler)  # all stop as cleanly as Ctrl-C
    # torch's compute threads would wait by spinning: a fifth faster alone, twenty times slower beside another program.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as in `velora replay … | head`
        let_go_of_stdout()
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        print(f"velora: {_one_line(_named(error))}", file=sys.stderr)
        return 1


def _named(error: Exception) -> Exception:
    """A full disk that no file is named of is that of our output; what is left of it is forgotten."""
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in _FULL or sys.stdout.isatty():
        return error
    let_go_of_stdout()
    return OSError(error.errno, os.strerror(error.errno), "standard output")


def _one_line(error: Exception) -> str:
    """The error in the user's words; an unforeseen one with its kind, and how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImportError) and "libGL" in text:
        return _OPENCV_HINT
    from streams.files import in_words
    from streams.text import printable, shortened

    known = type(error).__module__.partition(".")[0] in ("streams", "velora", "app") or isinstance(error, ValueError)
    if isinstance(error, OSError) and error.filename is not None:
        text, known = in_words(error), True
    text = shortened(printable(text), _LONGEST)
    return text if known else f"{type(error).__name__}: {text} (`velora --debug …` shows where)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="velora", description="Streaming real-time RGB-event recognition with VELoRA.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"velora-rgbe {_version()}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_demo, _add_replay, add_live, add_align, add_label, _add_train, _add_evaluate):
        add(commands)
    for add in (add_render, add_export, add_report, _add_convert, _add_simulate, _add_info, _add_doctor, add_bench):
        add(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse gives no public name to it


def _add_demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="the page, playing a bundled recording, or yours, with a model")
    demo.add_argument("sources", metavar="SOURCE", nargs="*", help="recordings, videos, clips (default: bundled)")
    add_filters(demo)
    add_page(demo)
    add_model(demo)
    demo.set_defaults(command=_demo)


def _add_replay(commands: _Commands[argparse.ArgumentParser]) -> None:
    replay = commands.add_parser("replay", help="predictions of one recording, as a live table or JSON lines")
    replay.add_argument("source", metavar="SOURCE", help="a recording, or a video")
    replay.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    replay.add_argument(
        "--stride", type=positive_int, help="samples between the frames of a window (default: as trained)"
    )
    replay.add_argument("--hop", type=positive_int, default=1, help="samples from one label to the next (default: 1)")
    replay.add_argument("--speed", type=speed, default=1.0, help="times the recording's pace, or max (default: 1)")
    replay.add_argument("--strict", action="store_true", help="exit with 1 where anything was damaged or dropped")
    add_filters(replay)
    add_model(replay)
    replay.set_defaults(command=_replay)


def _add_convert(commands: _Commands[argparse.ArgumentParser]) -> None:
    convert = commands.add_parser("convert", help="the authors' released checkpoint to a folder that --model takes")
    convert.add_argument("checkpoint", metavar="CHECKPOINT.pth", type=Path)
    convert.add_argument("--labels", metavar="FILE", type=Path, required=True, help="names of its classes, one a line")
    convert.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder")
    convert.add_argument("--backbone", help="a model of open_clip (default: the one with the encoders' sizes)")
    convert.add_argument("--alpha", type=positive_int, default=8, help="of LoRA, which no file tells (default: 8)")
    convert.add_argument("--force", action="store_true", help="replace a converted checkpoint at --out")
    convert.add_argument("--json", action="store_true", help="one JSON object on stdout")
    convert.set_defaults(command=_convert)


def _add_simulate(commands: _Commands[argparse.ArgumentParser]) -> None:
    simulate = commands.add_parser(
        "simulate", help="make a recording: what an event camera sees of a video, or of cards"
    )
    simulate.add_argument("scene", metavar="cards|VIDEO", help="playing cards on a table, or a video file")
    simulate.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the .aedat4 to write; the labels go beside it (with --scenes: the folder)",
    )
    simulate.add_argument(
        "--seconds", type=seconds, help="length (default: 10 of cards, 1.5 of each scene of a set, all of a video)"
    )
    simulate.add_argument("--seed", type=seed, default=0, help="same seed, same recording (default: 0)")
    simulate.add_argument("--sensor", choices=["ideal", "davis346"], help="before a video (default: davis346)")
    simulate.add_argument(
        "--lamp", type=lamp, metavar="0.005-1", help="light over the cards; turns on noise and auto-exposure"
    )
    simulate.add_argument("--scenes", type=positive_int, metavar="N", help="a labelled set of N scenes, in a folder")
    simulate.add_argument(
        "--layout", choices=["recordings", "images"], default="recordings", help="of that folder (default: recordings)"
    )
    simulate.add_argument("--light", choices=["normal", "dim", "dark"], help="of all scenes of a set (default: any)")
    simulate.add_argument("--speed", choices=["slow", "medium", "fast"], help="of all hands in a set (default: any)")
    simulate.add_argument("--grey", action="store_true", help="grey frames of the cards")
    simulate.add_argument("--force", action="store_true", help="replace FILE, and labels beside it")
    simulate.add_argument("--ranks", type=ranks, help="only these cards, such as A,7,JOKER (default: all)")
    simulate.set_defaults(command=_simulate)


def _add_train(commands: _Commands[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", help="fine-tune adapters on your own labelled clips", allow_abbrev=False)
    _add_data(train)
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="the checkpoint, and how it came about")
    train.add_argument("--from", dest="base", metavar="CHECKPOINT", help="start from demo, or a checkpoint's folder")
    train.add_argument("--new-labels", action="store_true", help="with --from: keep its adapters, learn other labels")
    train.add_argument("--backbone", help="demo, or a model of open_clip (default: ViT-B-16-quickgelu)")
    train.add_argument("--preset", choices=["paper", "released"], help="(default: paper)")
    train.add_argument("--adapter", choices=["lora", "clora", "none", "full"], help="what is trained (default: lora)")
    train.add_argument("--motion", choices=["shared", "head", "off"], help="(default: shared)")
    train.add_argument("--sampling", choices=["clip", "stream", "mix"], default="stream", help="(default: stream)")
    for name, metavar, text in (
        ("rank", "R", "r of LoRA and CLoRA"),
        ("alpha", "A", "of LoRA"),
        ("pairs", "P", "p, CLoRA's pairs of bases"),
        ("frames", "T", "samples of a window"),
    ):
        train.add_argument(f"--{name}", type=positive_int, metavar=metavar, help=text)
    train.add_argument(
        "--period-us",
        type=positive_int,
        help="from sample to sample (default: 133333; with --from the checkpoint's, but for new labels of demo)",
    )
    train.add_argument("--max-window-us", type=positive_int, help="only the last so many us of an exposure's events")
    for name, text in (
        ("batch", "windows a step and process"),
        ("accumulate", "batches a step"),
        ("patience", "validations without a gain that end it; 0: never"),
        ("validate-every", "steps; 0: every epoch"),
        ("seed", "same seed, same weights"),
    ):
        train.add_argument(f"--{name}", type=seed, help=text)
    for name, text in (
        ("epochs", "windows of every slot once each; a part of one is fine"),
        ("rate", "learning rate"),
        ("weight-decay", "of AdamW"),
        ("warmup", "share of the steps"),
        ("clip", "norm of the gradient"),
        ("w-rec", "weight of the reconstruction loss"),
        ("sade", "weight of CLoRA's diversity term"),
        ("dropout", "in front of the adapters; costs time on a CPU"),
        ("crop", "smallest share of a side that is kept"),
        ("drop-modality", "how often one modality is blanked"),
        ("max-minutes", "stop after so long"),
    ):
        train.add_argument(f"--{name}", type=float, help=text)
    train.add_argument("--modality", choices=["both", "rgb", "event"], help="blank the other one throughout")
    train.add_argument("--sade-normalize", action="store_true", default=None, help="divide it by the parts' sizes")
    train.add_argument("--flip", action="store_true", default=None, help="left and right, where no label says either")
    train.add_argument("--weights", metavar="TAG|FILE", help="of the backbone: a tag of open_clip, or a file")
    train.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 (default: auto)")
    train.add_argument("--random-weights", action="store_true", help="train on an untrained backbone")
    train.add_argument("--json", action="store_true", help="progress and result, one JSON object a line on stdout")
    train.set_defaults(command=_train)


def _add_evaluate(commands: _Commands[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser("evaluate", help="top-1, confusions and pictures of a checkpoint on labelled clips")
    evaluate.add_argument("model", metavar="CHECKPOINT", help="demo, or a checkpoint's folder")
    _add_data(evaluate)
    evaluate.add_argument("--split", choices=["train", "val", "test"], default="test", help="(default: test)")
    evaluate.add_argument("--protocol", choices=["clip", "stream"], default="stream", help="(default: stream)")
    evaluate.add_argument("--modality", choices=["both", "rgb", "event"], default="both", help="blank the other one")
    evaluate.add_argument("--light", choices=["normal", "dim", "dark"], help="of simulated cards (default: all)")
    evaluate.add_argument("--speed", choices=["slow", "medium", "fast"], help="of simulated cards (default: all)")
    evaluate.add_argument("--report", type=Path, metavar="DIR", help="write figures and pictures there")
    evaluate.add_argument("--json", action="store_true", help="one JSON object on stdout")
    evaluate.add_argument("--weights", metavar="TAG|FILE", help="of the backbone: a tag of open_clip, or a file")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    evaluate.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 (default: auto)")
    evaluate.add_argument("--random-weights", action="store_true", help="an untrained backbone")
    evaluate.set_defaults(command=_evaluate, labels=None)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="FOLDER|cards",
        help="images as HARDVS or PokerEvent lay them out, recordings with labels.csv (or NAME.labels.csv each), "
        "or cards: simulated scenes",
    )
    parser.add_argument("--clips", type=positive_int, default=400, metavar="N", help="of cards (default: %(default)s)")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where decoded frames are kept (default: .frames in the folder of a training; ~/.cache/velora/frames)",
    )


def _add_info(commands: _Commands[argparse.ArgumentParser]) -> None:
    info = commands.add_parser(
        "info",
        help="what a recording or a checkpoint holds; how many parameters a model has",
        description="Without FILE, it counts the parameters of a model that the options describe; no weights needed.",
    )
    info.add_argument("file", metavar="FILE", nargs="?", help="a recording, or a checkpoint's folder")
    add_format(info)
    info.add_argument("--preset", choices=["paper", "released"], default="paper", help="(default: paper)")
    info.add_argument("--adapter", choices=["lora", "clora", "none", "full"], default="lora", help="(default: lora)")
    info.add_argument("--backbone", default="ViT-B-16-quickgelu", help="a model of open_clip (default: %(default)s)")
    info.add_argument("--classes", type=classes, metavar="N", help="number of labels")
    info.add_argument("--rank", type=positive_int, default=4, help="r of LoRA and CLoRA (default: 4)")
    info.add_argument("--pairs", type=positive_int, default=4, help="p, CLoRA's pairs of bases (default: 4)")
    info.add_argument("--json", action="store_true", help="one JSON object on stdout")
    info.set_defaults(command=_info, wrong_usage=info.error)


def _add_doctor(commands: _Commands[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser("doctor", help="what this machine has: GPU, cameras, weights, libraries")
    doctor.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    doctor.set_defaults(command=_doctor)


def _demo(arguments: argparse.Namespace) -> int:
    from app.demo import demo

    return demo(arguments)


def _replay(arguments: argparse.Namespace) -> int:
    from app.replay import replay

    return replay(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from app.train import train

    return train(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from app.evaluate import evaluate

    return evaluate(arguments)


def _convert(arguments: argparse.Namespace) -> int:
    from app.convert import convert_command

    return convert_command(arguments)


def _simulate(arguments: argparse.Namespace) -> int:
    if arguments.scenes is not None and arguments.scene == "cards":
        from app.simulate_set import simulate_set

        return simulate_set(arguments)
    from app.simulate import simulate

    return simulate(arguments)


def _info(arguments: argparse.Namespace) -> int:
    if arguments.file is None and arguments.classes is None:
        arguments.wrong_usage("give a FILE, or --classes N and what else describes a model")
    from app.info import info

    return info(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from app.doctor import doctor

    return doctor(arguments)


def _version() -> str:
    try:
        return version("velora-rgbe")
    except PackageNotFoundError:
        return "(not installed)"
