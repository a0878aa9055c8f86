"""What is kept of a recogniser's answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.velora.conftest import tiny_backbone
from tests.velora.training.made import clip_set, config_of, start, tower
from velora.checkpoint import build_model
from velora.recognizer import Recognizer
from velora.training.evaluate import answer


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


def test_features_of_some_windows_are_kept_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, data = Recognizer("it", build_model(start(config_of()), tower())), clip_set(6)
    every = answer(recognizer, data, "stream", most=5, features=True)
    monkeypatch.setattr("velora.training.evaluate._FEATURES", 10)
    some = answer(recognizer, data, "stream", most=5, features=True)
    assert every.features is not None and some.features is not None
    assert 5 <= len(some.features) == len(some.featured) <= 10 < len(every.features)
    assert np.array_equal(some.features, every.features[some.featured])
