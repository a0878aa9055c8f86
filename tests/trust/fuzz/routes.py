"""The ways through the program that a hostile recording takes, each run in the process of `child`.

A route returns what a file ended in: data, or one line that refuses it. It raises AssertionError for anything else.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from streams import Gap, StreamError, open_source, synchronize
from tests.trust.fuzz.child import DATA, REFUSED

#: A label now and then, of a tiny model: the files are what is tried, and the demo would take most of the time.
_SELDOM = ("--stride", "1", "--hop", "64")
_PICTURE_S = 20.0  # of wall time
_SAMPLES = 3_000  # of a recording: a small file may say that it lasts for hours
_ENOUGH_S = 2.5  # of processor time, after which a command is interrupted: by then it has given data, and ends at once
_INTERRUPTED = 130
_FAILURE = re.compile(r"^velora: |failed:$", re.MULTILINE)  # what `label` says of one recording stands below
_UNFORESEEN = ("Traceback", "--debug shows where")


def decoder(path: Path) -> str:
    """open, synchronise, render, seek."""
    try:
        with open_source(path) as source:
            samples = sum(1 for _ in itertools.islice(synchronize(source), _SAMPLES))
            if source.span_us is not None:
                middle = sum(source.span_us) // 2
                for item in itertools.islice(source.read(middle), 5):
                    assert isinstance(item, Gap) or item.t_start_us <= item.t_end_us
    except StreamError as error:
        return line(str(error))
    return DATA if samples else REFUSED


def replay(path: Path) -> str:
    """velora replay --json."""
    return command("replay", "--json", "--speed", "max", "--model", tiny_model(), *_SELDOM, path)


def info(path: Path) -> str:
    """velora info --json."""
    return command("info", "--json", path)


def label(path: Path) -> str:
    """velora label."""
    with tempfile.TemporaryDirectory() as out, _readers_in_threads():
        ended = command("label", path, "--out", out, "--jobs", "1", "--model", tiny_model(), *_SELDOM)
        if not (Path(out) / "run.json").exists():
            assert ended == REFUSED, "it labels, and writes nothing"
            return ended
        whole = json.loads((Path(out) / "run.json").read_bytes())["state"] == "finished"
        index = (Path(out) / "index.csv").read_text(encoding="utf-8")
        lines = len(index.splitlines()) - 1
        assert lines == 1 or (lines == 0 and not whole), f"index.csv has not one line: {index[:200]!r}"
        return ended


def upload(path: Path) -> str:
    """upload to the page."""
    viewers, token = _page()
    sent = (
        Path(tempfile.mkdtemp(dir=path.parent)) / path.name
    )  # a folder of its own, which goes when it is played no more
    shutil.copyfile(path, sent)
    try:
        viewers.play_upload(token, sent)
    except (StreamError, ValueError) as error:
        from app.channel import one_line

        assert not sent.parent.exists(), "what was uploaded is left behind"
        return line(one_line(error, sent))
    try:
        return _shown(viewers.get(token))
    finally:
        viewers.get(token).pause()  # it would play on beside the next case


def _shown(viewer: Any) -> str:
    channel = viewer.channel
    _wait(lambda: channel.moment is not None or channel.failure)
    if channel.failure:
        return line(channel.failure)
    _seek(channel)
    json.dumps(viewer.state(), allow_nan=False)
    return DATA


def _seek(channel: Any) -> None:
    """To the middle, where a recording has one, and wait for its picture."""
    if channel.player.span_us is not None:
        before = channel.moment.number
        channel.player.seek(sum(channel.player.span_us) // 2)
        _wait(lambda: channel.moment.number > before or channel.failure)


@functools.cache
def tiny_model() -> Path:
    """A checkpoint with an encoder of its own, of three small blocks."""
    import torch

    from velora.backbones import BACKBONES, Backbone
    from velora.checkpoint import Checkpoint, random_tensors, save_checkpoint
    from velora.config import VELoRAConfig

    BACKBONES["tiny"] = Backbone("tiny", 64, 3, 2, 8, 32, 16, True, None)
    config = VELoRAConfig(("left", "right"), "tiny", adapter="full", trained=True)
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    save_checkpoint(folder, Checkpoint(config, random_tensors(config, torch.Generator().manual_seed(0))), card="")
    return folder


@functools.cache
def _page() -> tuple[Any, str]:
    """The tabs of a page, and the token of one."""
    from app.channel import Settings
    from app.channels import Channels
    from app.viewers import Viewers
    from recordings import bundled
    from velora import load_recognizer

    viewers = Viewers(load_recognizer(tiny_model()), Channels(Settings()))
    token = viewers.open("tab", bundled()["cards"])
    viewers.get(token).pause()  # type: ignore[union-attr]  (it was just opened)
    return viewers, token


def _wait(condition: Any) -> None:
    until = time.monotonic() + _PICTURE_S
    while not condition():
        assert time.monotonic() < until, "the page waits for a picture for ever"
        time.sleep(0.002)


# --- what is said -----------------------------------------------------------------------------------------------------


def line(text: str) -> str:
    """REFUSED, for a text that is one clear line."""
    assert text.strip() and text.isprintable() and len(text) < 1000, f"no clear line: {text[:300]!r}"
    return REFUSED


def command(*arguments: object, enough_s: float = _ENOUGH_S) -> str:
    """Run a command, and judge by its exit code and all that it prints; it is interrupted after `enough_s`."""
    from app.cli import main

    with _captured() as streams, _interrupted_after(enough_s):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    out, err = streams
    return judged(code, out[0], err[0])


def judged(code: int, out: str, err: str) -> str:
    """What a command ended in. Raises AssertionError for anything but data or one line."""
    told = f"exit code {code}, {err[-400:]!r}"
    assert code in (0, 1) or (code == _INTERRUPTED and out + err), told
    assert not any(word in err for word in _UNFORESEEN), told
    for text in out.splitlines():
        json.loads(text, parse_constant=_no_number)
    if code != 1:
        assert out.strip() or err.strip(), "it ends with nothing said"
        return DATA
    assert _FAILURE.search(err), told
    return line(err.splitlines()[-1])


def _no_number(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


@contextlib.contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """As by Ctrl-C, after so much processor time."""
    before = signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def _captured() -> Iterator[tuple[list[str], list[str]]]:
    """What this process prints, its libraries too: stdout and stderr, each in a list once it is over."""
    out: list[str] = []
    err: list[str] = []
    with tempfile.TemporaryFile() as for_out, tempfile.TemporaryFile() as for_err:
        with _redirected(1, for_out), _redirected(2, for_err):
            yield out, err
        for told, file in ((out, for_out), (err, for_err)):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))


@contextlib.contextmanager
def _redirected(number: int, file: IO[bytes]) -> Iterator[None]:
    stream = sys.stdout if number == 1 else sys.stderr
    stream.flush()
    before = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(before, number)
        os.close(before)


@contextlib.contextmanager
def _readers_in_threads() -> Iterator[None]:
    """Recordings are read in this process, whose crash is then noticed, and whose memory is measured."""
    from unittest.mock import Mock, patch

    from tests.app.conftest import ThreadContext

    with (
        patch("app.labelling.readers.multiprocessing.get_context", lambda _: ThreadContext),
        patch("app.labelling.reader._prepare", lambda: None),
        patch("app.labelling.reader.faulthandler", Mock()),
    ):
        yield
