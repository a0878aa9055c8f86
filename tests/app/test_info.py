"""`velora info`: what a recording holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from tests.app.test_cli import lines


def test_info_tells_streams_sizes_counts_and_times(small_recording: Path, capsys) -> None:
    assert main(["info", str(small_recording), "--json"]) == 0
    (facts,) = lines(capsys.readouterr().out)
    events, frames = facts["streams"]
    assert (facts["format"], facts["compression"], facts["damage"]) == ("AEDAT 4.0", "lz4", {})
    assert (events["kind"], events["width"], events["height"], events["count"]) == ("EVTS", 64, 48, 12_000)
    assert (frames["kind"], frames["count"]) == ("FRME", 60)
    assert frames["per_second"] == pytest.approx(30, abs=1)
    assert main(["info", str(small_recording)]) == 0
    assert "12,000 events, 64 x 48" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cuke_davis346", "static_davis346", "frames_only", "empty", "one_timestamp"])
def test_info_opens_every_real_recording(real_recording, capsys, name: str) -> None:
    assert main(["info", str(real_recording(name))]) == 0
    assert "AEDAT 4.0" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf_8_is_told(small_recording: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.aedat4")
    shutil.copy(small_recording, odd)
    for line in (["info", str(odd)], ["info", str(odd), "--json"]):
        code = f"import sys; from app.cli import main; sys.exit(main({line!r}))"
        strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, env=strict)
        assert told.returncode == 0 and b"caf\\udce9" in told.stdout.replace(b"\\\\", b"\\"), told.stderr


def test_options_that_a_recording_answers_itself_are_refused(small_recording: Path, capsys) -> None:
    assert main(["info", str(small_recording), "--size", "10x10"]) == 1
    assert "--size" in capsys.readouterr().err
