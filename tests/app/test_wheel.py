"""The installed wheel works in any folder, also in one that holds the user's own `app.py` or `streams/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def velora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of the wheel, installed into an environment that has only its libraries."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("velora_rgbe-*.whl")
    venv.create(folder / "env", with_pip=False)
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder / "env")}))
    python = scripts / Path(sys.executable).name
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, capture_output=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "env")}))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return scripts / "velora"


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A folder of the user's own files, under our names."""
    for name in ("app.py", "velora.py", "streams/__init__.py", "recordings/__init__.py", "torch.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the wrong module was imported')")
    return tmp_path


def run(velora: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [str(velora), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_the_script_runs_among_decoys(velora: Path, decoys: Path, small_recording: Path) -> None:
    help_page = run(velora, "--help", cwd=decoys)
    assert help_page.returncode == 0 and "replay" in help_page.stdout
    replay = run(velora, "replay", small_recording, "--json", "--speed", "max", cwd=decoys)
    assert replay.returncode == 0, replay.stderr
    assert json.loads(replay.stdout.splitlines()[0])["model"] == "demo"


def test_the_wheel_brings_model_recording_and_page_but_no_tests(velora: Path) -> None:
    (site,) = velora.parents[1].glob("lib/python*/site-packages")
    for part in (
        "velora/demo/config.json",
        "velora/demo/backbone.safetensors",
        "velora/demo/adapter.safetensors",
        "recordings/cards.aedat4",
        "recordings/cards.labels.csv",
        "app/page.css",
        "app/page.js",
        "app/label_report/report.css",
        "app/label_report/report.js",
    ):
        assert (site / part).is_file(), part
    assert not (site / "tests").exists() and not (site / "benchmarks").exists()
