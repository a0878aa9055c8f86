"""The offset between two feeds that see one hand: found where there is one to find, and else said to be unsure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, Gap, RgbFrame
from streams.align import Activity, Alignment
from streams.items import Item, no_events

WIDTH, HEIGHT, HZ = 96, 72, 1_000
HAND = 20  # pixels wide
START_US = 3_000_000


def waved(seed: int, seconds: float = 8) -> np.ndarray:
    """Where a hand is, every millisecond: to and fro about twice a second, now fast, now slow."""
    rng, n = np.random.default_rng(seed), int(seconds * HZ)
    t = np.arange(n) / HZ
    wander = np.interp(
        t, np.arange(0, seconds + 0.4, 0.4), rng.uniform(0.5, 2.5, len(np.arange(0, seconds + 0.4, 0.4)))
    )
    reach = np.interp(t, np.arange(seconds + 1), rng.uniform(0.3, 1, int(seconds) + 1))
    return np.asarray((WIDTH - HAND) / 2 * (1 + reach * np.sin(2 * np.pi * np.cumsum(wander) / HZ)))


def events_of(hand: np.ndarray, seconds: float, rng: np.random.Generator) -> Iterator[EventPacket]:
    """As many as it moves, and noise; a packet in 10 ms. The hand's first second is before the first event."""
    speed = np.abs(np.diff(hand, append=hand[-1]))
    for k in range(int(seconds * 100)):
        counts = rng.poisson(20 * speed[HZ + 10 * k : HZ + 10 * k + 10] + 2)
        times = np.repeat(START_US + 1_000 * (10 * k + np.arange(10)), counts)
        events = np.zeros(len(times), EVENT_DTYPE)
        events["t"] = times
        yield EventPacket(START_US + 10_000 * k, START_US + 10_000 * (k + 1), events)


def frames_of(hand: np.ndarray, seconds: float, offset_ms: float, rng: np.random.Generator) -> Iterator[RgbFrame]:
    """30 a second that say `offset_ms` less than is true, with the noise of a cheap sensor."""
    for k in range(int(seconds * 30)):
        true_ms = k * 1e3 / 30 + rng.normal(0, 2) + HZ
        image = rng.normal(60, 4, (HEIGHT, WIDTH, 3))
        left = round(float(hand[int(np.clip(true_ms, 0, len(hand) - 1))]))
        image[20:60, left : left + HAND] += 120
        time_us = START_US + round(1e3 * (k * 1e3 / 30 - offset_ms))
        yield RgbFrame(time_us, time_us, image.clip(0, 255).astype(np.uint8))


def found(offset_ms: float, *, seed: int = 0, same: bool = True, seconds: float = 5) -> Alignment:
    rng, activity = np.random.default_rng(seed), Activity()
    hand = waved(seed)
    items: list[Item] = [*events_of(hand, seconds, rng)]
    items += frames_of(hand if same else waved(seed + 1_000), seconds, offset_ms, rng)
    for item in items:
        activity.push(item)
    assert activity.seconds == pytest.approx(seconds - max(0, abs(offset_ms) / 1e3), abs=0.1)
    return activity.align()


@pytest.mark.parametrize("offset_ms", [0.0, 37.5, -120.0, 640.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_offset_is_found_within_5_ms(offset_ms: float, seed: int) -> None:
    alignment = found(offset_ms, seed=seed)
    assert alignment.offset_us is not None, alignment.reason
    assert abs(alignment.offset_us / 1e3 - offset_ms) < 5
    assert alignment.correlation > 0.8 and not alignment.reason


@pytest.mark.parametrize("seed", range(4))
def test_feeds_of_different_things_are_unsure(seed: int) -> None:
    alignment = found(0, seed=seed, same=False)
    assert alignment.offset_us is None and alignment.reason


def test_a_pendulum_fits_at_many_offsets_and_is_unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    pendulum = (WIDTH - HAND) / 2 * (1 + 0.9 * np.sin(2 * np.pi * 2 * np.arange(8 * HZ) / HZ))
    monkeypatch.setattr(f"{__name__}.waved", lambda seed: pendulum)
    alignment = found(37.5)
    assert alignment.offset_us is None and "fits nearly as well" in alignment.reason


def test_a_gap_begins_anew_and_too_little_is_refused() -> None:
    activity, rng, hand = Activity(), np.random.default_rng(0), waved(0)
    for item in [*events_of(hand, 2, rng), *frames_of(hand, 2, 0, rng)]:
        activity.push(item)
    assert activity.seconds > 1.5
    activity.push(Gap("reconnected"))
    assert activity.seconds == 0
    with pytest.raises(ValueError, match="only 0 frames follow on one another"):
        activity.align()
    for frame in frames_of(hand, 2, 0, rng):
        activity.push(frame)
    with pytest.raises(ValueError, match="no events came"):
        activity.align()


def test_where_nothing_moves_it_is_unsure() -> None:
    activity, rng, hand = Activity(), np.random.default_rng(0), waved(0)
    for item in events_of(hand, 3, rng):
        activity.push(item)
    for k in range(90):
        time_us = START_US + 33_333 * k
        activity.push(RgbFrame(time_us, time_us, np.zeros((HEIGHT, WIDTH), np.uint8)))
    alignment = activity.align()
    assert alignment.offset_us is None and "nothing moves" in alignment.reason
    activity.push(EventPacket(START_US, START_US, no_events()))


def test_a_quiet_end_does_not_spoil_what_was_found() -> None:
    """A sensor without noise says nothing there: that nothing came is known, too."""
    activity, rng, hand = Activity(), np.random.default_rng(1), waved(1)
    frames = list(frames_of(hand, 5, 37.5, rng))
    for item in [*events_of(hand, 5, rng), *frames]:
        activity.push(item)
    activity.push(EventPacket(START_US + 5_000_000, START_US + 40_000_000, no_events()))
    for k in range(35 * 30):
        time_us = frames[-1].t_end_us + 33_333 * (k + 1)
        activity.push(RgbFrame(time_us, time_us, frames[-1].image))
    offset_us = activity.align().offset_us
    assert offset_us is not None and abs(offset_us / 1e3 - 37.5) < 5
