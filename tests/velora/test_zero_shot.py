"""Zero-shot: the user's own words, with open_clip's own probabilities, streamed as everything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streams.items import Sample
from tests.conftest import SMALL_CLIP, SmallClip
from tests.velora.conftest import make_checkpoint, make_config, make_sample, normalized, tiny_backbone
from velora import ModelError, Recognizer, load_recognizer
from velora.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, trained_tensors
from velora.zero_shot import PROMPTS

LABELS = ("waving", "a cup of tea", "the ace of spades")


def load(file: Path, **options: object) -> Recognizer:
    return load_recognizer(
        "zero-shot", labels=LABELS, backbone=SMALL_CLIP, weights=str(file), device="cpu", dtype="fp32", **options
    )


@torch.inference_mode()
def by_open_clip(model: torch.nn.Module, image: Tensor, prompts: tuple[str, ...]) -> Tensor:
    """open_clip's logits [C] of one image [3, H, W]: the words in prompts, their features averaged."""
    tokenize = open_clip.get_tokenizer(SMALL_CLIP)
    text = []
    for label in LABELS:
        feature = model.encode_text(tokenize([p.format(label) for p in prompts]), normalize=True).mean(dim=0)
        text.append(feature / feature.norm())
    return model.logit_scale.exp() * model.encode_image(image[None], normalize=True)[0] @ torch.stack(text).T


def still(sample: Sample, index: int) -> Sample:
    return replace(make_sample(index), rgb=sample.rgb, event_image=sample.event_image)


def label_of(recognizer: Recognizer, sample: Sample) -> np.ndarray:
    session = recognizer.open()
    prediction = [session.push(still(sample, i)) for i in range(recognizer.config.frames)][-1]
    assert prediction
    return prediction.probabilities


def test_equals_open_clips_own_probabilities_for_one_frame(small_clip: SmallClip) -> None:
    model, file = small_clip.model, small_clip.file
    recognizer = load(file)
    sample = replace(make_sample(3), event_image=np.full((26, 34, 3), 255, np.uint8))  # no events
    rgb, _ = normalized(recognizer, [sample])
    expected = by_open_clip(model, rgb[0, 0], PROMPTS["rgb"]).softmax(dim=0)
    np.testing.assert_allclose(label_of(recognizer, sample), expected, atol=1e-5)
    assert expected.max() - expected.min() > 0.05


def test_events_have_prompts_of_their_own_and_half_the_say(small_clip: SmallClip) -> None:
    model, file = small_clip.model, small_clip.file
    recognizer, sample = load(file), make_sample(4)
    rgb, event = normalized(recognizer, [sample])
    logits = by_open_clip(model, rgb[0, 0], PROMPTS["rgb"]) + by_open_clip(model, event[0, 0], PROMPTS["event"])
    np.testing.assert_allclose(label_of(recognizer, sample), (logits / 2).softmax(dim=0), atol=1e-5)
    events_alone = replace(sample, rgb=np.zeros_like(sample.rgb))
    expected = by_open_clip(model, event[0, 0], PROMPTS["event"]).softmax(dim=0)
    np.testing.assert_allclose(label_of(recognizer, events_alone), expected, atol=1e-5)


def test_frames_without_events_do_not_dilute_the_others(small_clip: SmallClip) -> None:
    recognizer, sample = load(small_clip.file), make_sample(4)
    blank = replace(sample, event_image=np.full_like(sample.event_image, 255))
    session = recognizer.open()
    mixed = [session.push(still(sample if i % 2 else blank, i)) for i in range(8)][-1]
    assert mixed
    np.testing.assert_allclose(mixed.probabilities, label_of(recognizer, sample), atol=1e-5)


@pytest.mark.parametrize("canvas", [255, 128, 37])
def test_nothing_to_see_favours_no_label(small_clip: SmallClip, canvas: int) -> None:
    blank = replace(make_sample(0), rgb=np.zeros((9, 9, 3), np.uint8), event_image=np.full((9, 9, 3), canvas, np.uint8))
    np.testing.assert_allclose(label_of(load(small_clip.file), blank), 1 / 3, atol=1e-6)


