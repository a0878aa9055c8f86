"""The simulated camera: its frames are the light of their exposures, which follow the lamp, and its noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from streams.items import EventPacket, RgbFrame
from streams.simulation import EventModel, simulate_cards
from streams.simulation.camera import Camera, decode_srgb, encode_srgb, record
from streams.simulation.cards import T_START_US

SEED, WIDTH, HEIGHT = 4, 160, 120


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
