"""Which sample each picture of a video shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.film.drawing import Current, check_panes
from app.film.pace import Pace, pace_of
from app.label_file import LabelRow
from streams import Sample
from streams.items import no_events

BLANK = np.zeros((2, 2, 3), np.uint8)


def sample(index: int, start_us: int, end_us: int) -> Sample:
    return Sample(index, start_us, end_us, BLANK, BLANK, no_events(), True, True, index == 0)


def shown(spans: Sequence[tuple[int, int]], fps: Fraction | int) -> tuple[list[int], Pace, Counter[str]]:
    """The index of the sample on each picture."""
    counts: Counter[str] = Counter()
    pace = Pace(Fraction(fps), counts)
    pictures = list(pace.pictures(sample(k, *span) for k, span in enumerate(spans)))
    assert [picture.number for picture in pictures] == list(range(len(pictures)))
    return [picture.sample.index for picture in pictures], pace, counts


@pytest.mark.parametrize(
    ("period_us", "expected"),
    [
        (33_333, Fraction(30)),
        (33_367, Fraction(30)),
        (40_000, Fraction(25)),
        (41_000, Fraction(2439, 100)),
        (1_000, Fraction(120)),
        (10_000_000, Fraction(1)),
        (0, Fraction(120)),
    ],
)
def test_the_pace_is_that_of_the_source_where_people_can_see_it(period_us: int, expected: Fraction) -> None:
    assert abs(pace_of(period_us) - expected) < Fraction(1, 100)
    assert pace_of(period_us).denominator <= 100


def test_each_sample_has_one_picture_though_times_tremble() -> None:
    tremble = np.random.default_rng(0).integers(-3_000, 3_000, 900)
    starts = [round(k * 1e6 / 30) + int(t) for k, t in enumerate(tremble)]
    starts[0] = 0
    assert shown([(start, start + 10_000) for start in starts], 30)[0] == list(range(900))


def test_a_sample_stays_until_the_next_one() -> None:
    assert shown([(0, 10), (100_000, 100_010), (400_000, 400_010)], 10)[0] == [0, 1, 1, 1, 2]


def test_the_last_sample_stays_to_its_end() -> None:
    assert shown([(0, 100_000), (100_000, 500_000)], 10)[0] == [0, 1, 1, 1, 1]
    assert shown([(7, 8)], 10)[0] == [0]


def test_a_slow_video_leaves_samples_out_but_not_the_last() -> None:
    spans = [(k * 10_000, (k + 1) * 10_000) for k in range(100)]
    pictures, pace, _ = shown(spans, 10)
    assert pictures == [*(5 + 10 * k for k in range(10)), 99] and pace.origin_us == 0


def test_time_that_has_passed_is_left_out_and_a_long_gap_ends_it() -> None:
    hour = 3_600_000_000
    pictures, _, counts = shown(
        [(hour, hour + 1), (0, 1), (hour + 100_000, hour + 100_001), (2 * hour, 2 * hour + 1)], 10
    )
    assert pictures == [0, 2]
    assert counts == {
        "samples from a time that has passed, left out": 1,
        "gaps of more than ten minutes, where the video ends": 1,
    }


@given(
    st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 200_000)), min_size=1, max_size=30),
    st.integers(1, 60),
    st.integers(-(10**15), 10**15),
)
def test_a_picture_shows_what_holds_in_its_middle(steps: list[tuple[int, int]], fps: int, origin_us: int) -> None:
    starts = origin_us + np.cumsum([0, *(step for step, _ in steps[1:])])
    spans = [(int(start), int(start) + long) for start, (_, long) in zip(starts, steps, strict=True)]
    pictures, pace, _ = shown(spans, fps)
    assert pace.origin_us == origin_us and pictures == sorted(pictures)
    for number, index in enumerate(pictures[:-1]):
        middle = origin_us + (number + Fraction(1, 2)) * 1_000_000 / fps
        assert spans[index][0] <= middle + 1
        assert index + 1 == len(spans) or middle - 1 <= spans[index + 1][0]


def test_the_label_of_a_moment_is_the_one_that_began_last() -> None:
    rows = [LabelRow("a", 0, 10, "a"), LabelRow("a", 5, 7, "b"), LabelRow("a", 20, 30, "c")]
    current = Current(reversed(rows))
    found = [current.at(time_us) for time_us in (-1, 0, 5, 6, 7, 9, 10, 25, 30)]
    assert [row and row.label for row in found] == [None, "a", "b", "b", "a", "a", None, "c", None]


def test_panes_are_known() -> None:
    assert check_panes("events, rgb") == ("events", "rgb")
    with pytest.raises(ValueError, match="there is no pane 'depth', only rgb, events, motion"):
        check_panes("rgb,depth")
