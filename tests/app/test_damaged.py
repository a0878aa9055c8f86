"""Every real recording, cut and flipped: data or one line, never a hang, a crash or a traceback."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from tests.conftest import REAL_NAMES

_PATIENCE_S = 600


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A hang ends the whole run with a stack trace: nothing else would end a loop that holds the interpreter's lock."""
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def damaged(data: bytes, way: str, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    if way == "cut":
        return data[: int(rng.integers(0, len(data)))]
    flipped = bytearray(data)
    for place in rng.integers(0, len(data), 64):
        flipped[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(flipped)


@pytest.mark.parametrize("way", ["cut", "flipped"])
@pytest.mark.parametrize("name", REAL_NAMES)
def test_damaged_recordings_end_in_data_or_in_one_line(real_recording, tmp_path: Path, capsys, name, way) -> None:
    original = real_recording(name).read_bytes()
    for seed in range(10):
        path = tmp_path / f"{way}_{seed}.aedat4"
        path.write_bytes(damaged(original, way, seed))
        for command in (["replay", "--json", "--speed", "max", "--stride", "1", "--hop", "50"], ["info", "--json"]):
            code = main([*command, str(path)])
            out, err = capsys.readouterr()
            assert code in (0, 1)
            assert "Traceback" not in err and "Error:" not in err
            assert all(json.loads(line) for line in out.splitlines())
            if code == 1:
                assert out == "" and err.strip()
