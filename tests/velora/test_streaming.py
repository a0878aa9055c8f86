"""A session's predictions are those of each whole window from scratch, and cost no more than they must."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streams.items import Sample
from tests.velora.conftest import VARIANTS, make_config, make_recognizer, make_sample, normalized
from velora.config import STREAMS
from velora.errors import ModelError
from velora.prediction import Prediction
from velora.preprocess import resize
from velora.recognizer import Recognizer
from velora.session import DIFF, Session


def from_scratch(recognizer: Recognizer, window: Sequence[Sample]) -> np.ndarray:
    """Probabilities of a window by the module's own forward."""
    with torch.inference_mode():
        logits = recognizer.model(*normalized(recognizer, window))
        return (logits / recognizer.config.temperature).softmax(dim=1)[0].numpy()


def windows(samples: Sequence[Sample], stride: int, length: int = 4) -> Iterator[list[Sample] | None]:
    """For each sample the window that ends with it, if it is whole: the definition, spelled out."""
    run: dict[int, Sample] = {}
    for sample in samples:
        run = {} if sample.discontinuity else run
        run[sample.index] = sample
        wanted = [sample.index - j * stride for j in reversed(range(length))]
        yield [run[i] for i in wanted] if all(i in run for i in wanted) else None


def indices(predictions: Sequence[Prediction | None]) -> list[int]:
    return [p.index for p in predictions if p]


