"""The event model, the camera and the card scene: what a simulated recording promises."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from streams.items import EVENT_DTYPE, EventPacket, Events, RgbFrame
from streams.simulation import LABELS, NO_CARD, EventModel, Sensor, card_labels, simulate_cards
from streams.simulation.camera import PACKET_US, Camera, decode_srgb, encode_srgb, record
from streams.simulation.cards import T_START_US, card_stage
from streams.simulation.deck import RANKS, draw_face
from streams.simulation.event_model import DARK_INTENSITY, log_intensity
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


def flat(value: float, height: int = 2, width: int = 3) -> np.ndarray:
    return np.full((height, width), value, np.float32)


def ramp(model: EventModel, levels: list[float], step_us: int = 1000) -> Events:
    """The events of a scene that takes each log level in turn, ``step_us`` apart."""
    batches = [model.push(k * step_us, flat(np.exp(level))) for k, level in enumerate(levels)]
    return np.concatenate(batches)


# --- the event model --------------------------------------------------------------------------------------------------


def test_the_first_render_has_no_events() -> None:
    assert len(EventModel(2, 3).push(0, flat(0.5))) == 0


def test_a_still_scene_has_no_events() -> None:
    rng = np.random.default_rng(0)
    scene = rng.random((20, 30), np.float32)
    model = EventModel(20, 30, Sensor(threshold_on=0.01, threshold_off=0.01, threshold_sigma=0.3))
    assert sum(len(model.push(t_us, scene)) for t_us in range(0, 5000, 100)) == 0


@pytest.mark.parametrize(("first", "last"), [(-2.0, -0.5), (-0.5, -2.0), (-2.0, -1.8), (-1.0, -0.65), (-3.0, -0.05)])
def test_one_event_for_each_threshold_crossed_at_the_interpolated_time(first: float, last: float) -> None:
    events = ramp(EventModel(2, 3, Sensor(threshold_on=0.3, threshold_off=0.3)), [first, last])
    crossed = int(abs(last - first) / 0.3)
    assert len(events) == 6 * crossed
    assert np.all(events["p"] == (last > first))
    expected = np.arange(1, crossed + 1) * 0.3 / abs(last - first) * 1000
    assert events["t"].reshape(crossed, 6) == pytest.approx(np.repeat(expected[:, None], 6, axis=1), abs=1.01)


def test_on_and_off_have_thresholds_of_their_own() -> None:
    model = EventModel(2, 3, Sensor(threshold_on=0.2, threshold_off=0.5))
    events = ramp(model, [-2.0, -0.95, -2.0])
    assert (events["p"].sum(), (~events["p"]).sum()) == (6 * 5, 6 * 2)


def test_what_is_left_of_a_change_counts_towards_the_next_event() -> None:
    at_once = ramp(EventModel(2, 3), [-2.0, -0.95])
    in_steps = ramp(EventModel(2, 3), np.linspace(-2.0, -0.95, 11).tolist(), 100)
    assert in_steps["t"] == pytest.approx(at_once["t"], abs=1.01)
    assert np.array_equal(in_steps[["x", "y", "p"]], at_once[["x", "y", "p"]])


def test_events_are_sorted_and_belong_to_the_interval_between_the_renders() -> None:
    rng = np.random.default_rng(1)
    model = EventModel(15, 25, Sensor(threshold_on=0.1, threshold_off=0.1))
    for t_us in range(0, 1000, 10):
        events = model.push(t_us, rng.random((15, 25), np.float32))
        assert events.dtype == EVENT_DTYPE
        assert np.all(np.diff(events["t"]) >= 0)
        assert np.all((events["t"] >= t_us - 10) & (events["t"] < t_us))
        assert np.all((events["x"] < 25) & (events["y"] < 15))


def test_a_crossing_at_the_very_end_belongs_to_the_interval_before() -> None:
    model = EventModel(1, 1, Sensor(threshold_on=0.25, threshold_off=0.25))
    model.push(0, flat(DARK_INTENSITY, 1, 1))
    events = model.push(100, flat(DARK_INTENSITY * np.exp(0.25) * 1.000001, 1, 1))
    assert events["t"].tolist() == [99]


def test_a_pixel_is_silent_during_its_refractory_period() -> None:
    rng = np.random.default_rng(2)
    model = EventModel(4, 4, Sensor(threshold_on=0.1, threshold_off=0.1, refractory_us=350))
    events = np.concatenate([model.push(t_us, rng.random((4, 4), np.float32)) for t_us in range(0, 50_000, 1000)])
    for pixel in range(16):
        times = events["t"][events["y"] * 4 + events["x"] == pixel]
        assert len(times) > 50
        assert np.diff(times).min() >= 350


def still(model: EventModel, light: float, seconds: float, size: tuple[int, int] = (50, 40)) -> Events:
    """What a sensor reports of a scene in which nothing happens, rendered every 10 ms."""
    scene = flat(light, *size)
    return np.concatenate([model.push(t_us, scene) for t_us in range(0, round(seconds * 1e6) + 1, 10_000)])


def test_a_leak_fires_on_events_at_its_rate_in_every_pixel() -> None:
    events = still(EventModel(50, 40, Sensor(leak_hz=2.0, threshold_sigma=0.03)), 0.5, 4.0)
    assert events["p"].all()
    counts = np.bincount(events["y"] * 40 + events["x"], minlength=2000)
    assert counts.mean() == pytest.approx(8, rel=0.02) and counts.min() >= 7 and counts.max() <= 9
    assert np.diff(np.histogram(events["t"], 8)[0]).std() < 80  # not all at once


def test_noise_comes_at_its_rate_in_the_dark_and_at_a_quarter_in_the_light() -> None:
    dark, bright = (still(EventModel(50, 40, Sensor(noise_hz=4.0)), light, 5.0) for light in (0.0, 1.0))
    assert len(dark) / (2000 * 5) == pytest.approx(4, rel=0.05)
    assert len(bright) / (2000 * 5) == pytest.approx(1, rel=0.08)
    assert dark["p"].mean() == pytest.approx(0.5, abs=0.02)
    intervals = np.diff(np.sort(dark["t"]))
    assert intervals.std() == pytest.approx(intervals.mean(), rel=0.1)  # as in a Poisson process


def test_noisy_pixels_stay_noisy() -> None:
    events = still(EventModel(50, 40, Sensor(noise_hz=4.0, noise_decades=0.4)), 0.0, 5.0)
    halves = [np.bincount((e["y"] * 40 + e["x"]), minlength=2000) for e in np.array_split(events, 2)]
    assert np.corrcoef(*halves)[0, 1] > 0.5


def test_noise_respects_the_refractory_period_and_the_interval() -> None:
    model = EventModel(2, 3, Sensor(noise_hz=400.0, refractory_us=1500))
    batches = [model.push(t_us, flat(0.0)) for t_us in range(0, 400_000, 5_000)]
    for i, batch in enumerate(batches):
        assert np.all((batch["t"] >= 5_000 * (i - 1)) & (batch["t"] < 5_000 * i)) and np.all(np.diff(batch["t"]) >= 0)
    events = np.concatenate(batches)
    for pixel in range(6):
        assert np.diff(np.sort(events["t"][events["y"] * 3 + events["x"] == pixel])).min() >= 1500


def test_the_photoreceptor_follows_slowly_and_more_slowly_in_the_dark() -> None:
    def last_event_us(light: float) -> int:
        model = EventModel(2, 3, Sensor(cutoff_hz=200.0, threshold_on=0.1, threshold_off=0.1))
        model.push(0, flat(light))
        events = np.concatenate([model.push(t_us, flat(light * 2)) for t_us in range(100, 100_000, 100)])
        assert len(events) == 6 * 6  # ln 2 / 0.1
        return int(events["t"].max())

    instant = EventModel(2, 3, Sensor(threshold_on=0.1, threshold_off=0.1))
    instant.push(0, flat(0.1))
    assert instant.push(100, flat(0.2))["t"].max() < 100 < last_event_us(0.45) < last_event_us(0.1) / 3


def test_the_bandwidth_does_not_depend_on_how_often_is_rendered() -> None:
    def events(step_us: int) -> Events:
        model = EventModel(2, 3, Sensor(cutoff_hz=100.0, threshold_on=0.1, threshold_off=0.1))
        model.push(0, flat(0.2))
        return np.concatenate([model.push(t_us, flat(0.8)) for t_us in range(step_us, 20_001, step_us)])

    fine, coarse = events(50), events(500)
    assert len(fine) == len(coarse)
    assert np.abs(fine["t"] - coarse["t"]).max() < 300


def test_pixels_differ_by_their_seed() -> None:
    def events(seed: int) -> Events:
        return ramp(EventModel(2, 3, Sensor(threshold_sigma=0.05), seed=seed), [-2.0, -0.95])

    assert np.array_equal(events(1), events(1))
    assert not np.array_equal(events(1)["t"], events(2)["t"])


def test_brightness_is_logarithmic_in_light_and_linear_in_the_dark() -> None:
    light = np.array([[0.5, 0.25, 0.0, DARK_INTENSITY / 2, DARK_INTENSITY]], np.float32)
    level = log_intensity(light)[0]
    assert level[0] - level[1] == pytest.approx(np.log(2))
    assert level[2:] == pytest.approx([-1, -0.5, 0], abs=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_bright_bar_switches_on_what_it_reaches_and_off_what_it_leaves(direction: int) -> None:
    model, start = EventModel(4, 40), 20
    batches = []
    for step in range(4):
        scene = flat(0.1, 4, 40)
        left = start + direction * step
        scene[:, left : left + 5] = 0.8
        batches.append(model.push(1000 * step, scene))
    events = np.concatenate(batches)
    ahead = (events["x"].astype(int) - (start + 2)) * direction > 2  # of the middle of the bar at first
    assert np.array_equal(events["p"], ahead)
    assert ahead.sum() == (~ahead).sum() > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"threshold_on": 0.0}, "thresholds"),
        ({"threshold_off": -1.0}, "thresholds"),
        ({"refractory_us": -1}, "refractory_us must not be negative, got -1"),
        ({"threshold_sigma": -0.1}, "threshold_sigma must not be negative, got -0.1"),
        ({"leak_hz": float("nan")}, "leak_hz must not be negative, got nan"),
        ({"cutoff_hz": float("inf")}, "cutoff_hz must not be negative, got inf"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Sensor(**arguments)  # type: ignore[arg-type]


def test_bad_renders_are_named() -> None:
    model = EventModel(2, 3)
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        model.push(0, flat(0.5, 3, 2))
    model.push(10, flat(0.5))
    with pytest.raises(ValueError, match="10 us came after 10 us"):
        model.push(10, flat(0.5))


# --- the camera -------------------------------------------------------------------------------------------------------


class Fade:
    """Light that grows evenly from 0.2 to 0.8 over 0.1 s."""

    def render(self, t_us: int) -> np.ndarray:
        return np.full((2, 3, 3), 0.2 + 0.6 * t_us / 100_000, np.float32)

    def render_times(self, t_start_us: int, t_end_us: int) -> np.ndarray:
        return np.array([t_start_us, t_end_us])


def test_a_frame_is_the_mean_light_of_its_exposure() -> None:
    frames = [item for item in record(Fade(), EventModel(2, 3), 0, 100_000) if isinstance(item, RgbFrame)]
    assert len(frames) == 3
    for frame in frames:
        middle = 0.2 + 0.6 * (frame.t_start_us + frame.t_end_us) / 200_000
        assert np.all(np.abs(frame.image.astype(int) - int(encode_srgb(np.full((1, 1, 3), middle))[0, 0, 0])) <= 1)


def test_screen_colours_survive_the_way_to_light_and_back() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.abs(encode_srgb(decode_srgb(codes)).astype(int) - codes).max() <= 1


# --- recordings of cards ----------------------------------------------------------------------------------------------


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


# --- lamps and frames -------------------------------------------------------------------------------------------------


def under(lamp: float | None, **options: bool) -> tuple[list[RgbFrame], int]:
    """Frames, and how many events there are, of a second of cards."""
    items = list(simulate_cards(1.5, SEED, width=WIDTH, height=HEIGHT, lamp=lamp, **options))
    frames = [item for item in items if isinstance(item, RgbFrame)]
    return frames, sum(len(item.events) for item in items if isinstance(item, EventPacket))


def exposure_us(frame: RgbFrame) -> int:
    return frame.t_end_us - frame.t_start_us


def test_exposures_follow_the_light() -> None:
    frames = {lamp: under(lamp)[0] for lamp in (1.0, 0.3, 0.02)}
    settled = {lamp: exposure_us(own[-1]) for lamp, own in frames.items()}
    assert settled[1.0] < settled[0.3] / 2 < settled[0.02] == Camera().longest_us
    assert abs(float(frames[1.0][-1].image.mean()) - float(frames[0.3][-1].image.mean())) < 25
    assert frames[0.02][-1].image.mean() < frames[0.3][-1].image.mean() / 2  # no exposure is long enough
    for own in frames.values():
        assert all(0.49 < exposure_us(b) / exposure_us(a) < 2.01 for a, b in pairwise(own))
        assert [f.t_start_us for f in own] == [T_START_US + k * Camera().frame_period_us for k in range(len(own))]


def test_noise_is_that_of_counted_electrons() -> None:
    class Grey:
        def render(self, t_us: int) -> np.ndarray:
            return np.full((200, 200, 3), 0.25, np.float32)

        def render_times(self, t_start_us: int, t_end_us: int) -> np.ndarray:
            return np.array([], np.int64)

    camera = Camera(well=1000.0, read_noise=5.0)
    items = record(Grey(), EventModel(200, 200), 0, 80_000, camera)
    first, second = (decode_srgb(item.image) for item in items if isinstance(item, RgbFrame))
    assert first.mean() == pytest.approx(0.25, rel=0.01)
    assert first.std() == pytest.approx((0.25 / 1000 + 0.005**2) ** 0.5, rel=0.1)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_grey_frames_and_a_dark_rooms_events() -> None:
    frames, bright = under(1.0, colour=False)
    assert {frame.image.shape for frame in frames} == {(HEIGHT, WIDTH)}
    _, dark = under(0.01)
    assert 0 < dark < bright / 2


@pytest.mark.parametrize("wrong", [{"exposure_us": 40_000}, {"shortest_us": 0}, {"well": -1.0}])
def test_impossible_cameras_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Camera(**wrong)  # type: ignore[arg-type]
