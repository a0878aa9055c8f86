"""The ways through the program that hostile checkpoints and weights take, each run in the process of `child`."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from tests.app.conftest import write_square
from tests.trust.fuzz.child import DATA
from tests.trust.fuzz.routes import command as any_command
from tests.trust.fuzz.routes import line
from velora.backbones import BACKBONES, Backbone
from velora.checkpoint import load_checkpoint
from velora.convert import convert as make
from velora.errors import ModelError
from velora.released_file import read_released
from velora.weights import read_weights

#: What hostile pickles would make, in whatever folder is the current one.
MARKER = "velora-fuzz-has-run-code"
Ended = TypeVar("Ended")
#: As any other one, but the end of it is waited for: until a model is read, nothing is said.
command = functools.partial(any_command, enough_s=60.0)
SMALL = Backbone("small", 64, 2, 2, 8, 32, 16, True, "somebody/small")


def load(path: Path) -> str:
    """read the checkpoint."""
    try:
        load_checkpoint(path)
    except ModelError as error:
        return line(str(error))
    return DATA


def info(path: Path) -> str:
    """velora info --json CHECKPOINT."""
    return command("info", "--json", path)


def recognise(path: Path) -> str:
    """velora replay --model CHECKPOINT."""
    return command("replay", "--json", "--speed", "max", "--stride", "1", "--hop", "8", "--model", path, _recording())


def released(path: Path) -> str:
    """read and convert."""
    from tests.velora.conftest import tiny_backbone

    try:
        with tiny_backbone():
            labels = ("one", "two", "three", "four", "five")
            _without_running(lambda: make(read_released(path), labels, backbone_name="demo"))
    except ModelError as error:
        return line(str(error))
    return DATA


def convert(path: Path) -> str:
    """velora convert."""
    from tests.velora.conftest import tiny_backbone

    labels = path.with_name("labels.txt")
    labels.write_text("one\ntwo\nthree\nfour\nfive\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, tiny_backbone():
        out = Path(folder) / "out"
        ended = _without_running(command, "convert", "--json", path, "--labels", labels, "--out", out)
        assert out.exists() == (ended == DATA) and len(list(Path(folder).iterdir())) == out.exists(), "half a folder"
        return ended


def weights(path: Path) -> str:
    """read the weights."""
    try:
        _without_running(read_weights, path)
    except ModelError as error:
        return line(str(error))
    return DATA


def recognise_with_weights(path: Path) -> str:
    """velora replay --weights."""
    replay = ("replay", "--json", "--speed", "max", "--stride", "1", "--hop", "8", "--model", "small")
    with patch.dict(BACKBONES, small=SMALL):
        return _without_running(command, *replay, "--weights", path, _recording())


def _without_running(function: Callable[..., Ended], *arguments: object) -> Ended:
    """What a function gives. Raises AssertionError where a file made it run code."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return function(*arguments)
        finally:
            os.chdir(before)
            assert not (Path(folder) / MARKER).exists(), "code in the file was run"


@functools.cache
def _recording() -> Path:
    """Nine frames, which give two labels."""
    return write_square(Path(tempfile.mkdtemp()) / "square.aedat4", 9)
