"""What a checkpoint's config means for the road: rendering and stride."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.model import random_note, render_config, window_stride
from streams import RenderConfig
from velora import ModelError, VELoRAConfig


def recognizer(**fields: Any) -> Any:
    config = VELoRAConfig(labels=("a", "b"), backbone="demo", sample_period_us=133_333, **fields)
    return SimpleNamespace(name="mine", config=config, random_parts=())


def source(period_us: int, frame_size: tuple[int, int] | None = (64, 48)) -> Any:
    return SimpleNamespace(sample_period_us=period_us, frame_size=frame_size)


@pytest.mark.parametrize("period_us, stride", [(33_333, 4), (40_000, 3), (133_333, 1), (500_000, 1), (100, 1_000)])
def test_windows_are_spaced_as_trained_whatever_the_frame_rate(period_us: int, stride: int) -> None:
    assert window_stride(recognizer(), source(period_us)) == stride


def test_without_frames_the_sample_period_is_the_renderings() -> None:
    assert window_stride(recognizer(rendering={"period_us": 133_333}), source(33_333, frame_size=None)) == 1


def test_rendering_is_the_checkpoints() -> None:
    assert render_config(recognizer(rendering={"max_window_us": 5_000})) == RenderConfig(max_window_us=5_000)


@pytest.mark.parametrize("rendering", [{"nonsense": 1}, {"period_us": "x"}, {"style": [1]}, {"tau_us": 1e99}])
def test_an_impossible_rendering_names_the_checkpoint(rendering: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="mine: its config.json"):
        render_config(recognizer(rendering=rendering))


def test_a_trained_model_has_no_note() -> None:
    assert random_note(recognizer()) is None


def test_where_a_source_tells_no_exposures_windows_are_as_long_as_those_trained_on() -> None:
    assert render_config(recognizer(exposure_us=8_000)).window_us == 8_000
    assert render_config(recognizer()).window_us is None
    assert render_config(recognizer(exposure_us=8_000, rendering={"window_us": 5_000})).window_us == 5_000
