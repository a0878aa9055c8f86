"""Scenes for training: what is seen of a card, what a hand covers, and that no scene is another."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from streams.items import EventPacket, RgbFrame
from streams.simulation.camera import Light
from streams.simulation.cards import LABELS, NO_CARD, SENSOR, T_START_US, visible_labels
from streams.simulation.deck import RANKS, draw_design, draw_face
from streams.simulation.geometry import area, projection, rectangle
from streams.simulation.scenes import LIGHTS, SECONDS, SPEEDS, draw_hand, scene
from streams.simulation.script import Poses
from streams.simulation.sensor import SENSORS
from streams.simulation.stage import Actor, Stage
from streams.simulation.stills import KINDS, Stills
from streams.simulation.things import draw_table, draw_thing, hold

WIDTH, HEIGHT = SENSOR
TABLE: Light = np.full((HEIGHT, WIDTH, 3), 0.1, np.float32)
END_US = 1_000_000


def held_at(x: float, y: float, label: str | None = "7", **others: float) -> Actor:
    """A card that does not move."""

    def poses(t_us: np.ndarray) -> Poses:
        return np.tile([x, y, 0, 0, 0, 1.0], (len(t_us), 1))

    return Actor(0, END_US, lambda: draw_face("7", "hearts"), poses, label, **others)


def moving(from_x: float, to_x: float) -> Actor:
    def poses(t_us: np.ndarray) -> Poses:
        share = t_us / END_US
        return np.stack([from_x + (to_x - from_x) * share, *np.tile([[0.5], [0], [0], [0], [1.0]], len(t_us))], axis=1)

    return Actor(0, END_US, lambda: draw_face("7", "hearts"), poses, "7")


@pytest.mark.parametrize(("x", "visible"), [(0.5, 1.0), (0.0, 0.5), (1.0, 0.5), (-0.3, 0.0)])
def test_what_is_out_of_the_image_cannot_be_seen(x: float, visible: float) -> None:
    card = held_at(x, 0.5)
    assert Stage([card], TABLE).visible(card, 0) == pytest.approx(visible, abs=0.03)


def test_what_is_above_hides_and_what_is_below_does_not() -> None:
    card, half_over = held_at(0.5, 0.5), held_at(0.5, 0.25, None)  # half a card is a quarter of the image high
    assert Stage([card, half_over], TABLE).visible(card, 0) == pytest.approx(0.5, abs=0.04)
    assert Stage([half_over, card], TABLE).visible(card, 0) == pytest.approx(1.0, abs=0.03)
    assert Stage([card], TABLE).visible(card, END_US) == 0  # it has gone


def test_a_hand_hides_its_part() -> None:
    face = draw_face("7", "hearts")
    for seed in range(10):
        sprite, bare = hold(face, np.random.default_rng(seed))
        assert 0.7 < bare < 1
        assert sprite.shape[2] == 4 and sprite[..., 3].max() <= 1.001
        card = held_at(0.5, 0.5, bare=bare)
        assert Stage([card], TABLE).visible(card, 0) == pytest.approx(bare, abs=0.03)


def test_a_label_holds_while_sixty_per_cent_are_in_view() -> None:
    card = moving(-0.2, 0.5)
    spans = visible_labels(Stage([card], TABLE), [card], 0, END_US)
    assert [label for _, _, label in spans] == [NO_CARD, "7"]
    width = 63 / 88 * 0.5 * HEIGHT / WIDTH  # of the image's width
    shown = (0.2 + (0.6 - 0.5) * width) / 0.7 * END_US  # when 60 % of it are inside
    assert spans[1][0] == pytest.approx(shown, abs=15_000)
    assert spans[0][0] == 0 and spans[1][1] == END_US


def test_renders_follow_motion_by_at_most_a_pixel() -> None:
    hand = draw_hand(np.random.default_rng(0), "fast", 1.0)
    card = Actor(0, END_US, lambda: draw_face("7", "hearts"), lambda t: hand.poses(t / 1e6), "7")
    times = Stage([card], TABLE).render_times(0, END_US)
    corners = np.array([rectangle((63, 88), projection(pose, *SENSOR)) for pose in card.poses(times)])
    seen = ((corners >= 0) & (corners < SENSOR)).all(axis=2)
    assert seen.mean() > 0.5
    assert np.linalg.norm(np.diff(corners, axis=0), axis=2)[seen[1:]].max() < 1.3
    assert times[0] == 0 and times[-1] == END_US


@pytest.mark.parametrize("speed", SPEEDS)
def test_hands_move_as_fast_as_asked(speed: str) -> None:
    low, high = SPEEDS[speed]
    found = []
    for seed in range(30):
        poses = draw_hand(np.random.default_rng(seed), speed, 3.0).poses(np.linspace(0.5, 2.5, 2001))
        found.append(np.linalg.norm(np.diff(poses[:, :2] * SENSOR, axis=0), axis=1).sum() / 2.0)
    assert low * 0.6 < np.median(found) < high * 1.2


def test_a_scene_is_the_same_for_ever_and_in_one_split_alone() -> None:
    first, again = (scene("train", 3) for _ in range(2))
    moment = T_START_US + 700_000
    assert np.array_equal(first.stage.render(moment), again.stage.render(moment)) and first.labels == again.labels
    assert (first.light, first.speed) == (again.light, again.speed)
    others = [scene(split, number) for split, number in (("train", 4), ("val", 3), ("test", 3))]
    assert not any(np.array_equal(first.stage.render(moment), other.stage.render(moment)) for other in others)
    assert len({first.name, *(other.name for other in others)}) == 4


def test_light_and_speed_change_nothing_else() -> None:
    bright, dark = (scene("test", 8, light=light, speed="slow") for light in ("normal", "dark"))
    assert bright.labels == dark.labels
    ratio = bright.stage.render(T_START_US) / dark.stage.render(T_START_US)
    assert ratio.min() == pytest.approx(ratio.max(), rel=1e-3) and ratio.mean() > 10
    assert [label for *_, label in scene("test", 8, light="dark", speed="fast").labels][:1] == [bright.labels[0][2]]


def test_scenes_show_everything() -> None:
    scenes = [scene("train", number) for number in range(60)]
    assert {s.light for s in scenes} == set(LIGHTS) and {s.speed for s in scenes} == set(SPEEDS)
    labels = [span[2] for s in scenes for span in s.labels]
    assert len(set(labels)) > 10 and set(labels) <= set(LABELS)
    assert 0.03 < np.mean([len(s.labels) > 1 for s in scenes]) < 0.35  # comes, goes, or is hidden for a while
    for s in scenes[:20]:
        assert s.labels[0][0] == T_START_US and s.labels[-1][1] == T_START_US + round(SECONDS * 1e6)


def test_what_a_scene_records() -> None:
    items = list(scene("val", 1, light="dark", speed="slow").items())
    frames = [item for item in items if isinstance(item, RgbFrame)]
    packets = [item for item in items if isinstance(item, EventPacket)]
    assert len(frames) >= 44 and all(frame.t_end_us - frame.t_start_us == 30_000 for frame in frames)  # it is dark
    assert packets[0].t_start_us == T_START_US and packets[-1].t_end_us == T_START_US + round(SECONDS * 1e6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("all", 0), "no split 'all': train, val, test"), (("test", 0, "moon"), "no light 'moon': normal, dim, dark")],
)
def test_unknown_names(arguments: tuple[str, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scene(*arguments[:2], light=arguments[2] if len(arguments) > 2 else None)


def test_decks_tables_and_things_differ() -> None:
    rng = np.random.default_rng(1)
    assert len({draw_design(rng) for _ in range(20)}) == 20
    tables = [draw_table(rng, 60, 40) for _ in range(10)]
    assert all(table.shape == (40, 60, 3) and table.min() >= 0 and table.max() <= 1 for table in tables)
    assert len({table.tobytes() for table in tables}) == 10
    things = [draw_thing(rng) for _ in range(40)]
    assert all(thing.ndim == 3 and (thing[..., :3] <= thing[..., 3:] + 1e-4).all() for thing in things)


def test_every_rank_of_every_design_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        design = draw_design(rng)
        faces = [draw_face(rank, "spades", design) for rank in RANKS]
        for i, face in enumerate(faces):
            for other in faces[i + 1 :]:
                assert (np.abs(face - other).max(axis=2) > 0.2).mean() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_stills_of_every_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in ("_CARDS", "_TABLES", "_THINGS"):
        monkeypatch.setattr(f"streams.simulation.stills.{kept}", 4)
    stills = list(islice(Stills(5, {kind: 1.0}), 12))
    assert all(still.image.shape == (HEIGHT, WIDTH, 3) and still.image.dtype == np.uint8 for still in stills)
    for still in stills:
        assert (still.corners is None) == (LABELS[still.label] == NO_CARD)
        assert still.corners is None or area(still.corners) > 0.03 * WIDTH * HEIGHT
    again = list(islice(Stills(5, {kind: 1.0}), 12))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(stills, again, strict=True))
    if kind == "events":
        colours = {tuple(pixel) for still in stills for pixel in np.unique(still.image.reshape(-1, 3), axis=0).tolist()}
        assert colours == {(255, 255, 255), (220, 30, 30), (30, 30, 200)}


def test_sensors_differ_about_the_davis346() -> None:
    sensors = [scene("train", number).sensor for number in range(40)]
    usual = SENSORS["davis346"]
    ratios = [sensor.threshold_on / usual.threshold_on for sensor in sensors]
    assert 0.85 <= min(ratios) < 1 < max(ratios) <= 1.45
    assert all(sensor.threshold_on / sensor.threshold_off == pytest.approx(1) for sensor in sensors)
    assert min(s.refractory_us for s in sensors) >= usual.refractory_us
