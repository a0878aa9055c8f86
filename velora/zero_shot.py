"""Preset "zero-shot": CLIP as it is, without any training: images against the user's own words.

    encode     CLIP's image features, normalised to length 1; an image of one colour counts as missing      [n, o + 1]
    pool       mean over time of the images that are there
    fuse       logit scale * (features . text features of each label), mean of RGB and events                   [B, C]

The words are put into prompts, other ones for RGB images than for event images; the text features are the mean over the
prompts, as Radford et al. (arXiv 2103.00020) do it. For one RGB image alone the result is CLIP's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velora.adapter import Route
from velora.backbones import backbone
from velora.config import VELoRAConfig
from velora.encoders import Encoders
from velora.errors import ModelError
from velora.vit import Tower

PROMPTS = {
    "rgb": ("a photo of {}.", "a video frame of {}.", "a photo of a person, {}.", "{}."),
    "event": (
        "an image from an event camera of {}.",
        "a drawing of the moving edges of {}.",
        "a red and blue sketch of {} on white.",
        "{}.",
    ),
}
_BATCH = 64  # prompts
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's images


class ZeroShotFusion(nn.Module):
    """Text features of the labels, and the stages of this preset."""

    def __init__(self, config: VELoRAConfig) -> None:
        super().__init__()
        size = backbone(config.backbone).output_dim
        self.text = nn.Buffer(torch.zeros(len(PROMPTS), len(config.labels), size))  # of length 1
        self.scale = nn.Buffer(torch.zeros(()))  # CLIP's: of logits

    def encode(self, tower: Tower, images: Tensor, route: Route | None) -> Tensor:
        """Normalised images [n, 3, H, W] to features of length 1 and a one, or to zeros; [n, o + 1]."""
        features: Tensor = tower(images)
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        there = (images != images[:, :, :1, :1]).flatten(1).any(dim=1, keepdim=True)
        codes = torch.cat([F.normalize(features, dim=1), features.new_ones(len(features), 1)], dim=1)
        return codes * there

    def fuse(self, encoders: Encoders, rgb: Tensor, event: Tensor, diff: Tensor | None) -> Tensor:
        """Encodings pooled over time [B, o + 1] to logits [B, C]; a modality without any image has no say."""
        pooled = torch.stack([rgb, event]).to(self.text.dtype)  # [2, B, o + 1]
        there = (pooled[..., -1:] > 0).to(pooled.dtype)  # [2, B, 1]
        logits = self.scale * F.normalize(pooled[..., :-1], dim=-1) @ self.text.mT  # [2, B, C]
        return (logits * there).sum(dim=0) / there.sum(dim=0).clamp(min=1)


def text_features(
    name: str, labels: Sequence[str], state: Mapping[str, Tensor], *, prompts: Mapping[str, Sequence[str]] = PROMPTS
) -> dict[str, Tensor]:
    """The fuser's tensors for labels: "text" float32 [2, C, o] and "scale"; `state` is a whole CLIP's state dict.

    open_clip's text tower is built for this and let go. Raises ModelError for a backbone with another kind.
    """
    clip = _text_tower(name, state)
    with torch.inference_mode():
        text = torch.stack([_features(name, clip, labels, own) for own in prompts.values()])
        return {"text": text.clone(), "scale": clip.get_parameter("logit_scale").exp()}


def _text_tower(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """open_clip's model without its vision tower."""
    import open_clip

    config = open_clip.get_model_config(name) or {}
    if "hf_model_name" in config.get("text_cfg", {"hf_model_name": None}) or config.get("custom_text"):
        raise ModelError(f"{name} has no text tower of CLIP's own kind: name your labels with another --model")
    clip: nn.Module = open_clip.CLIP(**config).eval()
    del clip.visual
    text = {key: tensor for key, tensor in state.items() if not key.startswith("visual.")}
    try:
        missing = clip.load_state_dict(text, strict=False).missing_keys
    except RuntimeError as error:
        missing = [" ".join(str(error).split("\n\t")[1:2]).strip()]
    if missing:
        raise ModelError(f"these weights hold another text tower than {name}'s ({missing[0]}): use others")
    return clip


def _features(name: str, clip: nn.Module, labels: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """Of each label the mean over its prompts, of length 1; [C, o]."""
    import open_clip

    texts = [prompt.format(label) for label in labels for prompt in prompts]
    tokens: Tensor = open_clip.get_tokenizer(name)(texts)
    features = torch.cat([clip.encode_text(part, normalize=True) for part in torch.split(tokens, _BATCH)])  # type: ignore[operator]
    return F.normalize(features.view(len(labels), len(prompts), -1).mean(dim=1), dim=1)
