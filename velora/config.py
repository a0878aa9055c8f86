"""What a model is: the dataclass behind `config.json`, which may come from a stranger and is checked field by field."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from velora.backbones import backbone

FORMAT_VERSION = 1
STREAMS = ("rgb", "event", "diff")  # an image's stream is its position here
MAX_STRIDE = 1000  # a window of 8 then keeps some 7,000 samples
MAX_JSON_CHARS = 4_000_000
MAX_LABELS, _MAX_LABEL_CHARS = 20_000, 200
_MAX_BASES = 1024  # of CLoRA, whose cores are as large as its square
_MAX_REACH = 7 * MAX_STRIDE  # samples of a source that a window reaches over, all of which are kept
_JOINERS = {0x200C: None, 0x200D: None}

#: field: (type, smallest, largest)
_RANGES: dict[str, tuple[type, float, float]] = {
    "rank": (int, 1, 256),
    "pairs": (int, 1, 256),
    "alpha": (int, 1, 4096),
    "dropout": (float, 0.0, 0.9),
    "frames": (int, 1, 256),
    "sample_period_us": (int, 100, 60_000_000),
    "exposure_us": (int, 0, 60_000_000),
    "temperature": (float, 1e-2, 1e2),
    "unsure_below": (float, 0.0, 1.0),
}
PRESETS = ("paper", "released", "zero-shot")
ADAPTERS = ("lora", "clora", "none", "full")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "preset": PRESETS,
    "adapter": ADAPTERS,
    "motion": ("shared", "head", "off"),
    "attend_over": ("batch_of_one", "tokens", "batch"),
    "own_towers": (0, 1, len(STREAMS)),
}


@dataclass(frozen=True)
class VELoRAConfig:
    """Everything that is needed to rebuild a model around its weights. Raises ValueError that names a bad field."""

    labels: tuple[str, ...]  # class names in the order of the logits; names may repeat
    backbone: str  # a name that velora.backbones knows
    pretrained: str = ""  # open_clip's tag of the backbone's weights; empty: the backbone's usual ones
    weights_digest: str = ""  # of the backbone's weights that were used in training; empty: not noted
    preset: str = "paper"  # how the streams are fused
    adapter: str = "lora"  # what is trained of the encoders: low-rank changes, nothing, or all of them
    rank: int = 4  # r
    alpha: int = 8  # LoRA's output is scaled by alpha / r
    pairs: int = 4  # p, CLoRA's shared pairs of bases
    dropout: float = 0.01  # in front of the adapters, in training
    motion: str = "shared"  # preset "paper": what the motion stream reaches; "head": also directly the head
    attend_over: str = "batch_of_one"  # preset "released": what its top blocks attend over
    own_towers: int = 0  # towers that the checkpoint brings: none (the backbone's serves all streams), 1, or 3
    frames: int = 8  # T, samples of a window
    sample_period_us: int = 133_333  # from one sample of a window to the next, as trained
    exposure_us: int = 0  # whose events an event image usually shows, as trained; 0: not known
    rendering: Mapping[str, Any] = field(default_factory=dict)  # fields of streams.render.RenderConfig, as trained
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of the normalisation, RGB order, for images in 0..1
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    temperature: float = 1.0  # divides the logits, for calibrated probabilities
    unsure_below: float = 0.0  # labels of less confidence are not to be relied on
    trained: bool = False  # whether the adapters and the head have been trained

    def __post_init__(self) -> None:
        checked = {
            "labels": check_labels(self.labels),
            "backbone": _backbone(self.backbone),
            "pretrained": _tag(self.pretrained),
            "weights_digest": _digest(self.weights_digest),
            "rendering": _rendering(self.rendering),
            "mean": _triple("mean", self.mean, -10.0),
            "std": _triple("std", self.std, 1e-3),
            "trained": _boolean("trained", self.trained),
        }
        checked |= {name: _number(name, getattr(self, name), *bounds) for name, bounds in _RANGES.items()}
        checked |= {name: _choice(name, getattr(self, name), choices) for name, choices in _CHOICES.items()}
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_switches()
        if self.adapter == "full":
            object.__setattr__(self, "own_towers", len(STREAMS) if self.preset == "released" else 1)

    def _check_switches(self) -> None:
        """Refuse what fits no preset."""
        unfit = {
            "motion is a switch of preset paper": self.motion != "shared" and self.preset != "paper",
            "motion must be shared or off where adapter is none": self.motion == "head" and self.adapter == "none",
            "motion needs frames of 2 or more to reach the head": self.motion == "head" and self.frames == 1,
            "attend_over is a switch of preset released": (
                self.attend_over != "batch_of_one" and self.preset != "released"
            ),
            "adapter must be none for preset zero-shot": self.preset == "zero-shot" and self.adapter != "none",
            "own_towers of 3 are for preset released": self.own_towers == len(STREAMS) and self.preset != "released",
            f"rank times pairs is at most {_MAX_BASES}": self.adapter == "clora"
            and self.rank * self.pairs > _MAX_BASES,
        }
        for message, wrong in unfit.items():
            if wrong:
                raise ValueError(message)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that reach the logits, in the order of `STREAMS`."""
        only_head = self.preset == "paper" and self.adapter == "none"
        still = self.preset == "zero-shot" or self.motion == "off" or self.frames == 1 or only_head
        return STREAMS[:2] if still else STREAMS

    def stride_for(self, period_us: int) -> int:
        """How many samples of a source, which come every `period_us`, lie between two of a window, as trained."""
        longest = min(MAX_STRIDE, _MAX_REACH // max(1, self.frames - 1))
        return min(max(1, round(self.sample_period_us / period_us)), longest)

    def to_json(self) -> str:
        """The text of config.json."""
        return json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> VELoRAConfig:
        """The config in the text of a config.json. Raises ValueError that names the field that is wrong."""
        fields = _parse(text)
        version = fields.pop("format_version", None)
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"format_version is {_show(version)}, but this program reads {FORMAT_VERSION}")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise ValueError(f"unknown field {_show(unknown[0])}")
        if missing := [name for name in ("labels", "backbone") if name not in fields]:
            raise ValueError(f"{missing[0]} is missing")
        return cls(**fields)


