"""`velora convert`, from the command to a folder that recognises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from app.cli import main
from tests.velora.conftest import make_sample, tiny_backbone
from tests.velora.fabricate import released_checkpoint
from velora import load_recognizer


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(released_checkpoint(classes=5), tmp_path / "released.pth")
    (tmp_path / "labels.txt").write_text("\ufeffone\r\ntwo\r\nthree\r\nfour\r\nfünf\r\n\r\n", encoding="utf-8")
    return tmp_path / "released.pth"


def convert(file: Path, *options: str) -> int:
    out = file.with_name("ours")
    return main(["convert", str(file), "--labels", str(file.with_name("labels.txt")), "--out", str(out), *options])


def test_writes_a_folder_that_recognises(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(file) == 0
    told = capsys.readouterr().out
    for part in (
        "rgb LoRA",
        "fusion and head",
        "dropped: word_embed.weight",
        "encoders: equal, stored once",
        "5 classes (one … fünf)",
    ):
        assert part in told, told
    folder = file.with_name("ours")
    assert {p.name for p in folder.iterdir()} == {
        *("README.md", "adapter.safetensors", "config.json", "conversion.json")
    }
    recognizer = load_recognizer(folder, device="cpu")
    session = recognizer.open()
    prediction = [session.push(make_sample(i)) for i in range(8)][-1]
    assert prediction and prediction.label in ("one", "two", "three", "four", "fünf")
    assert not [p for p in file.parent.iterdir() if p.name.startswith(".")]


def test_json_lists_every_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(file, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] == [] and report["bytes_out"] < report["bytes_in"]
    assert report["used"]["ViT_model_state_dict/base_model.model.visual.proj"] == "rgb encoder"
    assert report["dropped"]["optimizer_state_dict"] == "of the training run"
    assert (report["classes"], report["rank"], report["own_towers"], report["backbone"]) == (5, 4, 1, "demo")
    stored = json.loads((file.with_name("ours") / "conversion.json").read_text(encoding="utf-8"))
    assert stored == report
    assert report["sha256"] in (file.with_name("ours") / "README.md").read_text(encoding="utf-8")


def test_what_is_there_already_stays(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.with_name("ours").mkdir()
    assert convert(file) == 0  # an empty folder is as good as none
    before = (file.with_name("ours") / "config.json").stat().st_mtime_ns
    assert convert(file) == 1
    assert "ours exists already: choose another --out" in capsys.readouterr().err
    assert (file.with_name("ours") / "config.json").stat().st_mtime_ns == before


def test_force_replaces_a_converted_checkpoint_and_nothing_else(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = file.with_name("ours")
    assert convert(file) == 0
    assert convert(file, "--force", "--alpha", "16") == 0
    assert json.loads((ours / "config.json").read_text(encoding="utf-8"))["alpha"] == 16
    assert {p.name for p in file.parent.iterdir()} == {"released.pth", "labels.txt", "ours"}
    (ours / "thesis.tex").write_text("years of work")
    assert convert(file, "--force") == 1
    assert "ours holds other things than a converted checkpoint" in capsys.readouterr().err
    assert (ours / "thesis.tex").read_text() == "years of work"


def test_force_keeps_what_was_there_where_it_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = file.with_name("ours")
    assert convert(file) == 0
    rename = Path.rename

    def interrupt(path: Path, target: Path) -> Path:
        if not path.name.endswith(".old") and target == ours:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    assert convert(file, "--force") == 130
    assert {p.name for p in file.parent.iterdir()} == {"released.pth", "labels.txt", "ours"}
    assert json.loads((ours / "config.json").read_text(encoding="utf-8"))["alpha"] == 8


def test_a_stranger_s_words_neither_break_nor_steer_the_terminal(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = torch.load(file, weights_only=True)
    odd = dict.fromkeys(("module.[/red]", "module.[bold]", "module.\x1b]0;hello\x07", "module.\ud800"), torch.zeros(1))
    parts["model_state_dict"] = odd | parts["model_state_dict"]
    odd_file = file.with_name("a[") / "b]" / "released.pth"  # rich would take the path for markup
    odd_file.parent.mkdir(parents=True)
    torch.save(parts, odd_file)
    odd_file.with_name("labels.txt").write_bytes(file.with_name("labels.txt").read_bytes())
    assert convert(odd_file) == 0
    told = capsys.readouterr().out
    assert "[/red]" in told and "[bold]" in told and "\x1b" not in told and "\ud800" not in told


def test_the_card_says_what_it_is_and_what_was_left_out(file: Path) -> None:
    assert convert(file) == 0
    card = (file.with_name("ours") / "README.md").read_text(encoding="utf-8")
    for part in ("as its authors released it", "`released.pth`, sha256", "(text tower, which", "not evaluated again"):
        assert part in card, card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file.with_name("labels.txt").write_text("a\nb\n"),
            "tells 5 classes apart, but 2 labels are given",
        ),
        (lambda file: file.with_name("labels.txt").write_text("\n"), "labels.txt holds no label"),
        (lambda file: file.with_name("labels.txt").write_bytes(b"\xff\xfe"), "labels.txt cannot be read as UTF-8"),
        (lambda file: file.with_name("labels.txt").unlink(), "labels.txt cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1000]), "released.pth cannot be read as a checkpoint"),
        (lambda file: file.unlink(), "released.pth cannot be read"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    file: Path, change: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file)  # type: ignore[operator]
    assert convert(file) == 1
    told = capsys.readouterr().err.strip()
    assert message in told and told.startswith("velora: ") and "\n" not in told
    assert not file.with_name("ours").exists()


def test_an_interruption_leaves_no_half_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("velora.checkpoint._write", interrupt)
    assert convert(file) == 130
    assert {p.name for p in file.parent.iterdir()} == {"released.pth", "labels.txt"}
