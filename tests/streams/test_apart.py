"""Files read in a process of their own: all that they hold, in order, however many are read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from streams import RgbFrame, open_source
from streams.items import EventPacket, Item
from tests.streams.apart_fakes import frame, packet
from tests.streams.apart_tools import Open
from tests.streams.test_prophesee import FILES, write


def assert_same(found: list[Item], expected: list[Item]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, EventPacket) and isinstance(other, EventPacket):
            assert (one.t_start_us, one.t_end_us) == (other.t_start_us, other.t_end_us)
            assert np.array_equal(one.events, other.events)
        if isinstance(one, RgbFrame) and isinstance(other, RgbFrame):
            assert (one.t_start_us, one.t_end_us) == (other.t_start_us, other.t_end_us)
            assert np.array_equal(one.image, other.image) and one.image.shape == other.image.shape


# --- what is read -------------------------------------------------------------------------------------------------


def test_all_items_come_in_order_with_their_arrays(opened: Open) -> None:
    apart = opened(size=(32, 24))
    assert apart.facts["size"] == (32, 24) and apart.facts["pid"] != os.getpid()
    assert_same(list(apart.read("items", 12)), [*map(packet, range(12)), *map(frame, range(12))])
    assert list(apart.read("items", 0)) == []


def test_arrays_too_large_for_the_shared_memory_come_too(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker_process._MEMORY_BYTES", 1 << 12)
    assert_same(list(opened().read("items", 4)), [*map(packet, range(4)), *map(frame, range(4))])


def test_without_shared_memory_the_pipe_carries_all(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    assert_same(list(opened().read("items", 4)), [*map(packet, range(4)), *map(frame, range(4))])


def test_what_is_lost_is_counted_here(opened: Open) -> None:
    apart = opened()
    assert apart.counts == {"seen at once": 2}
    for _ in apart.read("items", 5):
        pass
    assert apart.counts == {"seen at once": 2, "seen": 5}
    apart.counts.clear()
    list(apart.read("items", 3))
    assert apart.counts == {"seen": 3}


def test_iterations_go_on_side_by_side_and_may_be_left(opened: Open) -> None:
    apart = opened()
    one, other, left = (apart.read("items", 8, first) for first in (0, 100, 200))
    assert_same([next(left)], [packet(200)])
    found = [item for pair in zip(one, other, strict=True) for item in pair]
    assert_same(found[:16:2], [*map(packet, range(8))])
    assert_same(found[1:16:2], [*map(packet, range(100, 108))])
    left.close()
    assert_same(list(apart.read("items", 2)), [packet(0), packet(1), frame(0), frame(1)])


def test_iterations_side_by_side_never_get_one_anothers_items(opened: Open) -> None:
    """However fast the process answers: frames are made at once, and each answer is there before it is asked for."""
    apart = opened()
    kinds = [apart.read("many", colour) for colour in (1, 2, 3)]
    for images in zip(*kinds, strict=True):
        for colour, item in zip((1, 2, 3), images, strict=True):
            assert isinstance(item, RgbFrame) and (item.image == colour).all()


def test_it_reads_on_ahead_by_one_answer(opened: Open) -> None:
    apart = opened()
    items = apart.read("items", 1_000)
    next(items)
    (made,) = apart.read("made")
    assert isinstance(made, RgbFrame) and 2 <= made.t_end_us <= 6  # of 1.6 MB; an answer has 4 MB


def test_a_process_reads_one_file_after_the_other_and_several_at_once_each_their_own(opened: Open) -> None:
    first = opened()
    pid = first.facts["pid"]
    list(first.read("items", 3))
    first.close()
    again, beside = opened(), opened()
    assert again.facts["pid"] == pid != beside.facts["pid"]


def test_many_files_do_not_wear_out_one_process(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker_process._MOST_FILES", 3)
    pids = []
    for _ in range(6):
        apart = opened()
        pids.append(apart.facts["pid"])
        apart.close()
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1 and pids[0] != pids[3]


# --- sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_recordings_that_native_libraries_decode_are_opened_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("faery")
    monkeypatch.setitem(sys.modules, "faery", None)  # here it cannot be imported
    path = write(tmp_path, name)
    with open_source(path) as source:
        whole = [item for item in source if isinstance(item, EventPacket)]
        assert sum(len(item.events) for item in whole) == 6_000
        assert source.name == name and source.path == path and source.event_size == (64, 48)
        later = [item for item in source.read(50_000) if isinstance(item, EventPacket)]
        assert np.array_equal(later[-1].events, whole[-1].events)
