"""The player: samples at the recording's pace, and controls that act from other threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams import (
    EventPacket,
    Gap,
    Player,
    RecordingError,
    RgbFrame,
    Sample,
    Sink,
    Source,
    open_source,
    run,
    synchronize,
    write_aedat4,
)
from streams.items import Item, no_events
from tests.conftest import moving_square
from velora import Prediction, load_recognizer


class Watcher(threading.Thread):
    """Consumes a player in a thread and remembers when each sample came."""

    def __init__(self, player: Player) -> None:
        super().__init__(daemon=True)
        self.player = player
        self.seen: list[tuple[float, Sample]] = []
        self.came = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        for sample in self.player:
            self.seen.append((time.monotonic(), sample))
            self.came.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.came.acquire(timeout=10)

    @property
    def indices(self) -> list[int]:
        return [sample.index for _, sample in list(self.seen)]

    @property
    def ends(self) -> list[int]:
        return [sample.t_end_us for _, sample in list(self.seen)]


def test_without_a_pace_it_gives_what_synchronize_gives(small_recording: Path) -> None:
    with open_source(small_recording) as source:
        expected = [(s.index, s.t_end_us) for s in synchronize(source)]
    assert [(s.index, s.t_end_us) for s in Player(small_recording, speed=None)] == expected
    assert len(expected) == 60


@pytest.mark.timing
def test_the_pace_is_the_recordings_and_does_not_drift(small_recording: Path) -> None:
    watcher = Watcher(Player(small_recording, speed=2.0))
    watcher.join(timeout=10)
    (t0, first), (t1, last) = watcher.seen[0], watcher.seen[-1]
    assert t1 - t0 == pytest.approx((last.t_end_us - first.t_end_us) / 2e6, abs=0.1)


def test_pause_holds_and_resume_goes_on_without_a_jump(small_recording: Path) -> None:
    player = Player(small_recording)
    watcher = Watcher(player)
    watcher.wait_for(3)
    player.pause()
    while watcher.came.acquire(timeout=0.2):  # what was under way when it was paused
        pass
    held = len(watcher.seen)
    assert not watcher.came.acquire(timeout=0.3)
    player.resume()
    watcher.wait_for(3)
    player.stop()
    watcher.join(timeout=5)
    assert not watcher.is_alive()
    assert watcher.indices == list(range(len(watcher.indices)))
    assert len(watcher.indices) < held + 30  # what was missed is not made up for in a bunch


def test_restart_plays_from_the_start_also_when_paused(small_recording: Path) -> None:
    player = Player(small_recording)
    watcher = Watcher(player)
    watcher.wait_for(5)
    player.pause()
    player.restart()
    while watcher.ends[0] not in watcher.ends[5:]:
        watcher.wait_for(1)
    player.stop()
    watcher.join(timeout=5)
    again = watcher.ends.index(watcher.ends[0], 5)
    assert watcher.seen[again][1].discontinuity
    assert not player.paused


def test_a_loop_begins_anew_with_a_discontinuity(small_recording: Path) -> None:
    player = Player(small_recording, loop=True, speed=None)
    samples = []
    for sample in player:
        samples.append(sample)
        if len(samples) == 61:
            player.stop()
    assert [s.index for s in samples[-2:]] == [59, 60]
    assert samples[60].discontinuity


def test_stop_ends_a_wait_at_once(small_recording: Path) -> None:
    player = Player(small_recording, speed=0.001)  # 33 s to the second sample
    watcher = Watcher(player)
    watcher.wait_for(1)
    player.stop()
    watcher.join(timeout=5)
    assert not watcher.is_alive()


def test_a_bad_recording_is_raised_to_the_consumer(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        next(iter(Player(tmp_path / "gone.aedat4")))


def test_a_speed_of_nothing_is_refused(small_recording: Path) -> None:
    with pytest.raises(ValueError, match="speed must be positive"):
        Player(small_recording, speed=0)


def samples_of(path: Path) -> list[Sample]:
    with open_source(path) as source:
        return list(synchronize(source))


def same(one: Sample, other: Sample) -> bool:
    times = (one.t_start_us, one.t_end_us, one.has_rgb, one.has_events) == (
        other.t_start_us,
        other.t_end_us,
        other.has_rgb,
        other.has_events,
    )
    events = one.events.tobytes() == other.events.tobytes()
    return times and events and bool((one.rgb == other.rgb).all() and (one.event_image == other.event_image).all())


def later(item: Item, after_us: int, shift_us: int) -> Item:
    """An item of a recording that was interrupted for a while."""
    if isinstance(item, Gap) or item.t_start_us < after_us:
        return item
    times = {"t_start_us": item.t_start_us + shift_us, "t_end_us": item.t_end_us + shift_us}
    if isinstance(item, RgbFrame):
        return replace(item, **times)
    events = item.events.copy()
    events["t"] += shift_us
    return replace(item, events=events, **times)


KINDS = ["whole", "events alone", "frames alone", "no table", "no exposures", "with a hole", "events alone with a hole"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sought_equals_what_the_whole_recording_shows(small_recording: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "changed.aedat4"
    with open_source(small_recording) as source:
        items = list(source)
        sizes = (
            (None if kind == "frames alone" else source.event_size),
            (None if "events alone" in kind else source.frame_size),
        )
    if "hole" in kind:
        items = [later(item, items[len(items) // 2].t_start_us, 25_007_700) for item in items]
    with write_aedat4(path, *sizes) as writer:
        for item in items:
            if isinstance(item, RgbFrame) and kind == "no exposures":
                item = RgbFrame(item.t_end_us, item.t_end_us, item.image)
            if sizes[isinstance(item, RgbFrame)] is not None:
                writer.write(item)
    if kind == "no table":
        path.write_bytes(path.read_bytes()[:-100])
    whole = samples_of(path)
    with open_source(path) as source:
        after_hole = next((k for k in range(1, len(whole)) if whole[k].discontinuity), 0)
        assert bool(after_hole) == ("hole" in kind)
        for k in (0, 1, 7, 30, max(0, after_hole - 1), after_hole, after_hole + 1, len(whole) - 1):
            found = list(synchronize(source, from_us=whole[k].t_end_us - 1))
            assert [s.t_end_us for s in found] == [s.t_end_us for s in whole[k:]]
            assert found[0].discontinuity and all(map(same, found, whole[k:]))
            assert [s.discontinuity for s in found[1:]] == [s.discontinuity for s in whole[k + 1 :]]


def test_a_place_that_is_sought_comes_with_its_lead(small_recording: Path) -> None:
    whole = samples_of(small_recording)
    player = Player(small_recording, speed=None, lead=7)
    samples = iter(player)
    first = next(samples)
    player.seek(whole[30].t_end_us - 5)
    found = [next(samples) for _ in range(9)]
    assert [s.t_end_us for s in found] == [s.t_end_us for s in whole[23:32]]
    assert [s.lead for s in found] == [True] * 7 + [False] * 2
    assert [s.discontinuity for s in found] == [True] + [False] * 8
    assert first.index < found[0].index and [s.index - found[0].index for s in found] == list(range(9))
    assert player.position_us == whole[31].t_end_us


@pytest.mark.parametrize("where", [-(10**15), 10**15])
def test_seeking_beyond_an_end_shows_the_sample_there(small_recording: Path, where: int) -> None:
    whole = samples_of(small_recording)
    player = Player(small_recording, speed=None, lead=3)
    samples = iter(player)
    next(samples)
    player.seek(where)
    shown = next(sample for sample in samples if not sample.lead)
    assert shown.t_end_us == whole[0 if where < 0 else -1].t_end_us


def test_a_place_without_frames_shows_the_last_one_before_it(make_recording: Callable[..., Path]) -> None:
    items = list(moving_square(40))
    slow = [item for k, item in enumerate(items) if isinstance(item, EventPacket) or k < 22 or k % 8 == 1]
    path = make_recording([item for k, item in enumerate(slow) if isinstance(item, EventPacket) or k < 40])
    with open_source(path) as source:
        frames = [item.t_end_us for item in source if isinstance(item, RgbFrame)]
        whole = list(synchronize(source))
        assert source.span_us is not None and source.span_us[1] > frames[-1] + 300_000
    player = Player(path, speed=None, lead=4, loop=True)
    for place, shown in ((frames[-1] + 200_000, whole[-1]), (whole[-1].t_end_us - 1, whole[-1])):
        player.seek(place)
        found = list(itertools.islice(player, 5))
        assert [sample.lead for sample in found] == [True] * 4 + [False]
        assert same(found[-1], shown)


def test_a_speed_after_as_fast_as_possible_goes_on_at_once(small_recording: Path) -> None:
    player = Player(small_recording, speed=1.0)
    samples = iter(player)
    next(samples)
    player.speed = None
    for _ in range(40):
        next(samples)
    player.speed = 1.0
    began = time.monotonic()
    next(samples)
    assert time.monotonic() - began < 0.5


def test_steps_forth_and_back_while_it_is_paused(small_recording: Path) -> None:
    player = Player(small_recording, lead=2)
    watcher = Watcher(player)
    watcher.wait_for(5)
    player.pause()
    while watcher.came.acquire(timeout=0.3):
        pass
    ends, place = [s.t_end_us for s in samples_of(small_recording)], len(watcher.seen) - 1
    for count, expected in ((1, place + 1), (1, place + 2), (-1, place + 1), (-2, place - 1), (1, place)):
        player.step(count)
        watcher.wait_for(1)
        while watcher.came.acquire(timeout=0.3):  # the lead, and nothing after the one sample
            pass
        assert player.position_us == ends[expected] and player.paused
    player.stop()
    watcher.join(timeout=5)


def test_seeking_while_it_is_paused_shows_one_sample(small_recording: Path) -> None:
    player = Player(small_recording)
    watcher = Watcher(player)
    watcher.wait_for(2)
    player.pause()
    while watcher.came.acquire(timeout=0.3):
        pass
    whole = samples_of(small_recording)
    player.seek(whole[40].t_start_us)
    watcher.wait_for(1)
    assert not watcher.came.acquire(timeout=0.3)
    assert watcher.ends[-1] == whole[40].t_end_us
    player.stop()


@pytest.mark.timing
def test_another_speed_holds_from_then_on(small_recording: Path) -> None:
    player = Player(small_recording, speed=0.001)
    watcher = Watcher(player)
    watcher.wait_for(1)
    player.speed = 20
    began = time.monotonic()
    watcher.join(timeout=10)
    assert len(watcher.seen) == 60 and time.monotonic() - began < 2


def test_labels_after_a_seek_equal_those_of_the_whole_run(small_recording: Path) -> None:
    recognizer = load_recognizer("demo", device="cpu")

    def labels(samples: Iterable[Sample], stop: Callable[[], None] = lambda: None) -> dict[int, tuple[float, ...]]:
        found: dict[int, tuple[float, ...]] = {}

        class Keep(Sink):
            def on_prediction(self, prediction: Prediction) -> None:
                found[prediction.t_end_us] = tuple(prediction.probabilities.tolist())
                if len(found) == 10:
                    stop()

        run(samples, recognizer, sinks=[Keep()], stride=2)
        return found

    whole = labels(samples_of(small_recording))
    player = Player(small_recording, speed=None, lead=14)
    player.seek(samples_of(small_recording)[33].t_end_us - 1)
    sought = labels(player, player.stop)
    assert len(sought) == 10 and min(sought) == samples_of(small_recording)[33].t_end_us
    assert all(whole[end] == found for end, found in sought.items())


def test_what_leads_to_a_place_takes_bounded_memory(small_recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = samples_of(small_recording)
    some = sum(sample.rgb.nbytes + sample.event_image.nbytes + sample.events.nbytes for sample in whole[27:30])
    monkeypatch.setattr("streams.player._LEAD_BYTES", some)
    player = Player(small_recording, speed=None, lead=20)
    samples = iter(player)
    next(samples)
    player.seek(whole[30].t_end_us - 5)
    found = [next(samples) for _ in range(5)]
    leads = sum(sample.lead for sample in found)
    assert 1 <= leads <= 4 and found[leads].t_end_us == whole[30].t_end_us


class EventsForEver(Source):
    """Its frames have ended; its events go on."""

    name, event_size, frame_size, sample_period_us, span_us = "for ever", (64, 48), (64, 48), 33_333, (0, 10**12)

    def __iter__(self) -> Iterator[Item]:
        for start in itertools.count(0, 1_000):
            yield EventPacket(start, start + 1_000, no_events())

    def close(self) -> None:
        pass


@pytest.mark.parametrize("sought", [False, True])
def test_stop_ends_it_where_no_sample_comes(sought: bool) -> None:
    player = Player("for ever", opened=lambda _: EventsForEver())
    if sought:
        player.seek(10**11)
    watcher = Watcher(player)
    time.sleep(0.2)
    assert watcher.is_alive() and not watcher.seen
    player.stop()
    watcher.join(5)
    assert not watcher.is_alive()
