"""`--labels`: a user's own words, recognised without training, on the command line and on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main
from app.model import read_labels
from tests.conftest import SMALL_CLIP, SmallClip
from velora import ModelError


def replay(recording: Path, *options: str) -> int:
    return main(["replay", str(recording), "--json", "--speed", "max", "--stride", "1", *options])


def test_replay_names_what_it_sees_in_the_users_words(small_recording: Path, small_clip: SmallClip, capsys) -> None:
    options = ["--labels", "a square, waving,nothing", "--model", SMALL_CLIP, "--weights", str(small_clip.file)]
    assert replay(small_recording, *options) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 53 and {p["model"] for p in found} == {"zero-shot"}
    assert {label for label, _ in found[0]["topk"]} == {"a square", "waving", "nothing"}
    assert len({p["confidence"] for p in found}) > 10
    assert "Random weights" not in err


def test_labels_from_a_file(small_recording: Path, small_clip: SmallClip, tmp_path: Path, capsys) -> None:
    (tmp_path / "words.txt").write_text("a square\n\n  waving, with both hands \n", encoding="utf-8")
    options = ["--labels", str(tmp_path / "words.txt"), "--model", SMALL_CLIP, "--weights", str(small_clip.file)]
    assert replay(small_recording, *options) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert {label for label, _ in first["topk"]} == {"a square", "waving, with both hands"}


def test_without_clips_weights_one_line_names_what_to_fetch(
    small_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert replay(small_recording, "--labels", "a,b") == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith("velora: no weights for ViT-B-16-quickgelu: `hf download timm/vit_base_patch16") and (
        "\n" not in told
    )


@pytest.mark.parametrize("labels", [" , ", "waving", "missing.txt", "some/where"])
def test_bad_labels_are_one_line(labels: str) -> None:
    with pytest.raises(ModelError, match=f"--labels {labels}: no such file; give a file of labels, or two words"):
        read_labels(labels)


def test_labels_may_hold_slashes() -> None:
    assert read_labels("on/off, <b>bold</b>") == ["on/off", "<b>bold</b>"]


def test_a_checkpoint_has_labels_of_its_own(small_recording: Path, tmp_path: Path, capsys) -> None:
    assert replay(small_recording, "--labels", "a,b", "--model", str(tmp_path)) == 1
    assert "--labels asks CLIP itself: --model must then name a backbone" in capsys.readouterr().err


def test_many_words_are_no_file_name(small_recording: Path, small_clip: SmallClip) -> None:
    words = ",".join(f"word{k}" for k in range(60))
    assert len(read_labels(words)) == 60
    assert replay(small_recording, "--labels", words, "--model", SMALL_CLIP, "--weights", str(small_clip.file)) == 0


def test_a_bad_line_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("fine\nnot\tfine\n")
    with pytest.raises(ModelError, match=r"words.txt: labels\[1\] must be printable text"):
        read_labels(str(tmp_path / "words.txt"))
