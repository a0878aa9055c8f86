"""What a step says of a window: numbers always, how sure, and where its time went."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.velora.conftest import make_config, make_recognizer, make_sample
from velora.errors import ModelError, NotFiniteError
from velora.recognizer import Recognizer
from velora.session import Session


def test_output_that_is_not_finite_is_an_error_and_leaves_no_trace() -> None:
    recognizer = make_recognizer(make_config(frames=1))
    session = recognizer.open()
    good = recognizer.model.fuser.head.bias.clone()
    recognizer.model.fuser.head.bias[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        session.push(make_sample(0))
    recognizer.model.fuser.head.bias.copy_(good)
    assert session.push(make_sample(1)) is not None


def test_output_that_is_not_finite_is_told_of_its_stream_and_others_keep_their_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recognizer = make_recognizer(make_config())
    sessions = [recognizer.open() for _ in range(3)]
    for k in range(3):
        recognizer.step([(session, make_sample(k)) for session in sessions])
    fuse, second = recognizer.model.fuse, torch.tensor([1])
    monkeypatch.setattr(recognizer.model, "fuse", lambda *pooled: fuse(*pooled).index_fill(0, second, torch.inf))
    with pytest.raises(NotFiniteError, match="not finite: try") as caught:
        recognizer.step([(session, make_sample(3)) for session in sessions])
    assert list(caught.value.failed) == [1]
    assert [prediction is None for prediction in caught.value.predictions] == [False, True, False]
    monkeypatch.undo()
    found = recognizer.step([(session, make_sample(4)) for session in sessions])
    assert [prediction is None for prediction in found] == [False, True, False]


def test_probabilities_are_numbers_whatever_finite_output_is_divided_by(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = make_recognizer(make_config(frames=1, temperature=0.01))
    monkeypatch.setattr(recognizer.model, "fuse", lambda *_: torch.tensor([[3e38, -3e38, 2e38]]))
    prediction = recognizer.open().push(make_sample(0))
    assert prediction is not None and prediction.probabilities.tolist() == [1, 0, 0] and prediction.confidence == 1


@pytest.mark.parametrize(
    ("rgb", "events", "unsure"), [(0, 255, True), (7, 40, True), (None, 255, False), (0, None, False)]
)
def test_a_window_in_which_nothing_can_be_seen_is_unsure(rgb: int | None, events: int | None, unsure: bool) -> None:
    session = make_recognizer(make_config(unsure_below=0.0)).open()
    seen = [make_sample(k) for k in range(4)]
    for name, value in (("rgb", rgb), ("event_image", events)):
        if value is not None:
            blank = np.full_like(seen[0].rgb, value)
            seen = [replace(sample, **{name: blank}) for sample in seen]
    last = [session.push(sample) for sample in seen][-1]
    assert last is not None and last.unsure is unsure
    after = session.push(make_sample(4))
    assert after is not None and not after.unsure  # one picture in the window is something


def test_prediction_tells_where_its_time_went(recognizer: Recognizer) -> None:
    session: Session = recognizer.open()
    prediction = [session.push(make_sample(i)) for i in range(4)][-1]
    assert prediction
    assert (prediction.latency_ms["decode"], prediction.latency_ms["render"]) == (1.5, 2.5)
    assert prediction.latency_ms["encode"] > 0 and prediction.latency_ms["fuse"] > 0
    assert prediction.topk[0] == (prediction.label, prediction.confidence)
    assert [p for _, p in prediction.topk] == sorted(prediction.probabilities.tolist(), reverse=True)
    assert prediction.probabilities.dtype == np.float32 and abs(prediction.probabilities.sum() - 1) < 1e-6


def test_temperature_softens(recognizer: Recognizer) -> None:
    hot = make_recognizer(make_config(temperature=50.0))
    sharp, soft = ([r.push(make_sample(i)) for i in range(4)][-1] for r in (recognizer.open(), hot.open()))
    assert sharp and soft and sharp.label == soft.label and soft.confidence < sharp.confidence
