"""One resize for training and live use: PIL's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from velora.preprocess import difference, normalize, resize, resize_floats


def event_like(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), 255, np.uint8)
    rng = np.random.default_rng(0)
    image[rng.integers(0, height, 4000), rng.integers(0, width, 4000)] = (220, 30, 30)
    return image


@pytest.mark.parametrize("size", [(260, 346), (720, 1280), (100, 90), (224, 224), (1, 1)])
def test_resize_is_pils_bilinear(size: tuple[int, int]) -> None:
    image = event_like(*size)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    by_floats = resize_floats(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0), 224)  # as a GPU does it
    for found in (resize([image], 224), by_floats):
        assert np.abs(found[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_resize_takes_images_of_several_sizes() -> None:
    images = [event_like(260, 346), event_like(480, 640)]
    both = resize(images, 224)
    assert both.shape == (2, 3, 224, 224) and both.dtype == torch.uint8
    assert torch.equal(both[1], resize(np.stack(images[1:]), 224)[0])


def test_resize_leaves_its_input_alone() -> None:
    image = event_like(26, 34)
    image.setflags(write=False)
    resize([image], 224)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_resize_refuses_what_is_no_image(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        resize([bad], 224)


def test_normalize() -> None:
    black_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    normal = normalize(black_white, (0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    torch.testing.assert_close(normal[:, :, 0, 0], torch.tensor([[-1.0, -2.0, -3.0], [1.0, 3.0, 7.0]]))


def test_difference_sums_both_modalities() -> None:
    rgb, event = torch.randn(2, 1, 4, 3, 2, 2)
    expected = (rgb[:, 2] - rgb[:, 1]).abs() + (event[:, 2] - event[:, 1]).abs()
    torch.testing.assert_close(difference(rgb, event)[:, 1], expected)


def test_an_image_of_that_size_stays_as_it_is_to_the_last_bit() -> None:
    image = event_like(260, 346)
    once = resize([image], 224)
    pixels = once[0].permute(1, 2, 0).numpy()
    pixels.setflags(write=False)
    assert torch.equal(resize([pixels], 224), once)
    assert torch.equal(resize([np.ascontiguousarray(pixels)], 224), once)
    # which is what interpolating to the same size would give
    floats = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).unsqueeze(0)
    again = torch.nn.functional.interpolate(floats, (224, 224), mode="bilinear", antialias=True, align_corners=False)
    assert torch.equal(again.round().to(torch.uint8), once)
