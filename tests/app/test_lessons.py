"""Clips for new labels: cut whole, kept by label, some held out, and a folder to train on as it stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.label_file import LabelRow, read_label_rows, write_label_rows
from app.lessons import Lessons
from streams import EventPacket, RecordingError, RgbFrame, Source, open_source
from streams.items import join_events
from streams.record import labels_of
from tests.conftest import moving_square, random_events

START_US, END_US = 1_000_000, 3_000_000


@pytest.fixture
def lessons(tmp_path: Path) -> Lessons:
    return Lessons(tmp_path / "lessons")


@pytest.fixture
def opened(small_recording: Path) -> Callable[[], Source]:
    return lambda: open_source(small_recording)


def test_a_clip_holds_the_span_and_what_fills_the_first_window(lessons: Lessons, opened: Callable[[], Source]) -> None:
    path = lessons.add(opened, 2_400_000, 2_700_000, " wave ")
    (row,) = read_label_rows(labels_of(path))
    assert (row.recording, row.start_us, row.end_us, row.label) == (path.name, 2_400_000, 2_700_000, "wave")
    with open_source(path) as clip, opened() as source:
        held, whole = list(clip), list(source)
    times = [join_events([i.events for i in items if isinstance(i, EventPacket)])["t"] for items in (held, whole)]
    lead_us = 2_400_000 - int(times[0][0])
    assert 1_000_000 < lead_us < 1_300_000
    inside = [(t >= 2_400_000) & (t < 2_700_000) for t in times]
    assert np.array_equal(times[0][inside[0]], times[1][inside[1]]) and times[0][-1] < 2_700_000
    ends = [[i.t_end_us for i in items if isinstance(i, RgbFrame)] for items in (held, whole)]
    assert ends[0] == [t for t in ends[1] if 2_400_000 - 1_200_000 < t <= 2_700_000]


def test_a_recorded_clip_is_taken_in_whole_and_left_where_it_is(lessons: Lessons, small_recording: Path) -> None:
    path = lessons.take(small_recording, "stand")
    (row,) = read_label_rows(labels_of(path))
    assert START_US <= row.start_us < START_US + 10_000 and END_US - 40_000 < row.end_us <= END_US
    with open_source(path) as clip, open_source(small_recording) as source:
        assert sum(isinstance(item, RgbFrame) for item in clip) == sum(isinstance(item, RgbFrame) for item in source)
    assert small_recording.exists() and lessons.counts() == {"stand": 1}


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 1), (4, 1), (6, 2), (8, 2), (12, 3)])
def test_a_quarter_of_each_labels_clips_is_held_out(
    lessons: Lessons, opened: Callable[[], Source], count: int, held_out: int
) -> None:
    for k in range(count):
        lessons.add(opened, START_US + 10_000 * k, START_US + 100_000 + 10_000 * k, "wave")
    lessons.add(opened, START_US, START_US + 100_000, "stand")
    val = [row.label for path in (lessons.folder / "val").glob("*.csv") for row in read_label_rows(path)]
    assert val == ["wave"] * held_out and lessons.counts() == {"stand": 1, "wave": count}


def test_labels_that_differ_in_what_no_file_name_holds_are_kept_apart(
    lessons: Lessons, opened: Callable[[], Source]
) -> None:
    labels = ["a/b", "a-b", "a b", "…", "../../x", "日本語"]
    paths = [lessons.add(opened, START_US, START_US + 100_000, label) for label in labels]
    assert len(set(paths)) == len(labels) and set(lessons.counts()) == set(labels)
    assert all(path.parent.parent == lessons.folder for path in paths)
    assert lessons.remove("a-b") == 1 and set(lessons.counts()) == set(labels) - {"a-b"}


def test_labels_are_forgotten_one_by_one_or_all(lessons: Lessons, opened: Callable[[], Source]) -> None:
    for k, label in enumerate(("wave", "stand", "wave")):
        lessons.add(opened, START_US, START_US + 100_000 + 10_000 * k, label)
    (lessons.cache).mkdir()
    assert lessons.remove("wave") == 2 and lessons.remove("wave") == 0
    assert lessons.counts() == {"stand": 1} and not lessons.cache.exists()
    assert len(list(lessons.folder.rglob("*.aedat4"))) == 1
    lessons.clear()
    assert lessons.counts() == {} and not list(lessons.folder.rglob("*.aedat4"))


def test_no_clip_goes_while_a_model_learns_from_it(lessons: Lessons, opened: Callable[[], Source]) -> None:
    lessons.add(opened, START_US, START_US + 100_000, "wave")
    with lessons.in_use():
        for call in (lessons.clear, lambda: lessons.remove("wave")):
            with pytest.raises(ValueError, match="a model is learning from these clips"):
                call()
        lessons.add(opened, START_US, START_US + 200_000, "wave")
    assert lessons.remove("wave") == 2


def test_they_are_there_again_next_time(lessons: Lessons, opened: Callable[[], Source]) -> None:
    first = lessons.add(opened, START_US, START_US + 100_000, "wave")
    again = Lessons(lessons.folder)
    assert again.counts() == {"wave": 1}
    assert again.add(opened, START_US, START_US + 200_000, "wave") != first


def test_clips_that_are_added_at_once_get_places_of_their_own(lessons: Lessons, opened: Callable[[], Source]) -> None:
    paths: list[Path] = []

    def add(end_us: int) -> None:
        paths.append(lessons.add(opened, START_US, end_us, "wave"))

    threads = [threading.Thread(target=add, args=(START_US + 300_000 + 10_000 * k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(paths)) == 8 and lessons.counts() == {"wave": 8}
    assert sum(path.parent.name == "val" for path in paths) == 2


def test_a_clip_that_is_just_being_listed_counts_once(
    lessons: Lessons, opened: Callable[[], Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four more come at the moment when the first one for validation has its label, and is not done yet."""
    listed: list[Path] = []

    def put(path: Path, rows: list[LabelRow]) -> None:
        write_label_rows(path, rows)
        listed.append(path)
        if len(listed) == 2:
            assert path.parent.name == "val"
            for k in range(4):
                lessons.add(opened, START_US, START_US + 400_000 + 10_000 * k, "wave")

    monkeypatch.setattr("app.lessons.write_label_rows", put)
    for k in range(2):
        lessons.add(opened, START_US, START_US + 300_000 + 10_000 * k, "wave")
    assert lessons.counts() == {"wave": 6}
    assert sum(path.parent.name == "val" for path in listed) == 2