def test_streams_as_the_whole_window_and_encodes_two_images_a_sample(
    small_clip: SmallClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = load(small_clip.file)
    samples, session, counts = [make_sample(i) for i in range(10)], recognizer.open(), []
    encode = recognizer.model.encode
    monkeypatch.setattr(recognizer.model, "encode", lambda *a: (counts.append(len(a[0])), encode(*a))[1])
    last = [session.push(sample) for sample in samples][-1]
    assert last and counts == [2] * 10
    with torch.inference_mode():
        expected = recognizer.model(*normalized(recognizer, samples[-8:])).softmax(dim=1)[0]
    np.testing.assert_allclose(last.probabilities, expected, atol=1e-5)


def test_the_text_tower_is_let_go(small_clip: SmallClip) -> None:
    names = {name.split(".")[0] for name, _ in load(small_clip.file).model.named_parameters()}
    assert names == {"encoders"}
    assert load(small_clip.file).model.fuser.text.shape == (2, 3, 16)


def test_saved_it_needs_no_text_tower_any_more(small_clip: SmallClip, tmp_path: Path) -> None:
    recognizer = load(small_clip.file)
    save_checkpoint(tmp_path, Checkpoint(recognizer.config, trained_tensors(recognizer.model)), card="")
    assert (tmp_path / "adapter.safetensors").stat().st_size < 2000
    again = load_recognizer(tmp_path, weights=str(small_clip.file), device="cpu", dtype="fp32")
    sample = make_sample(5)
    np.testing.assert_allclose(label_of(again, sample), label_of(recognizer, sample), atol=1e-6)
    assert load_checkpoint(tmp_path).config.labels == LABELS


def test_random_weights_are_told(small_clip: SmallClip) -> None:
    recognizer = load_recognizer("zero-shot", labels=LABELS, backbone=SMALL_CLIP, random_weights=True, device="cpu")
    assert recognizer.random_parts == ("backbone", "text tower")
    assert label_of(recognizer, make_sample(1)).shape == (3,)


def test_what_cannot_be_is_said_in_one_line(small_clip: SmallClip, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="demo's backbone has no text tower"):
        load_recognizer("zero-shot", labels=LABELS, backbone="demo")
    with pytest.raises(ValueError, match="labels are for zero-shot"):
        load_recognizer("zero-shot")
    with pytest.raises(ValueError, match="labels are for zero-shot"):
        load_recognizer("demo", labels=LABELS)
    with pytest.raises(ValueError, match="backbone is for zero-shot: demo has its own"):
        load_recognizer("demo", backbone="ViT-B-32")
    with pytest.raises(ModelError, match="holds no text tower"):
        vision = {n: t.contiguous() for n, t in small_clip.model.state_dict().items() if n.startswith("visual.")}
        save_file(vision, tmp_path / "vision.safetensors")
        load(tmp_path / "vision.safetensors")


def test_another_text_tower_is_named(small_clip: SmallClip, tmp_path: Path) -> None:
    state = {n: t.contiguous() for n, t in small_clip.model.state_dict().items()}
    for name, change in (("token_embedding.weight", torch.zeros(7, 32)), ("ln_final.bias", None)):
        odd = {n: t for n, t in state.items() if n != name} | ({name: change} if change is not None else {})
        save_file(odd, tmp_path / "odd.safetensors")
        with pytest.raises(ModelError, match=f"another text tower than {SMALL_CLIP}'s .*{name}") as caught:
            load(tmp_path / "odd.safetensors")
        assert "\n" not in str(caught.value)


def test_it_is_not_trained() -> None:
    with tiny_backbone(), pytest.raises(ValueError, match="not trained"):
        from velora.checkpoint import build_trainable
        from velora.weights import random_tower

        config = make_config(preset="zero-shot", adapter="none")
        model = build_trainable(make_checkpoint(config), random_tower("demo", torch.Generator()))
        model.with_reconstruction(*torch.rand(2, 1, 1, 3, 32, 32))
