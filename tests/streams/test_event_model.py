"""The event model: when a pixel fires, what its noise is like, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest

from streams.items import EVENT_DTYPE, Events
from streams.simulation import EventModel, Sensor
from streams.simulation.event_model import DARK_INTENSITY, log_intensity


def flat(value: float, height: int = 2, width: int = 3) -> np.ndarray:
    return np.full((height, width), value, np.float32)


def ramp(model: EventModel, levels: list[float], step_us: int = 1000) -> Events:
    """The events of a scene that takes each log level in turn, ``step_us`` apart."""
    batches = [model.push(k * step_us, flat(np.exp(level))) for k, level in enumerate(levels)]
    return np.concatenate(batches)


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


def test_crossings_of_grey_levels_at_the_very_end_belong_to_the_interval_before() -> None:
    """Where many of a pixel's crossings add up, the last one may be rounded beyond the interval."""
    model, rng = EventModel(100, 100, Sensor(threshold_on=0.15, threshold_off=0.15)), np.random.default_rng(0)
    for k in range(6):
        grey = rng.integers(0, 256, (100, 100)).astype(np.float32) / 255
        events = model.push(33_333 * k, grey)
        assert k == 0 or (len(events) and events["t"].max() < 33_333 * k and events["t"].min() >= 33_333 * (k - 1))


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


def test_noise_gives_way_to_all_events_of_its_pixel_that_follow_too_soon() -> None:
    model = EventModel(40, 50, Sensor(noise_hz=300.0, refractory_us=1500, threshold_on=0.3, threshold_off=0.3))
    lights = [0.1, 0.2] * 20
    events = np.concatenate([model.push(5_000 * k, np.full((40, 50), x, np.float32)) for k, x in enumerate(lights)])
    order = np.lexsort((events["t"], events["x"], events["y"]))
    same = (np.diff(events["x"][order]) == 0) & (np.diff(events["y"][order]) == 0)
    assert same.sum() > 10_000 and np.diff(events["t"][order])[same].min() >= 1500


def test_noise_is_as_frequent_before_the_events_of_a_pixel_as_after_them() -> None:
    lights = [0.1, 0.2] * 10
    counts = []
    for noise_hz in (0.0, 20.0):
        model = EventModel(50, 40, Sensor(noise_hz=noise_hz))
        counts.append(sum(len(model.push(33_000 * k, np.full((50, 40), x, np.float32))) for k, x in enumerate(lights)))
    expected = 20.0 * 0.033 * 2000 * sum(1 - 0.75 * light for light in lights[1:])
    assert counts[0] > 19 * 2000 and counts[1] - counts[0] == pytest.approx(expected, rel=0.05)


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
