"""Which samples a window takes, and with which label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.velora.training.made import PERIOD_US, MadeClip, clip, config_of
from velora.training.batches import Augmentation, EpochBatches, Windows, blank, load_window
from velora.training.clips import Span
from velora.training.windows import ends_from, fixed_windows, label_at, slots, stride_of

CONFIG = config_of()  # T = 4, a sample every 2 * PERIOD_US
REACH = 6  # samples from a window's first to its last


def two_labels(count: int = 40) -> MadeClip:
    middle = 20 * PERIOD_US
    return MadeClip("two", (Span(0, middle, 1), Span(middle, count * PERIOD_US, 2)), count)


def test_the_stride_is_the_sample_period_in_samples() -> None:
    assert stride_of(clip(0), CONFIG) == 2
    assert stride_of(clip(0, period_us=40_000), CONFIG) == 1  # never less
    assert stride_of(clip(0, count=1), CONFIG) == 1


def test_stream_windows_end_everywhere_and_are_called_what_is_seen_at_their_end() -> None:
    found = slots([two_labels()], CONFIG, "stream")
    assert np.array_equal(np.concatenate([slot.choices for slot in found]), np.arange(REACH, 40))
    for slot in found:
        assert all(label_at(two_labels(), end) == slot.label for end in slot.choices)
        assert slot.window(4, None).indices == tuple(slot.choices[len(slot.choices) // 2] - np.array([6, 4, 2, 0]))
    assert {slot.label for slot in found} == {1, 2}


def test_a_window_s_label_is_that_of_its_last_sample() -> None:
    late = [slot for slot in slots([two_labels()], CONFIG, "stream") if slot.label == 2][0]
    first = min(late.choices)
    assert first == 20 and label_at(two_labels(), first - 1) == 1  # most of that window still shows the other


def test_random_windows_stay_in_their_slot_and_differ() -> None:
    slot = slots([clip(1, count=30)], CONFIG, "stream")[0]
    windows = [slot.window(4, np.random.default_rng(seed)) for seed in range(30)]
    assert {w.indices[-1] for w in windows} <= set(slot.choices.tolist()) and len({w.indices for w in windows}) > 3
    assert all(np.array_equal(np.diff(w.indices), [2, 2, 2]) for w in windows)


def test_no_window_crosses_a_discontinuity() -> None:
    broken = clip(0, count=30, broken_at=(10,))
    for slot in slots([broken], CONFIG, "stream"):
        for end in slot.choices:
            assert end - REACH >= 10 or end < 10
    assert sum(len(slot.choices) for slot in slots([broken], CONFIG, "stream")) == (10 - REACH) + (20 - REACH)


def test_what_nobody_labelled_is_left_out() -> None:
    some = MadeClip("some", (Span(10 * PERIOD_US, 20 * PERIOD_US, 0),), 40)
    ends = np.concatenate([slot.choices for slot in slots([some], CONFIG, "stream")])
    assert np.array_equal(ends, np.arange(10, 20))
    assert [w.indices[-1] for w in fixed_windows([some], CONFIG, "stream", 99)] == [10, 12, 14, 16, 18]


def test_windows_for_evaluation_are_spread_over_what_is_labelled() -> None:
    late = MadeClip("late", (Span(30 * PERIOD_US, 40 * PERIOD_US, 0),), 40)
    assert [w.indices[-1] for w in fixed_windows([late], CONFIG, "stream", 2)] == [31, 37]  # as far from both ends
    assert fixed_windows([MadeClip("none", (), 40)], CONFIG, "stream", 2) == []


def test_a_short_span_is_judged_by_a_window_that_ends_in_its_middle() -> None:
    spans = tuple(Span(start * PERIOD_US, (start + 5) * PERIOD_US, 0) for start in (10, 20, 30))
    ends = [w.indices[-1] for w in fixed_windows([MadeClip("three", spans, 40)], CONFIG, "stream", 3)]
    assert ends == [12, 22, 32]  # not by one that has seen nothing of it but its first sample


def test_windows_after_a_change_end_with_each_sample_up_to_a_discontinuity() -> None:
    some = clip(0, count=40, broken_at=(33,))
    assert ends_from(some, CONFIG, 20 * PERIOD_US + 1, 25 * PERIOD_US).tolist() == [20, 21, 22, 23]
    assert ends_from(some, CONFIG, 30 * PERIOD_US + 1, 40 * PERIOD_US).tolist() == [30, 31, 32]
    assert not len(ends_from(some, CONFIG, 2 * PERIOD_US, 9 * PERIOD_US))  # too early to have a window


def test_clip_windows_take_one_sample_from_each_segment() -> None:
    slot = slots([clip(2, count=40)], CONFIG, "clip")[0]
    assert slot.window(4, None).indices == (5, 15, 25, 35)  # the middles
    for seed in range(20):
        indices = slot.window(4, np.random.default_rng(seed)).indices
        assert all(10 * k <= index < 10 * k + 10 for k, index in enumerate(indices))


def test_a_clip_shorter_than_a_window_repeats_samples_or_is_too_short() -> None:
    short = clip(1, count=2)
    assert slots([short], CONFIG, "clip")[0].window(4, None).indices == (0, 0, 1, 1)
    assert slots([short], CONFIG, "stream") == []


@pytest.mark.parametrize(("count", "most"), [(46, 5), (20, 3), (200, 5), (7, 5)])
def test_windows_for_evaluation_are_few_spread_and_always_the_same(count: int, most: int) -> None:
    windows = fixed_windows([clip(0, count=count)], CONFIG, "stream", most)
    ends = [w.indices[-1] for w in windows]
    assert 0 <= (count - 1 - ends[-1]) - (ends[0] - REACH) <= 1 and len(set(np.diff(ends))) <= 1
    assert 1 <= len(ends) <= most or ends[1] - ends[0] == REACH + 2  # side by side in a long one
    assert windows == fixed_windows([clip(0, count=count)], CONFIG, "stream", most)


def test_windows_for_evaluation_cross_no_discontinuity() -> None:
    broken = clip(0, count=60, broken_at=(25, 41))
    windows = fixed_windows([broken], CONFIG, "stream", 99)
    parts = [sum(index >= start for start in (25, 41)) for window in windows for index in window.indices]
    assert all(len(set(parts[k : k + 4])) == 1 for k in range(0, len(parts), 4)) and set(parts) == {0, 1, 2}


def test_images_of_a_window_are_the_samples_in_order() -> None:
    own = clip(1)
    window = slots([own], CONFIG, "stream")[0].window(4, None)
    images = load_window([own], window)
    assert images.shape == (4, 2, 3, 32, 32) and images.dtype == torch.uint8
    assert images[:, 0, 0, 0, 0].tolist() == list(window.indices)


def test_every_slot_comes_once_an_epoch_in_another_order_each_time() -> None:
    batches = list(EpochBatches(10, 2, seed=1, first=0, last=10))
    assert [epoch for batch in batches for epoch, _ in batch] == [0] * 10 + [1] * 10
    first, second = ([k for batch in part for _, k in batch] for part in (batches[:5], batches[5:]))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert list(EpochBatches(10, 2, seed=1, first=7, last=10)) == batches[7:]


def test_what_is_drawn_depends_on_seed_and_place_alone() -> None:
    clips = [clip(k % 3, seed=k) for k in range(4)]
    own = slots(clips, CONFIG, "stream")
    one, two = (Windows(clips, own, 4, Augmentation(True, 0.7, 0.3), seed=3) for _ in range(2))
    for place in [(0, 1), (5, 2)]:
        assert torch.equal(one[place][0], two[place][0])
    assert not torch.equal(one[(0, 1)][0], one[(1, 1)][0])


def test_augmentation_is_the_same_for_all_images_of_a_window() -> None:
    image = torch.randint(0, 256, (1, 1, 3, 32, 32), dtype=torch.uint8)
    images = image.expand(4, 2, 3, 32, 32).contiguous()
    changed = [Augmentation(True, 0.6).apply(images, np.random.default_rng(seed)) for seed in range(6)]
    assert all(torch.equal(own[t, m], own[0, 0]) for own in changed for t in range(4) for m in range(2))
    assert len({own.numpy().tobytes() for own in changed}) == 6
    flipped = [Augmentation(flip=True).apply(images, np.random.default_rng(seed)) for seed in range(20)]
    assert {torch.equal(own, images) for own in flipped} == {True, False}
    assert all(torch.equal(own, images) or torch.equal(own, images.flip(-1)) for own in flipped)


def test_a_dropped_modality_is_blank_as_a_missing_one_is() -> None:
    images = torch.full((4, 2, 3, 8, 8), 7, dtype=torch.uint8)
    assert blank(images, 0)[:, 0].max() == 0 and blank(images, 0)[:, 1].min() == 7
    assert blank(images, 1)[:, 1].min() == 255
    seen = [Augmentation(drop_modality=0.5).apply(images, np.random.default_rng(seed)) for seed in range(60)]
    kinds = [("rgb" if own[0, 0].max() == 0 else "events" if own[0, 1].min() == 255 else "none") for own in seen]
    assert {"rgb", "events", "none"} == set(kinds) and 15 < kinds.count("none") < 45
