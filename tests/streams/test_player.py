"""The player: samples at the recording's pace, and controls that act from other threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from streams import Player, RecordingError, Sample, open_source, synchronize


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
    while 0 not in watcher.indices[5:]:
        watcher.wait_for(1)
    player.stop()
    watcher.join(timeout=5)
    again = watcher.indices.index(0, 5)
    assert watcher.seen[again][1].discontinuity
    assert not player.paused


def test_a_loop_begins_anew_with_a_discontinuity(small_recording: Path) -> None:
    player = Player(small_recording, loop=True, speed=None)
    samples = []
    for sample in player:
        samples.append(sample)
        if len(samples) == 61:
            player.stop()
    assert [s.index for s in samples[-2:]] == [59, 0]
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
