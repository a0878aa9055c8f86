"""Device time: it rises through wraps and resets, and its offset to the host's time is the least that was seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import EventPacket, RgbFrame, Sample
from streams.clock import Delay, DeviceClock, Unroller
from streams.items import no_events
from tests.conftest import random_events

BLANK = np.zeros((2, 2, 3), np.uint8)
MS = 1_000_000  # nanoseconds


def frame(t_us: int, arrival_ms: int) -> RgbFrame:
    return RgbFrame(t_us, t_us + 1_000, BLANK, arrival_ms * MS)


def test_time_stays_as_it_is_while_the_clock_goes_on() -> None:
    unroller = Unroller()
    unroller.begin_anew()  # a connection was lost, the device went on
    items = [frame(1_000_000 + 10_000 * k, 10 * k) for k in range(5)]
    assert [unroller.unrolled(item) for item in items] == items
    unroller.begin_anew()
    assert unroller.unrolled(frame(2_000_000, 100)).t_start_us == 2_000_000


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 50)), min_size=1, max_size=6))
def test_time_rises_whatever_the_clock_begins_anew_with(clocks: list[tuple[int, int]]) -> None:
    unroller, arrival_ms, seen = Unroller(), 0, list[int]()
    for start, count in clocks:
        unroller.begin_anew()
        for k in range(count):
            arrival_ms += 10
            seen.append(unroller.unrolled(frame(start + 10_000 * k, arrival_ms)).t_start_us)
    assert all(after > before for before, after in zip(seen, seen[1:], strict=False))


def test_after_a_reset_the_time_that_passed_is_the_hosts_and_events_move_along() -> None:
    unroller = Unroller()
    unroller.unrolled(frame(2**31 - 2_000, 1_000))
    unroller.begin_anew()
    events = random_events(50, 500, 10_500)
    packet = unroller.unrolled(EventPacket(500, 10_500, events, 1_250 * MS))
    assert packet.t_start_us == 2**31 - 1_000 + 250_000
    assert isinstance(packet, EventPacket)
    assert (packet.events["t"] - packet.t_start_us == events["t"] - 500).all() and events["t"].max() < 10_500


def sample(t_end_us: int, arrival_ns: int | None, discontinuity: bool = False) -> Sample:
    return Sample(0, t_end_us - 10, t_end_us, BLANK, BLANK, no_events(), True, True, discontinuity, arrival_ns)


def test_the_delay_counts_from_the_least_of_the_last_half_minute() -> None:
    delay = Delay()
    late_ms = [5, 3, 9, 4, 30, 3]
    found = [delay.of(sample(1_000_000 * k, (1_000 * k + late) * MS)) for k, late in enumerate(late_ms)]
    assert found == pytest.approx([0, 0, 6, 1, 27, 0])
    drifted = [delay.of(sample(1_000_000 * k, (1_000 * k + 20) * MS)) for k in range(6, 60)]
    assert drifted[0] == pytest.approx(17) and drifted[-1] == pytest.approx(0)
    assert delay.of(sample(5, 70_000 * MS, discontinuity=True)) == 0  # another clock
    assert delay.of(sample(5, None)) is None


@given(st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 5_000)), min_size=1, max_size=40))
def test_the_device_s_time_is_told_by_what_came_with_the_least_delay_of_late(steps: list[tuple[int, int]]) -> None:
    """Steps of the host's clock, and delays, in milliseconds: late is the last thirty seconds, in whole ones."""
    clock, host_ms, heard = DeviceClock(), 0, list[tuple[int, int]]()
    for step_ms, late_ms in steps:
        host_ms += step_ms
        clock.heard(1_000 * (host_ms - late_ms) + 7, host_ms * MS)
        heard.append((host_ms // 1_000, 1_000 * late_ms - 7))
        least = min(difference for second, difference in heard if second >= host_ms // 1_000 - 30)
        assert clock.at(1_000 * host_ms) == 1_000 * host_ms - least
    clock.begin_anew()
    assert clock.at(0) is None