class Counter:
    """Counts the images that a recogniser encodes, by call."""

    def __init__(self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[int] = []
        encode = recognizer.model.encode

        def counted(images: Tensor, streams: Tensor) -> Tensor:
            self.calls.append(len(images))
            return encode(images, streams)

        monkeypatch.setattr(recognizer.model, "encode", counted)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> tuple[Recognizer, Counter]:
    """A recogniser whose encoder only remembers how often it was called."""
    recognizer = make_recognizer(make_config())
    monkeypatch.setattr(recognizer.model, "encode", lambda images, streams: images[:, :, :2].flatten(2).clone())
    return recognizer, Counter(recognizer, monkeypatch)


@pytest.mark.parametrize("stride", [1, 2])
def test_push_equals_the_whole_window(recognizer: Recognizer, stride: int) -> None:
    samples = [make_sample(i, discontinuity=i in (0, 9, 30)) for i in range(50)]
    session = recognizer.open(stride=stride)
    labelled = 0
    for sample, window in zip(samples, windows(samples, stride), strict=True):
        prediction = session.push(sample)
        assert (prediction is None) == (window is None)
        if prediction and window:
            labelled += 1
            assert (prediction.t_start_us, prediction.t_end_us) == (window[0].t_start_us, window[-1].t_end_us)
            np.testing.assert_allclose(prediction.probabilities, from_scratch(recognizer, window), atol=1e-4)
    assert labelled == 50 - 3 * 3 * stride


def test_interleaved_sessions_in_one_step(recognizer: Recognizer) -> None:
    sessions = [recognizer.open(), recognizer.open(), recognizer.open(stride=2)]
    streams = [[make_sample(i, seed=seed) for i in range(8)] for seed in range(3)]
    batched: list[list[Prediction | None]] = [[], [], []]
    for i in range(0, 8, 2):  # two samples of each session in a step, in order
        pairs = [(sessions[s], streams[s][j]) for j in (i, i + 1) for s in range(3)]
        for k, prediction in enumerate(recognizer.step(pairs)):
            batched[k % 3].append(prediction)
    for stream, stride, predictions in zip(streams, (1, 1, 2), batched, strict=True):
        expected = list(windows(stream, stride))
        assert [p is not None for p in predictions] == [w is not None for w in expected]
        last = predictions[-1]
        assert last and expected[-1]
        np.testing.assert_allclose(last.probabilities, from_scratch(recognizer, expected[-1]), atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_push_equals_the_whole_window_for_every_preset_and_adapter(variant: str) -> None:
    recognizer = make_recognizer(make_config(**VARIANTS[variant]))
    session = recognizer.open()
    samples = [make_sample(i) for i in range(6)]
    for sample, window in zip(samples, windows(samples, 1), strict=True):
        prediction = session.push(sample)
        if prediction and window:
            np.testing.assert_allclose(prediction.probabilities, from_scratch(recognizer, window), atol=1e-4)


def test_a_frame_keeps_its_own_images_alone(recognizer: Recognizer) -> None:
    sessions = [recognizer.open() for _ in range(5)]
    recognizer.step([(session, make_sample(0)) for session in sessions])
    (frame,) = sessions[2]._frames.values()
    assert frame.images.untyped_storage().nbytes() == frame.images.nbytes


def test_attention_over_the_batch_is_refused() -> None:
    with pytest.raises(ModelError, match="attend_over is batch"):
        make_recognizer(make_config(preset="released", attend_over="batch"))


def test_a_push_reconstructs_nothing() -> None:
    recognizer = make_recognizer(make_config(preset="released"))
    del recognizer.model.fuser.blocks, recognizer.model.fuser.norm
    session = recognizer.open()
    assert [session.push(make_sample(i)) for i in range(4)][-1]


def test_a_model_that_reads_no_motion_encodes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = make_recognizer(make_config(adapter="none"))
    counter = Counter(recognizer, monkeypatch)
    session = recognizer.open()
    for i in range(5):
        session.push(make_sample(i))
    assert counter.calls == [2] * 5


def test_a_hole_leaves_no_mixed_window(cheap: tuple[Recognizer, Counter]) -> None:
    recognizer, _ = cheap
    samples = [make_sample(i) for i in range(20) if i not in (5, 12)]
    for stride in (1, 2):
        session = recognizer.open(stride=stride)
        expected = [w[-1].index for w in windows(samples, stride) if w]
        assert indices([session.push(s) for s in samples]) == expected


def test_hop_counts_from_the_first_full_window(cheap: tuple[Recognizer, Counter]) -> None:
    session = cheap[0].open(hop=5)
    samples = [make_sample(i, discontinuity=i == 10) for i in range(30)]
    assert indices([session.push(s) for s in samples]) == [3, 8, 13, 18, 23, 28]


@pytest.mark.parametrize(
    ("stride", "hop", "images"),
    [
        (1, 1, 3 * 40 - 1),
        (2, 1, 3 * 40 - 2),
        (1, 2, 3 * 40 - 1),  # ends with sample 39, so all 40 are used
        (1, 10, 4 * (4 + 4 + 3)),  # windows end at 3, 13, 23, 33
        (2, 2, 3 * 20 - 1),  # odd samples are in no window
    ],
)
def test_encodes_what_labels_need_once(cheap: tuple[Recognizer, Counter], stride: int, hop: int, images: int) -> None:
    recognizer, counter = cheap
    session = recognizer.open(stride=stride, hop=hop)
    for i in range(40):
        session.push(make_sample(i))
    assert sum(counter.calls) == images
    assert max(counter.calls) <= 3


def test_a_step_encodes_each_image_once(cheap: tuple[Recognizer, Counter]) -> None:
    recognizer, counter = cheap
    session = recognizer.open()
    predictions = recognizer.step([(session, make_sample(i)) for i in range(12)])
    assert counter.calls == [12 + 12 + 11]
    assert indices(predictions) == list(range(3, 12))


def test_a_label_after_a_hole_still_has_its_encodings(cheap: tuple[Recognizer, Counter]) -> None:
    session = cheap[0].open(hop=7)
    samples = [make_sample(i) for i in range(40) if i not in (2, 16)]
    assert indices([session.push(s) for s in samples]) == [6, 13, 20, 27, 34]


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_windows_of_one_sample(preset: str) -> None:
    recognizer = make_recognizer(make_config(frames=1, preset=preset))
    sample = make_sample(0)
    prediction = recognizer.open().push(sample)
    assert prediction
    np.testing.assert_allclose(prediction.probabilities, from_scratch(recognizer, [sample]), atol=1e-4)


def test_another_stride_starts_a_new_window(cheap: tuple[Recognizer, Counter]) -> None:
    session = cheap[0].open()
    assert indices([session.push(make_sample(i)) for i in range(6)]) == [3, 4, 5]
    session.stride = 2
    assert indices([session.push(make_sample(i)) for i in range(6, 15)]) == [12, 13, 14]
    session.stride = 2
    assert session.push(make_sample(15)) is not None


def test_an_index_that_steps_back_is_a_discontinuity(cheap: tuple[Recognizer, Counter]) -> None:
    session = cheap[0].open()
    pushed = [session.push(make_sample(i)) for i in (0, 1, 2, 3, 3, 4, 5, 6, 0, 1, 2, 3)]
    assert indices(pushed) == [3, 6, 3]


def test_a_bad_image_changes_no_session(cheap: tuple[Recognizer, Counter]) -> None:
    session = cheap[0].open()
    for i in range(3):
        session.push(make_sample(i))
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], not float64 \[4, 4\]"):
        session.push(replace(make_sample(3, discontinuity=True), rgb=np.zeros((4, 4))))
    assert session.push(make_sample(3)) is not None


@pytest.mark.parametrize("setting", [{"stride": 0}, {"stride": 1001}, {"hop": 0}])
def test_refuses_bad_settings(recognizer: Recognizer, setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be .*, not {next(iter(setting.values()))}"):
        recognizer.open(**setting)


def test_refuses_a_foreign_session(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="opened by or swapped to"):
        make_recognizer(make_config()).step([(recognizer.open(), make_sample(0))])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_digest_is_that_of_the_model_in_whatever_dtype(variant: str) -> None:
    config = make_config(**VARIANTS[variant])
    digest = make_recognizer(config).digest()
    assert len(digest) == 16 and make_recognizer(config).digest() == digest
    assert make_recognizer(config, dtype=torch.bfloat16).digest() == digest
    assert make_recognizer(config, seed=2).digest() != digest
    assert make_recognizer(replace(config, temperature=2.0)).digest() != digest


def test_samples_resized_beforehand_give_the_same_to_the_last_bit(recognizer: Recognizer) -> None:
    size = recognizer.model.tower.backbone.image_size
    whole, small = recognizer.open(), recognizer.open()
    for i in range(8):
        sample = make_sample(i)
        rgb, event = resize([sample.rgb, sample.event_image], size).permute(0, 2, 3, 1).numpy()
        expected, found = whole.push(sample), small.push(replace(sample, rgb=rgb, event_image=event))
        assert (expected is None) == (found is None)
        if expected and found:
            assert np.array_equal(expected.probabilities, found.probabilities)


samples_with_holes = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, 1, 2, 5, 0, -3]), st.sampled_from([False] * 9 + [True])), max_size=60
)


