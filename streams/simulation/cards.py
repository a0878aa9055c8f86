"""Playing cards, one at a time, turned and moved over a table: a scene with known labels.

``simulate_cards(15, seed=0)`` is a recording, ``card_labels(15, seed=0)`` says what is in it. Contrasts, thresholds and
speeds are chosen so that 15 seconds, compressed, stay below 10 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

import cv2
import numpy as np
from numpy.typing import NDArray

from streams.items import EventPacket, RgbFrame
from streams.simulation.camera import Camera, Light, Times, decode_srgb, record
from streams.simulation.deck import CARD_MM, MARGIN_MM, RANKS, TEXEL_PER_MM, draw_face
from streams.simulation.event_model import EventModel
from streams.simulation.script import CARD_HEIGHT, Play, Poses, plays
from streams.simulation.sensor import SENSORS, Sensor

NO_CARD = "no card"
LABELS = (*RANKS, NO_CARD)
SENSOR = (346, 260)  # width and height of a DAVIS346

T_START_US = 1_000_000
#: Without a lamp: the long refractory period stands in for the limited bandwidth of the pixels.
QUIET_SENSOR = Sensor(threshold_on=0.42, threshold_off=0.42, threshold_sigma=0.015, refractory_us=4_000)

REAL_CAMERA = Camera(auto_exposure=True, well=10_000, read_noise=40)

_SCAN_US = 1_000  # the script is looked at this often
_MOST_MOTION_PX = 1.0  # from render to render
_EYE_MM = 420.0  # from the eye to the card: how strong the perspective is
_TABLE = np.array([[[112, 140, 132]]], np.uint8)  # sRGB


def simulate_cards(
    seconds: float,
    seed: int,
    *,
    ranks: Sequence[str] | None = None,
    width: int = SENSOR[0],
    height: int = SENSOR[1],
    lamp: float | None = None,
    colour: bool = True,
) -> Iterator[EventPacket | RgbFrame]:
    """A recording of cards, in order of end; packets of at most 10 ms, 30 frames a second, the same for a seed.

    Starts at T_START_US. ``ranks`` limits what is played; ValueError for ranks that no deck has. With a ``lamp``, of
    1.0 or darker, the camera has a sensor's noise and chooses its exposures by the light; without, neither.
    """
    scene = CardScene(_script(seconds, seed, ranks), width, height, 1.0 if lamp is None else lamp)
    model = EventModel(height, width, QUIET_SENSOR if lamp is None else SENSORS["davis346"], seed=seed)
    camera = Camera(colour=colour) if lamp is None else replace(REAL_CAMERA, colour=colour)
    return record(scene, model, T_START_US, _end_us(seconds), camera, seed=seed)


def card_labels(seconds: float, seed: int, ranks: Sequence[str] | None = None) -> list[tuple[int, int, str]]:
    """What ``simulate_cards`` with these arguments shows: (start_us, end_us, label), without holes.

    A card counts while its centre is inside the image; all other time is NO_CARD.
    """
    spans, t_us, end_us = list[tuple[int, int, str]](), T_START_US, _end_us(seconds)
    for play in _script(seconds, seed, ranks):
        enters_us, leaves_us = (min(moment, end_us) for moment in _in_view(play))
        spans += [(t_us, enters_us, NO_CARD), (enters_us, leaves_us, play.rank)]
        t_us = leaves_us
    spans.append((t_us, end_us, NO_CARD))
    return [span for span in spans if span[0] < span[1]]


class CardScene:
    """A table and the cards that a script brings over it."""

    def __init__(self, script: Sequence[Play], width: int, height: int, lamp: float = 1.0) -> None:
        self._script = script
        self._lamp = np.float32(lamp)
        self._starts = np.array([play.start_us for play in script], np.int64)
        self._size = (width, height)
        self._table: Light = np.tile(decode_srgb(_TABLE), (height, width, 1))

    def render(self, t_us: int) -> Light:
        """The light at one moment, float32 [H, W, 3]."""
        index = int(np.searchsorted(self._starts, t_us, side="right")) - 1
        if index < 0 or t_us >= self._script[index].end_us:
            return self._table * self._lamp
        play = self._script[index]
        onto = _projection(play.poses(np.array([t_us]))[0], *self._size)
        card = cv2.warpPerspective(draw_face(play.rank, play.suit), onto, self._size, flags=cv2.INTER_LINEAR)
        light: Light = card[..., :3] + (1 - card[..., 3:]) * self._table
        return light * self._lamp

    def render_times(self, t_start_us: int, t_end_us: int) -> Times:
        """Moments between which no corner of a card moves by more than about a pixel."""
        moments = [np.array([t_start_us, t_end_us], np.int64), *(self._steps(play) for play in self._script)]
        times = np.unique(np.concatenate(moments))
        return times[(times >= t_start_us) & (times <= t_end_us)]

    def _steps(self, play: Play) -> Times:
        scan = np.append(np.arange(play.start_us, play.end_us, _SCAN_US), play.end_us)
        corners = np.array([_corners(pose, *self._size) for pose in play.poses(scan)])  # [n, 4, 2]
        moved = np.linalg.norm(np.diff(corners, axis=0), axis=2).max(axis=1)
        travelled = np.append(0, np.cumsum(moved))
        wanted = np.arange(0, travelled[-1], _MOST_MOTION_PX)
        times: Times = np.interp(wanted, travelled, scan).astype(np.int64)
        return times


def _script(seconds: float, seed: int, ranks: Sequence[str] | None) -> list[Play]:
    end_us = _end_us(seconds)
    return list(takewhile(lambda play: play.start_us < end_us, plays(seed, T_START_US, ranks)))


def _end_us(seconds: float) -> int:
    if seconds <= 0:
        raise ValueError(f"a recording lasts longer than 0 s, got {seconds}")
    return T_START_US + round(seconds * 1e6)


def _in_view(play: Play) -> tuple[int, int]:
    scan = np.arange(play.start_us, play.end_us, _SCAN_US)
    centres = play.poses(scan)[:, :2]
    inside = scan[np.all((centres >= 0) & (centres < 1), axis=1)]
    return int(inside[0]), int(inside[-1]) + _SCAN_US


def _projection(pose: Poses, width: int, height: int) -> NDArray[np.float64]:
    """The homography from texels of a face to pixels of the image: a plane turned in space, seen from _EYE_MM away."""
    x, y, turn, tilt_x, tilt_y, size = pose
    axes = _rotation(turn, tilt_x, tilt_y)[:, :2]  # where the card's own x and y point
    pixels_per_mm = size * CARD_HEIGHT * height / CARD_MM[1]
    centre = np.array([x * width, y * height, 1])
    lens = np.column_stack([np.eye(3, 2) * pixels_per_mm, centre / _EYE_MM])
    plane = np.column_stack([lens @ axes, centre])
    # Pixel centres are at whole numbers on both sides.
    origin_mm = [0.5 / TEXEL_PER_MM - MARGIN_MM - side / 2 for side in CARD_MM]
    texels = np.array([[1 / TEXEL_PER_MM, 0, origin_mm[0]], [0, 1 / TEXEL_PER_MM, origin_mm[1]], [0, 0, 1]])
    centres = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    onto: NDArray[np.float64] = centres @ plane @ texels
    return onto


def _rotation(turn: float, tilt_x: float, tilt_y: float) -> NDArray[np.float64]:
    (cz, cx, cy), (sz, sx, sy) = np.cos([turn, tilt_x, tilt_y]), np.sin([turn, tilt_x, tilt_y])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turned: NDArray[np.float64] = about_x @ about_y @ about_z
    return turned


def _corners(pose: Poses, width: int, height: int) -> NDArray[np.float64]:
    """Where the card's corners are in the image: [4, 2] pixels."""
    sides = [(side + 2 * MARGIN_MM) * TEXEL_PER_MM for side in CARD_MM]
    texels = np.array([[0, sides[0], sides[0], 0], [0, 0, sides[1], sides[1]], [1, 1, 1, 1]])
    projected = _projection(pose, width, height) @ texels
    points: NDArray[np.float64] = (projected[:2] / projected[2]).T
    return points
