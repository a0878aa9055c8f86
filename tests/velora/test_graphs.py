"""Functions that are recorded and replayed. What CUDA does is played by a recording that calls the function again."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor

from tests.velora.conftest import VARIANTS, make_config, make_model, make_sample
from velora.graphs import Function, Recording, Replays, record_on_cuda
from velora.recognizer import Recognizer


def record_calls(function: Function, inputs: tuple[Tensor, ...]) -> Recording:
    """Replaying calls the function again, of the same tensors and into the same one, as a graph does."""
    output = function(*inputs).clone()
    return Recording(inputs, lambda: output.copy_(function(*inputs)), output)


def replaying(recognizer: Recognizer) -> Recognizer:
    """One that replays on the CPU what it would replay on a GPU."""
    for name in ("_encodings", "_fusion"):
        recognizer.__dict__[name] = Replays(getattr(recognizer, name), record_calls)
    return recognizer


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_are_those_of_the_functions_themselves(variant: str) -> None:
    model = make_model(make_config(**VARIANTS[variant]))
    plain, fast = Recognizer("plain", model), replaying(Recognizer("fast", model))
    pairs = [(plain.open(), fast.open()), (plain.open(stride=2), fast.open(stride=2))]
    labels = 0
    for index in range(12):
        for seed, (ours, theirs) in enumerate(pairs):
            a, b = (session.push(make_sample(index, seed=seed)) for session in (ours, theirs))
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                labels += 1
                assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6)
    assert labels == 9 + 6
    assert all(len(fast.__dict__[name]._recordings) for name in ("_encodings", "_fusion"))


def test_who_watches_the_head_sees_each_window_once() -> None:
    recognizer, seen = replaying(Recognizer("watched", make_model(make_config()))), list[Tensor]()
    session = recognizer.open()
    with recognizer.watched(seen.append):
        labels = [session.push(make_sample(index)) for index in range(9)]
    assert sum(map(len, seen)) == sum(label is not None for label in labels) > 4
    session.push(make_sample(9))
    session.push(make_sample(10))
    assert len(recognizer.__dict__["_fusion"]._recordings) == 1  # which go on afterwards


def test_a_shape_is_recorded_when_it_comes_again_and_is_then_replayed() -> None:
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return 2 * x

    replayed: list[int] = []

    def record(function: Function, inputs: tuple[Tensor, ...]) -> Recording:
        output = torch.empty_like(inputs[0])

        def replay() -> None:
            replayed.append(1)
            output.copy_(2 * inputs[0])

        return Recording(inputs, replay, output)

    twice = Replays(double, record)
    for value in range(4):
        assert twice(torch.full((3,), float(value))).tolist() == [2.0 * value] * 3
    assert twice(torch.ones(5)).tolist() == [2.0] * 5
    assert calls == [(3,), (3,), (5,)] and len(replayed) == 3


@pytest.mark.parametrize("broken", ["fails", "says something else"])
def test_where_recording_does_not_work_the_function_is_called(broken: str) -> None:
    def record(function: Function, inputs: tuple[Tensor, ...]) -> Recording:
        if broken == "fails":
            raise RuntimeError("operation not permitted when stream is capturing\nand much more")
        return Recording(inputs, lambda: None, torch.zeros_like(inputs[0]))

    twice = Replays(lambda x: 2 * x, record)
    twice(torch.ones(3))
    with pytest.warns(UserWarning, match="no CUDA graphs"):
        assert twice(torch.ones(3)).tolist() == [2.0] * 3
    assert twice(torch.ones(3)).tolist() == [2.0] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_replays_what_a_function_does() -> None:
    weight = torch.randn(8, 8, device="cuda")
    product = Replays(lambda x: torch.softmax(x @ weight, dim=-1), record_on_cuda)
    with torch.inference_mode():
        for seed in range(4):
            x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)).cuda()
            torch.testing.assert_close(product(x), torch.softmax(x @ weight, dim=-1))
    assert len(product._recordings) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gpu_says_what_a_cpu_says(variant: str) -> None:
    slow, fast = (Recognizer("it", make_model(make_config(**VARIANTS[variant]))) for _ in range(2))
    fast.model.to("cuda")
    fast.model.encoders.prepare()
    fast.rehearse()
    sessions = slow.open(), fast.open()
    for index in range(8):
        a, b = (session.push(make_sample(index)) for session in sessions)
        if a is not None and b is not None:
            assert a.probabilities == pytest.approx(b.probabilities, abs=0.02)


def test_recordings_wait_for_one_another() -> None:
    """Each begins by waiting for the whole GPU, which one that is under way would not survive."""
    at_once, most = [0], [0]

    def record(function: Function, inputs: tuple[Tensor, ...]) -> Recording:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        at_once[0] -= 1
        return record_calls(function, inputs)

    def twice() -> None:
        replays = Replays(lambda x: 2 * x, record)
        for _ in range(2):
            replays(torch.ones(1))

    threads = [threading.Thread(target=twice) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
