"""The timeline: bins of time with labels and event rates, of which pages get what is new to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app.timeline import Timeline
from streams import EVENT_DTYPE
from tests.app.fakes import prediction, sample

SECOND = 1_000_000


def labelled(timeline: Timeline, end_us: int, label: str, confidence: float = 0.5, *, unsure: bool = False) -> None:
    found = prediction(0, label, confidence, unsure=unsure)
    found.t_end_us = end_us
    timeline.add_prediction(found)


def rows(timeline: Timeline, change: int = 0) -> dict[int, list]:
    return {number: row for number, *row in timeline.since(change)["rows"]}


def test_a_recording_is_cut_into_bins_from_its_beginning_to_its_end() -> None:
    short, long = Timeline((5 * SECOND, 15 * SECOND)), Timeline((0, 3600 * SECOND))
    assert (short.origin_us, short.bin_us, short.count) == (5 * SECOND, 20_000, 500)
    assert (long.bin_us, long.count) == (3 * SECOND, 1200)
    labelled(short, 15 * SECOND, "A")
    labelled(short, 5 * SECOND + 1, "K")
    assert sorted(rows(short)) == [0, 499]


def test_a_label_holds_from_the_one_before_it() -> None:
    timeline = Timeline((0, 10 * SECOND))
    labelled(timeline, 100_000, "A", 0.9)
    labelled(timeline, 200_000, "K", 0.4, unsure=True)
    labelled(timeline, 9 * SECOND, "A")  # far later: it holds for no more than its own bin
    found = rows(timeline)
    assert timeline.since(0)["names"] == ["A", "K"]
    assert sorted(found) == [4, 5, 6, 7, 8, 9, 449]
    assert found[4][:3] == [0, 90, 0] and all(found[n][:3] == [1, 40, 1] for n in range(5, 10))


def test_what_is_played_again_replaces_what_was_there() -> None:
    timeline = Timeline((0, 10 * SECOND))
    labelled(timeline, 100_000, "A")
    labelled(timeline, 50_000, "K")
    labelled(timeline, 100_000, "K")
    assert {row[0] for row in rows(timeline).values()} == {1}


def test_event_rates_fill_the_time_between_samples() -> None:
    events = np.zeros(300, EVENT_DTYPE)
    events["p"][:75] = True
    timeline = Timeline((0, 10 * SECOND))
    for end_us in (100_000, 200_000):
        timeline.add_sample(replace(sample(0), t_start_us=end_us - 10_000, t_end_us=end_us, events=events))
    timeline.add_sample(replace(sample(0), t_start_us=SECOND - 10_000, t_end_us=SECOND))
    found = rows(timeline)
    assert sorted(found) == [4, 5, 6, 7, 8, 9, 49]
    assert found[9] == [None, 0, 0, 0.03, 25] and found[49][3:] == [0.0, None]


def test_a_page_gets_what_has_changed_since() -> None:
    timeline = Timeline((0, 10 * SECOND))
    labelled(timeline, 100_000, "A")
    known = timeline.since(0)["change"]
    assert timeline.since(known)["rows"] == []
    labelled(timeline, 120_000, "A")
    assert sorted(rows(timeline, known)) == [5]
    assert sorted(rows(timeline, known + 1_000_000)) == [4, 5]  # of another timeline: all


def test_who_is_far_behind_gets_all() -> None:
    timeline = Timeline((0, 10 * SECOND))
    for _ in range(10):
        for end_us in range(20_000, 10 * SECOND, 20_000):
            labelled(timeline, end_us, "A")
    assert len(rows(timeline, 1)) == 499


def test_a_live_feed_keeps_its_last_minute() -> None:
    timeline = Timeline(None, 7 * SECOND)
    for end_us in range(7 * SECOND, 157 * SECOND, 50_000):
        labelled(timeline, end_us, "A")
    found = sorted(rows(timeline))
    assert len(found) == timeline.count == 1200 and found[-1] == (150 * SECOND - 50_000 - 1) // timeline.bin_us


def test_labels_of_another_model_are_forgotten_and_rates_stay() -> None:
    timeline = Timeline((0, 10 * SECOND))
    timeline.add_sample(sample(0))
    labelled(timeline, 100_000, "A")
    known = timeline.since(0)["change"]
    timeline.forget_labels()
    assert rows(timeline, known)[4][0] is None and rows(timeline)[0][3] == 0.0
