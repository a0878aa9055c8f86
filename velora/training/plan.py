"""How a model is to be trained: the options, checked, and written beside what they gave."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from velora.training.batches import MODALITIES


@dataclass(frozen=True)
class Plan:
    """Options of a training run. Raises ValueError that names one out of range."""

    epochs: float = 20.0  # a part of one is a part of its windows
    batch: int = 8  # windows a step, of one process
    accumulate: int = 1  # batches a step
    rate: float = 1e-3
    weight_decay: float = 1e-4  # as the authors
    warmup: float = 0.05  # of all steps, or of `max_minutes`
    clip: float = 1.0  # norm of the gradient of all that is trained; 0: any
    w_rec: float = 0.1
    sade: float = 0.0
    sade_normalize: bool = False
    crop: float = 1.0
    flip: bool = False
    drop_modality: float = 0.1
    modality: str = "both"  # "rgb", "event": the other one is blank throughout
    patience: int = 5  # validations without a gain that end the run early; 0: never
    validate_every: int = 0  # steps; 0: every epoch
    max_minutes: float = 0.0  # that end the run, the learning rate's course with them; 0: as long as it takes
    core_rate: float = 10.0  # of CLoRA's cores, times `rate`: VELoRA's dW grows eight times as fast at one rate
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs == 0:
            raise ValueError("epochs must be more than 0")
        for name in ("batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be 0 or more, not {value}")
        if self.modality not in MODALITIES:
            raise ValueError(f"modality is one of {', '.join(MODALITIES)}, not {self.modality!r}")
        for name in ("warmup", "drop_modality"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is a share, 0 to 1, not {getattr(self, name)}")
        if not 0.1 <= self.crop <= 1:
            raise ValueError(f"crop is the smallest share of a side that is kept, 0.1 to 1, not {self.crop}")

    def share(self, spent: float) -> float:
        """Of the learning rate, when a share of the run is behind: a straight rise, then a cosine to zero."""
        if spent < self.warmup:
            return spent / self.warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (spent - self.warmup) / max(1e-9, 1 - self.warmup))))