def _parse(text: str) -> dict[str, Any]:
    if len(text) > MAX_JSON_CHARS:
        raise ValueError(f"it is longer than {MAX_JSON_CHARS} characters")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_labels(value: Any) -> tuple[str, ...]:
    """Labels as a config takes them. Raises ValueError that says which one is wrong."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MAX_LABELS:
        raise ValueError(f"labels must be a list of 1 to {MAX_LABELS} names, not {_show(value)}")
    return tuple(check_label(label, f"labels[{i}]") for i, label in enumerate(value))


def check_label(label: Any, name: str = "a label") -> str:
    """A label as a config takes it, in Unicode's normal form C: what looks alike is alike. Raises ValueError."""
    if not (isinstance(label, str) and len(label) <= _MAX_LABEL_CHARS and _is_shown(label)):
        raise ValueError(f"{name} must be printable text of at most {_MAX_LABEL_CHARS} characters, not {_show(label)}")
    return unicodedata.normalize("NFC", label)


def _is_shown(label: str) -> bool:
    """Printable, with something to see; joiners, which many scripts are written with, are not printable to Python."""
    return label.translate(_JOINERS).isprintable() and bool(label.translate(_JOINERS).strip())


def _number(name: str, value: Any, kind: type, low: float, high: float) -> int | float:
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = (whole or (kind is float and isinstance(value, float))) and low <= value <= high  # false for NaN
    if not fits:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {what} from {low:g} to {high:g}, not {_show(value)}")
    number: int | float = kind(value)
    return number


def _triple(name: str, value: Any, low: float) -> tuple[float, float, float]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"{name} must be three numbers, not {_show(value)}")
    red, green, blue = (float(_number(f"{name}[{i}]", number, float, low, 10.0)) for i, number in enumerate(value))
    return red, green, blue


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {_show(value)}")
    return value


def _choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if type(value) is not type(choices[0]) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {_show(value)}")
    return value


def _backbone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"backbone must be a name, not {_show(value)}")
    return backbone(value).name


def _tag(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{0,100}", value):
        raise ValueError(f"pretrained must be a tag of open_clip, not {_show(value)}")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"([0-9a-f]{16})?", value):
        raise ValueError(f"weights_digest must be sixteen hexadecimal digits, not {_show(value)}")
    return value


def _rendering(value: Any) -> dict[str, Any]:
    """Names and plain values; what they mean is checked where they are used, by streams.render.RenderConfig."""
    if not isinstance(value, Mapping) or len(value) > 32:
        raise ValueError(f"rendering must be an object of at most 32 fields, not {_show(value)}")
    for name, entry in value.items():
        parts = entry if isinstance(entry, list | tuple) else [entry]
        if not isinstance(name, str) or len(parts) > 16 or not all(map(_is_plain, parts)):
            raise ValueError(f"rendering.{name} must be a number, a short text, or a few of them, not {_show(entry)}")
    return dict(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_LABEL_CHARS
    return value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
