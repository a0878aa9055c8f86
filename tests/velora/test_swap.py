"""A stream that goes on with another model of its backbone: as if that had been there all along."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.velora.conftest import VARIANTS, make_config, make_recognizer, make_sample
from tests.velora.test_streaming import Counter, indices
from velora.errors import ModelError
from velora.recognizer import Recognizer


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_swap_goes_on_as_if_the_other_had_been_there_all_along(variant: str) -> None:
    other = make_recognizer(make_config(**VARIANTS[variant]), seed=2)
    session, fresh = make_recognizer(make_config()).open(), other.open()
    for i in range(9):
        if i == 6:
            session.swap(other)
        prediction, expected = session.push(make_sample(i)), fresh.push(make_sample(i))
        if i >= 6:
            assert prediction and expected
            np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-5)


def test_a_swap_to_another_dtype_keeps_the_window(recognizer: Recognizer) -> None:
    half = make_recognizer(make_config(), dtype=torch.bfloat16)
    session, fresh = recognizer.open(), half.open()
    for i in range(8):
        prediction, expected = session.push(make_sample(i)), fresh.push(make_sample(i))
        if i == 5:
            session.swap(half)
    assert prediction and expected
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=0.02)


def test_a_swap_encodes_the_window_once_and_then_what_is_new(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_recognizer(make_config(), seed=2)
    counter = Counter(other, monkeypatch)
    session = recognizer.open()
    for i in range(8):
        if i == 6:
            session.swap(other)
        session.push(make_sample(i))
    assert counter.calls == [4 + 4 + 3, 3]


@pytest.mark.parametrize("change", [{"frames": 2}, {"rendering": {"style": "count"}}])
def test_a_swap_to_other_windows_starts_anew(recognizer: Recognizer, change: dict[str, object]) -> None:
    other = make_recognizer(make_config(**change))
    session = recognizer.open()
    for i in range(4):
        session.push(make_sample(i))
    session.swap(other)
    assert indices([session.push(make_sample(i)) for i in range(4, 9)])[0] == 3 + other.config.frames


def test_a_swap_to_another_backbone_is_refused_with_both_named(recognizer: Recognizer) -> None:
    other = Mock(spec=Recognizer, config=make_config(backbone="ViT-B-32"))
    other.name = "cards"
    session = recognizer.open()
    with pytest.raises(ModelError, match=r"cards is for the backbone ViT-B-32, but this stream runs on demo"):
        session.swap(other)
    assert session.recognizer is recognizer


def test_swaps_beside_steps_and_pushes_leave_every_window_whole() -> None:
    kinds: list[dict[str, object]] = [{}, {"adapter": "none"}, {}]
    first, second, third = (make_recognizer(make_config(**kind), seed=k) for k, kind in enumerate(kinds))
    sessions = [first.open() for _ in range(3)]
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for session in sessions:
                session.swap(random.choice([first, second, third]))

    with ThreadPoolExecutor(2) as pool:
        swapping = [pool.submit(swap) for _ in range(2)]
        try:
            for i in range(400):
                sample = make_sample(i, size=(8, 8))
                sessions[0].push(sample)
                others = [session for session in sessions[1:] if session.recognizer is first]
                with contextlib.suppress(ValueError):  # swapped since: said before anything has changed
                    first.step([(session, sample) for session in others])
        finally:
            stop.set()
        for swapped in swapping:
            swapped.result()
