"""Exports and reports of folders that strangers have labelled: nothing in them leads to anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.app.label_outputs import SPANS, run, write_outputs


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"settings": {"feed": {"rgb": "/home/somebody/pictures"}}}, "settings.feed.rgb: Extra inputs"),
        ({"settings": {"feed": {"rgb_homography": "/etc/passwd"}}}, "settings.feed.rgb_homography"),
        ({"settings": {"feed": {"rotate": 45}}}, "settings.feed.rotate"),
        ({"settings": {"feed": None}}, "settings.feed"),
        ({"settings": {"feed": [1]}}, "settings.feed"),
        ({"model": {"labels": 5}}, "model.labels"),
        ({"command": None}, "command"),
        ([], "Input should be an object"),
    ],
    ids=str,
)
def test_a_run_json_that_nobody_has_written_is_one_line(tmp_path: Path, part: object, told: str) -> None:
    """It may be a stranger's: what would show other files, or is of another kind, is not taken."""
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    (out / "run.json").write_text(json.dumps(part))
    for line in (["export", out, "--to", "csv", "--out", tmp_path / "ex"], ["report", out]):
        code, _, stderr = run(*line)
        assert code == 1 and stderr.startswith(f"velora: {out}/run.json cannot be read ({told}"), stderr
    assert not (out / "report.html").exists() and not (tmp_path / "ex" / "spans.csv").exists()


def test_within_folders_nothing_leads_elsewhere(tmp_path: Path) -> None:
    out, within = write_outputs(tmp_path, {"a.aedat4": SPANS}), ["--within", tmp_path / "out"]
    code, _, said = run("export", out, "--to", "csv", "--no-video", "--out", out / "ex", *within)
    assert code == 1 and "a.aedat4 is not in a folder that may be opened here" in said
    (out / "elsewhere").symlink_to(tmp_path)
    code, _, said = run("export", out, "--to", "csv", "--no-video", "--out", out / "ex", *within)
    assert code == 1 and said.startswith(f"velora: {out}/elsewhere is a link to elsewhere: remove it")
