"""The options of `velora label`."""

from __future__ import annotations

import argparse

from app.cli_options import add_changes, add_format, add_model, add_within, duration, positive_int, share


def add_label(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora label`."""
    label = commands.add_parser(
        "label",
        help="label all recordings of a folder, as files that mirror it",
        description="Labels recordings, several at a time. What is finished is not done again: an interrupted run goes "
        "on, and so does one whose folder has grown.",
        allow_abbrev=False,
    )
    label.add_argument(
        "inputs", metavar="INPUT", nargs="*", help="recordings, folders of them, patterns ('a/**/*'), or URLs (s3://…)"
    )
    label.add_argument("--list", metavar="FILE", help="more inputs, one a line")
    add_within(label)
    label.add_argument("--out", required=True, metavar="DIR", help="where the labels go: a folder, or a URL")
    label.add_argument(
        "--format", choices=["jsonl", "csv", "parquet"], default="jsonl", help="of the windows (default: jsonl)"
    )
    label.add_argument(
        "--stride", type=positive_int, help="samples between the frames of a window (default: as trained)"
    )
    label.add_argument("--hop", type=positive_int, default=1, help="samples from one label to the next (default: 1)")
    label.add_argument("--topk", type=positive_int, default=5, metavar="K", help="labels of a window (default: 5)")
    label.add_argument(
        "--min-confidence", type=share, metavar="0-1", help="of windows that make spans (default: as the model says)"
    )
    label.add_argument(
        "--steady",
        type=positive_int,
        default=3,
        metavar="N",
        help="windows in a row that it takes for another label to begin a span (default: 3; 1: each counts)",
    )
    label.add_argument(
        "--min-span-ms", type=length_ms, default=200.0, metavar="MS", help="of a span (default: %(default)g)"
    )
    label.add_argument(
        "--jobs",
        type=positive_int,
        metavar="N",
        help="processes that read ahead, of each labeller (default: one less than there are cores for it)",
    )
    _add_engine(label)
    label.add_argument(
        "--timeout",
        type=duration,
        default=120.0,
        metavar="S",
        help="give a recording up that yields nothing for so long (default: %(default)g)",
    )
    label.add_argument("--force", action="store_true", help="also what is finished")
    label.add_argument("--strict", action="store_true", help="stop at the first recording that fails")
    label.add_argument("--dry-run", action="store_true", help="only say what would be labelled, and why")
    label.add_argument("--json", action="store_true", help="progress as JSON objects, one a line, on stdout")
    add_format(label)
    add_changes(label)
    add_model(label)
    label.set_defaults(command=_label, wrong_usage=label.error)


def _add_engine(label: argparse.ArgumentParser) -> None:
    """Who labels."""
    label.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="this process, or labellers on a Ray cluster"
    )
    label.add_argument(
        "--address", metavar="ADDR", help="of the cluster (default: RAY_ADDRESS, else Ray on this machine)"
    )
    label.add_argument(
        "--pool", type=positive_int, metavar="N", help="labellers on the cluster (default: as many as fit)"
    )
    label.add_argument(
        "--num-gpus",
        type=gpus,
        metavar="F",
        help="GPUs of a labeller, also a part of one (default: 1 where the cluster has any and --device is not cpu)",
    )


def gpus(text: str) -> float:
    """A number of GPUs: a part of one, or some."""
    value = float(text)
    if not (0 <= value <= 1 or value.is_integer()) or value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 to 1, or a whole number, not {text}")
    return value


def length_ms(text: str) -> float:
    """Milliseconds, none or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return value


def _label(arguments: argparse.Namespace) -> int:
    if not arguments.inputs and arguments.list is None:
        arguments.wrong_usage("give an INPUT, or --list FILE")
    of_cluster = (arguments.address, arguments.pool, arguments.num_gpus)
    if arguments.engine != "ray" and any(option is not None for option in of_cluster):
        arguments.wrong_usage("--address, --pool and --num-gpus go with --engine ray")
    from app.label import label

    return label(arguments)