def test_one_clip_twice_would_be_learned_and_held_out(
    lessons: Lessons, opened: Callable[[], Source], small_recording: Path
) -> None:
    lessons.add(opened, START_US, START_US + 100_000, "wave")
    lessons.take(small_recording, "wave")
    for again in (
        lambda: lessons.add(opened, START_US, START_US + 100_000, "wave"),
        lambda: lessons.take(small_recording, "wave"),
    ):
        with pytest.raises(ValueError, match="this is a clip of wave already"):
            again()
    lessons.add(opened, START_US, START_US + 100_000, "stand")
    assert lessons.counts() == {"stand": 1, "wave": 2} and len(list(lessons.folder.rglob("*.aedat4"))) == 3


def test_labels_that_look_alike_are_one(lessons: Lessons, opened: Callable[[], Source]) -> None:
    lessons.add(opened, START_US, START_US + 100_000, "caf\u00e9")
    lessons.add(opened, START_US, START_US + 200_000, "cafe\u0301")
    lessons.add(opened, START_US, START_US + 100_000, "\u0645\u06cc\u200c\u0631\u0648\u062f")  # a joiner
    assert lessons.counts() == {"caf\u00e9": 2, "\u0645\u06cc\u200c\u0631\u0648\u062f": 1}


def test_what_lacks_for_teaching_is_said(lessons: Lessons, opened: Callable[[], Source]) -> None:
    assert "clips of two labels at least" in lessons.untaught()
    for k, label in enumerate(("wave", "wave", "stand")):
        lessons.add(opened, START_US, START_US + 100_000 + 10_000 * k, label)
    assert lessons.untaught() == "mark or record another clip of stand: each label needs two at least"
    lessons.add(opened, START_US, START_US + 100_000, "stand")
    assert lessons.untaught() == ""


def test_what_is_no_clip_is_refused_and_leaves_nothing(
    lessons: Lessons, opened: Callable[[], Source], tmp_path: Path, make_recording: Callable[..., Path]
) -> None:
    later = EventPacket(70_000_000, 70_001_000, random_events(9, 70_000_000, 70_001_000))
    long = make_recording([*moving_square(2), later])
    (tmp_path / "none.aedat4").write_bytes(b"no recording")
    for call, error, message in (
        (lambda: lessons.add(opened, 5, 9, "wave"), RecordingError, "holds nothing from 5 to 9 us"),
        (lambda: lessons.add(opened, END_US + 5, END_US + 9, "wave"), RecordingError, "holds nothing from 3000005"),
        (lambda: lessons.add(opened, 9, 5, "wave"), ValueError, "a span begins before it ends"),
        (lambda: lessons.add(opened, 0, 61_000_000, "wave"), ValueError, "a clip lasts 60 s at most, not 61"),
        (lambda: lessons.take(long, "wave"), ValueError, "a clip lasts 60 s at most"),
        (lambda: lessons.add(opened, START_US, END_US, " "), ValueError, "must be printable text"),
        (lambda: lessons.take(tmp_path / "none.aedat4", "wave"), RecordingError, "none.aedat4"),
        (lambda: lessons.take(tmp_path / "gone.aedat4", "wave"), RecordingError, "no such file"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert lessons.counts() == {} and not list(lessons.folder.rglob("*.*"))
