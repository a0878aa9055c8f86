"""Simulated recordings of cards: what their packets, frames and labels promise."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from streams.items import EVENT_DTYPE, EventPacket, RgbFrame
from streams.simulation import LABELS, NO_CARD, card_labels, simulate_cards
from streams.simulation.camera import PACKET_US, Camera
from streams.simulation.cards import T_START_US, card_stage
from streams.simulation.deck import RANKS, draw_face
from streams.simulation.script import plays

SECONDS, SEED, WIDTH, HEIGHT = 1.6, 4, 160, 120


@pytest.fixture(scope="module")
def items() -> list[EventPacket | RgbFrame]:
    return list(simulate_cards(SECONDS, SEED, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="module")
def packets(items: list[EventPacket | RgbFrame]) -> list[EventPacket]:
    return [item for item in items if isinstance(item, EventPacket)]


@pytest.fixture(scope="module")
def frames(items: list[EventPacket | RgbFrame]) -> list[RgbFrame]:
    return [item for item in items if isinstance(item, RgbFrame)]


def test_the_same_seed_gives_the_same_recording(items: list[EventPacket | RgbFrame]) -> None:
    for ours, theirs in zip(items, simulate_cards(SECONDS, SEED, width=WIDTH, height=HEIGHT), strict=True):
        assert (ours.t_start_us, ours.t_end_us) == (theirs.t_start_us, theirs.t_end_us)
        if isinstance(ours, EventPacket):
            assert isinstance(theirs, EventPacket)
            assert ours.events.tobytes() == theirs.events.tobytes()
        else:
            assert isinstance(theirs, RgbFrame)
            assert np.array_equal(ours.image, theirs.image)


def test_another_seed_gives_another_recording() -> None:
    assert card_labels(20, 1) != card_labels(20, 2)


def test_items_come_in_order_of_their_end(items: list[EventPacket | RgbFrame]) -> None:
    ends = [item.t_end_us for item in items]
    assert ends == sorted(ends)


def test_packets_cover_the_recording_without_holes(packets: list[EventPacket]) -> None:
    assert packets[0].t_start_us == T_START_US
    assert packets[-1].t_end_us == T_START_US + round(SECONDS * 1e6)
    assert all(before.t_end_us == after.t_start_us for before, after in pairwise(packets))
    assert all(0 < packet.t_end_us - packet.t_start_us <= PACKET_US for packet in packets)


def test_events_lie_in_their_packet_and_on_the_sensor(packets: list[EventPacket]) -> None:
    assert sum(len(packet.events) for packet in packets) > 5000
    for packet in packets:
        events = packet.events
        assert events.dtype == EVENT_DTYPE
        assert np.all((events["t"] >= packet.t_start_us) & (events["t"] < packet.t_end_us))
        assert np.all(np.diff(events["t"]) >= 0)
        assert np.all((events["x"] < WIDTH) & (events["y"] < HEIGHT))


def test_nothing_happens_before_the_first_card(packets: list[EventPacket]) -> None:
    first_us = next(plays(SEED, T_START_US)).start_us
    assert first_us > T_START_US + 100_000
    assert all(len(packet.events) == 0 for packet in packets if packet.t_end_us <= first_us)


def test_frames_keep_their_period_and_exposure(frames: list[RgbFrame]) -> None:
    assert len(frames) == int(SECONDS * 30)
    for number, frame in enumerate(frames):
        assert frame.t_start_us == T_START_US + number * Camera().frame_period_us
        assert frame.t_end_us == frame.t_start_us + Camera().exposure_us
        assert frame.image.shape == (HEIGHT, WIDTH, 3)
        assert frame.image.dtype == np.uint8


def test_a_recording_stops_when_asked() -> None:
    last = list(simulate_cards(0.0333, 0, width=40, height=30))
    assert [item.t_end_us - T_START_US for item in last] == [10_000, 15_000, 20_000, 30_000, 33_300]
    assert [type(item) for item in last].count(RgbFrame) == 1


@pytest.mark.parametrize(("seconds", "ranks"), [(0.5, None), (15, None), (60, ["6", "9"]), (3.21, ["JOKER"])])
def test_labels_cover_the_whole_time(seconds: float, ranks: list[str] | None) -> None:
    spans = card_labels(seconds, 7, ranks)
    assert spans[0][0] == T_START_US
    assert spans[-1][1] == T_START_US + round(seconds * 1e6)
    assert all(before[1] == after[0] and before[2] != after[2] for before, after in pairwise(spans))
    assert all(start < end for start, end, _ in spans)
    assert {label for _, _, label in spans} <= {NO_CARD, *(ranks or LABELS)}


def test_every_rank_comes_up_before_any_comes_up_again() -> None:
    shown = [label for _, _, label in card_labels(120, 5) if label != NO_CARD]
    assert len(shown) > 14
    assert sorted(shown[:14]) == sorted(RANKS)


def test_a_longer_recording_begins_as_a_shorter_one() -> None:
    short, long = card_labels(10, 3), card_labels(20, 3)
    assert long[: len(short) - 1] == short[:-1]


def test_labels_say_what_the_picture_shows() -> None:
    seconds = (next(islice(plays(1, T_START_US), 2, None)).end_us - T_START_US) / 1e6
    stage, _ = card_stage(seconds, 1, None)
    table = stage.render(T_START_US)
    for start_us, end_us, label in card_labels(seconds, 1):
        changed = np.abs(stage.render((start_us + end_us) // 2) - table).max(axis=2) > 0.1
        assert changed.mean() == pytest.approx(0 if label == NO_CARD else 0.13, abs=0.03)


@pytest.mark.parametrize("seed", range(10))
def test_cards_come_from_out_of_view_and_go_there(seed: int) -> None:
    play = next(plays(seed, T_START_US))
    stage, (card, *_) = card_stage(5, seed, None)
    table = stage.render(T_START_US)
    for t_us in (play.start_us, play.end_us - 1):
        assert np.allclose(stage.render(t_us), table, atol=1e-3)
        assert stage.visible(card, t_us) == 0


def test_no_two_cards_look_the_same() -> None:
    faces = {(rank, suit): draw_face(rank, suit) for rank in RANKS for suit in ("spades", "hearts")}
    codes = {card: face.tobytes() for card, face in faces.items()}
    assert len(set(codes.values())) == len(codes)
    assert all(face.shape == draw_face("A", "clubs").shape for face in faces.values())


def test_six_and_nine_differ_either_way_up() -> None:
    six, nine = draw_face("6", "spades"), draw_face("9", "spades")
    for turned in (nine, nine[::-1, ::-1]):
        assert (np.abs(six - turned).max(axis=2) > 0.3).mean() > 0.02


@pytest.mark.parametrize("ranks", [["11"], ["A", "no card"], []])
def test_ranks_that_no_deck_has_are_named(ranks: list[str]) -> None:
    with pytest.raises(ValueError, match="ranks must be some of A, 2"):
        simulate_cards(1, 0, ranks=ranks)


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_a_recording_without_length_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=str(seconds)):
        simulate_cards(seconds, 0)