@settings(deadline=None)
@given(samples_with_holes, st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(0, 60), st.booleans())
def test_windows_are_whole_due_and_encoded_whatever_is_missing(
    steps: list[tuple[int, bool]], length: int, stride: int, hop: int, changed_at: int, motion: bool
) -> None:
    """Holes, steps back, gaps and another stride: one spacing a window, none across a break, all its images encoded."""
    streams = STREAMS if motion and length > 1 else STREAMS[:2]
    session = Session(Mock(config=Mock(frames=length, streams=streams)), stride, hop)
    held: set[int] = set()  # indices since the last break
    index, last = 0, None
    for k, (step, broken) in enumerate(steps):
        if k == changed_at:
            stride += 1
            session.stride = stride
        index, fell = index + step, step <= 0
        if broken or fell or k == changed_at:
            held, last = set(), None
        held.add(index)
        plan = session.admit(replace(SAMPLE, index=index, discontinuity=broken), IMAGES)
        for job in plan.jobs:
            assert job.stream not in job.frame.codes, "an image is encoded twice"
            assert job.before is None or job.before.index == job.frame.index - stride
            job.frame.codes[job.stream] = IMAGES
        wanted = [index - j * stride for j in reversed(range(length))]
        due = held.issuperset(wanted) and (last is None or index >= last + hop)
        assert [frame.index for frame in plan.window or []] == (wanted if due else [])
        if plan.window:
            last = index
            needed = [set(range(len(streams))) - ({DIFF} if n == 0 else set()) for n in range(length)]
            assert all(frame.codes.keys() >= own for frame, own in zip(plan.window, needed, strict=True))
        assert len(session._frames) <= (length - 1) * stride + 1


SAMPLE, IMAGES = make_sample(0), torch.zeros(2, 3, 1, 1, dtype=torch.uint8)
