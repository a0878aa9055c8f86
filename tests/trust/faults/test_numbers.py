"""What is no number, and pictures that show nothing, never become a label: on the page, in files, on the terminal."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from app.channel import Settings
from app.channels import Channels
from app.cli import main
from app.replay import as_json
from app.viewer import Viewer
from tests.trust.faults.measures import Clockwork, until
from tests.trust.ledger import Ledger
from tests.velora.conftest import VARIANTS, make_config, make_recognizer, make_sample
from velora import ModelError, Recognizer, load_recognizer
from velora.loading import DEMO

ODD = [np.nan, np.inf, -np.inf]
BIG = float(np.finfo(np.float32).max)
FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def at_temperature(temperature: float) -> Recognizer:
    """One that looks at single samples."""
    return make_recognizer(make_config(frames=1, temperature=temperature))


def saying(logits: list[float], temperature: float) -> Recognizer:
    """A model that says this of every window."""
    recognizer = at_temperature(temperature)
    recognizer.model.fuse = lambda *_: torch.tensor([logits])  # type: ignore[method-assign,assignment]
    return recognizer


def test_whatever_a_model_says_is_probabilities_or_one_line(ledger: Ledger, nightly: bool) -> None:
    row = ledger.row("numbers", "logits: any float32, NaN and infinite among them; temperatures 0.01 to 100")
    sample = make_sample(0)
    number = st.floats(-BIG, BIG, width=32) | st.sampled_from([*ODD, 0.0, BIG, -BIG])

    @settings(FEW, max_examples=3_000 if nightly else 200)
    @given(st.lists(number, min_size=3, max_size=3), st.sampled_from([0.01, 0.3, 1.0, 100.0]))
    def check(logits: list[float], temperature: float) -> None:
        with row.case(f"{logits} / {temperature}"):
            session = saying(logits, temperature).open()
            if not np.isfinite(np.array(logits, np.float32)).all():
                with pytest.raises(ModelError, match="^test: the model's output is not finite: try [^\n]*$"):
                    session.push(sample)
                return
            prediction = session.push(sample)
            assert prediction is not None
            assert np.isfinite(prediction.probabilities).all()
            assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert prediction.confidence == prediction.probabilities.max() > 0.33
            json.dumps(as_json(prediction), allow_nan=False)

    check()
    row.check()


def test_pictures_that_show_nothing_are_never_a_sure_label(ledger: Ledger) -> None:
    row = ledger.row("numbers", "pictures of one colour and no events, every kind of model")
    for name, variant in VARIANTS.items():
        recognizer = make_recognizer(make_config(**variant))
        for rgb, events in product((0, 90, 255), (255, 0, 128)):
            with row.case(f"{name}: {rgb}, {events}"):
                session = recognizer.open()
                blank = [make_sample(k) for k in range(5)]
                for sample in blank:
                    sample.rgb[:], sample.event_image[:] = rgb, events
                said = [found for sample in blank if (found := session.push(sample)) is not None]
                assert len(said) == 2 and all(found.unsure for found in said)
                assert all(np.isfinite(found.probabilities).all() for found in said)
    row.check()


WRONG = [
    np.zeros((26, 34, 3), np.float32),
    np.full((26, 34, 3), np.nan),
    np.zeros((26, 34, 3), np.uint16),
    np.zeros((26, 34), np.uint8),
    np.zeros((26, 34, 4), np.uint8),
    np.zeros((0, 34, 3), np.uint8),
    np.zeros((26, 34, 3), bool),
]


def test_images_of_a_wrong_kind_are_refused_before_anything_has_changed(ledger: Ledger) -> None:
    row = ledger.row("numbers", "images of floats, of 16 bits, grey, with alpha, without rows")
    recognizer = make_recognizer(make_config())
    for image, name in product(WRONG, ("rgb", "event_image")):
        with row.case(f"{image.dtype} {list(image.shape)}, {name}"):
            session, whole = recognizer.open(), recognizer.open()
            for k in range(3):
                recognizer.step([(session, make_sample(k)), (whole, make_sample(k))])
            wrong = make_sample(3)
            object.__setattr__(wrong, name, image)
            with pytest.raises(ValueError, match=r"^an image must be uint8 \[H, W, 3\], not [^\n]*$"):
                session.push(wrong)
            found, wanted = session.push(make_sample(3)), whole.push(make_sample(3))
            assert found is not None and wanted is not None
            assert np.allclose(found.probabilities, wanted.probabilities, atol=1e-6)
    row.check()


@pytest.fixture(params=["head", "adapter"])
def overflowing(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of finite weights whose output is not."""
    folder = tmp_path / request.param
    folder.mkdir()
    for name in ("config.json", "README.md"):
        (folder / name).write_bytes((DEMO / name).read_bytes())
    tensors = load_file(DEMO / "adapter.safetensors")
    part = "fuser." if request.param == "head" else "lora"
    changed = {name: tensor.float() * 1e38 if part in name else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.clamp(-BIG, BIG) for name, tensor in changed.items()}, folder / "adapter.safetensors")
    return folder


def test_a_checkpoint_whose_output_overflows_is_one_line_in_every_command(
    ledger: Ledger, overflowing: Path, small_recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ledger.row("numbers", f"a checkpoint of huge weights in its {overflowing.name}")
    out = tmp_path / "labels"
    commands = {
        "replay": ["replay", str(small_recording), "--json", "--speed", "max"],
        "label": ["label", str(small_recording), "--out", str(out)],
    }
    for name, line in commands.items():
        with row.case(name):
            assert main([*line, "--model", str(overflowing)]) == 1
            said = capsys.readouterr()
            assert "output is not finite: try --dtype fp32, or another checkpoint" in said.err
            assert said.out == "" and "Traceback" not in said.err
    assert not list(out.rglob("*.labels.csv")) and not list(out.rglob("*.jsonl"))
    row.check()


def test_the_page_says_that_a_model_is_broken_and_shows_no_label_of_it(ledger: Ledger, overflowing: Path) -> None:
    row = ledger.row("numbers", f"two viewers of a model whose {overflowing.name} overflows", most_s=20)
    recognizer = load_recognizer(overflowing, device="cpu")
    channels = Channels(Settings(opened=lambda _: Clockwork(), stride=1))
    viewers = [Viewer(channels, f"webcam:{k}", recognizer) for k in range(2)]
    try:
        took = until(lambda: all(viewer.state()["failed"] for viewer in viewers), 60)
        for viewer in viewers:
            state = viewer.state()
            failure = "" if "output is not finite" in state["message"] and "\n" not in state["message"] else str(state)
            row.add("viewer", seconds=took, failure=failure)
            json.dumps(state, allow_nan=False)
            assert state["labels"] == [] and state["label"] is None
            assert list(viewer.predictions()[0][1].as_csv("x")) == []
    finally:
        for viewer in viewers:
            viewer.close()
    row.check()


def test_weights_that_are_no_numbers_are_refused_by_name(ledger: Ledger, tmp_path: Path) -> None:
    row = ledger.row("numbers", "a checkpoint with one NaN or infinite weight, in each of its tensors")
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    tensors = load_file(DEMO / "adapter.safetensors")
    for k, name in enumerate(tensors):
        broken = {**tensors, name: tensors[name].clone()}
        broken[name].view(-1)[-1] = ODD[k % 3]
        save_file(broken, tmp_path / "adapter.safetensors")
        with row.case(name), pytest.raises(ModelError, match="holds numbers that are not finite"):
            load_recognizer(tmp_path, device="cpu")
    row.check()
