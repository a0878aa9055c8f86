"""Recognising streams of samples.

    recognizer = load_recognizer("demo")
    session = recognizer.open(stride=2)
    prediction = session.push(sample)          # None until the window of T samples is full

Sessions plan (velora/session.py); the recogniser encodes and fuses what all sessions of a step ask for, in one batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from velora.config import VELoRAConfig
from velora.errors import ModelError, NotFiniteError
from velora.model import VELoRA
from velora.prediction import Prediction, top_labels
from velora.preprocess import difference, normalize, resize
from velora.session import DIFF, EVENT, RGB, Frame, Job, Plan, Session

if TYPE_CHECKING:
    from streams.items import Sample


@dataclass(frozen=True, eq=False)
class Recognizer:
    """A model on a device, shared by any number of sessions and threads."""

    name: str
    model: VELoRA
    random_parts: tuple[str, ...] = ()  # of "backbone", "adapters", "head": what has never been trained
    # One step at a time: two pools of compute threads would slow each other.
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.config.attend_over == "batch":
            raise ModelError(
                f"{self.name}: attend_over is batch, where a label depends on what else is in its batch; "
                "set it to batch_of_one or tokens in config.json"
            )

    @property
    def config(self) -> VELoRAConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.tower.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.tower.dtype

    def digest(self) -> str:
        """Sixteen digits that are equal for equal models: config, adapters and backbone, on whatever device."""
        encoders = self.model.encoders
        digest = hashlib.sha256(self.config.to_json().encode())
        for tower in (encoders.tower, *(encoders.tower_of(stream) for stream in encoders.others)):
            digest.update(tower.digest().encode())
        state = {**encoders.adapters.state_dict(), **self.model.fuser.state_dict()}
        for name in sorted(state):  # as bfloat16: equal in whatever dtype it was loaded
            stored = state[name].detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy()
            digest.update(name.encode() + stored.tobytes())
        return digest.hexdigest()[:16]

    def open(self, *, stride: int = 1, hop: int = 1) -> Session:
        """A session for one stream: windows of samples `stride` apart, a label every `hop` samples."""
        return Session(self, stride, hop)

    def step(self, pairs: Sequence[tuple[Session, Sample]]) -> list[Prediction | None]:
        """Push samples to their sessions, with one batch of encodings and one of fusions for all of them.

        A session may appear several times, its samples in order. Raises ValueError for a sample whose images are not
        uint8 [H, W, 3], before any session has changed, and NotFiniteError, a ModelError, where the model's output is
        not finite: it has the predictions of the other sessions, whose windows stay.
        """
        with contextlib.ExitStack() as held:
            for session in sorted({session for session, _ in pairs}, key=id):  # always in one order: no deadlock
                held.enter_context(session.lock)
            if any(session.recognizer is not self for session, _ in pairs):
                raise ValueError("a session can only be used with the recogniser that it was opened by or swapped to")
            return self._step(pairs) if pairs else []

    def _step(self, pairs: Sequence[tuple[Session, Sample]]) -> list[Prediction | None]:
        with self._lock, torch.inference_mode():
            began = time.perf_counter()
            images = self._images([sample for _, sample in pairs])
            resize_ms = (time.perf_counter() - began) * 1e3
            plans = [session.admit(sample, own) for (session, sample), own in zip(pairs, images, strict=True)]
            encode_ms = resize_ms + self._timed(lambda: self._encode(plans))
            logits: list[Tensor] = []
            fuse_ms = self._timed(lambda: logits.extend(self._fuse(plans)))
        rows = iter(logits)
        due = {k: next(rows) for k, plan in enumerate(plans) if plan.window}
        failed = [k for k, row in due.items() if not torch.isfinite(row).all()]
        times = {"encode": encode_ms, "fuse": fuse_ms}
        predictions = [
            self._prediction(plan.window, sample, due[k], times) if plan.window and k not in failed else None
            for k, (plan, (_, sample)) in enumerate(zip(plans, pairs, strict=True))
        ]
        if failed:
            for k in failed:
                pairs[k][0].clear()
            text = f"{self.name}: the model's output is not finite: try --dtype fp32, or another checkpoint"
            raise NotFiniteError(text, predictions, failed)
        return predictions

    def _images(self, samples: Sequence[Sample]) -> list[Tensor]:
        """RGB and event image of each sample, uint8 [2, 3, S, S] on the device."""
        flat = [image for sample in samples for image in (sample.rgb, sample.event_image)]
        resized = resize(flat, self.model.tower.backbone.image_size).to(self.device)
        return [own.clone() for own in torch.split(resized, 2)]  # a view would keep the whole batch alive

    def _timed(self, work: Callable[[], object]) -> float:
        """Milliseconds that some work takes, the device's share included."""
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - start) * 1e3

    def _encode(self, plans: Sequence[Plan]) -> None:
        """Encode what the plans ask for, each image once, and leave it in their frames."""
        jobs = list({(job.frame, job.stream): job for plan in plans for job in plan.jobs}.values())
        if not jobs:
            return
        frames = list(dict.fromkeys(f for job in jobs for f in (job.frame, job.before) if f))
        normal = normalize(torch.stack([f.images for f in frames]), self.config.mean, self.config.std)
        by_frame = dict(zip(frames, normal, strict=True))  # [2, 3, S, S] each
        images = torch.stack([_image(job, by_frame) for job in jobs])
        streams = torch.tensor([job.stream for job in jobs], device=self.device)
        for job, code in zip(jobs, self.model.encode(images, streams), strict=True):
            job.frame.codes[job.stream] = code.clone()  # a view would keep the whole batch alive

    def _fuse(self, plans: Sequence[Plan]) -> Tensor:
        """Logits float32 [windows, C] of the windows that are due, on the CPU."""
        windows = [plan.window for plan in plans if plan.window]
        if not windows:
            return torch.empty(0, len(self.config.labels))
        rgb, event = (_pooled(windows, stream) for stream in (RGB, EVENT))
        motion = _pooled([window[1:] for window in windows], DIFF) if "diff" in self.config.streams else None
        return self.model.fuse(rgb, event, motion).float().cpu()

    def _prediction(
        self, window: Sequence[Frame], sample: Sample, logits: Tensor, times: dict[str, float]
    ) -> Prediction:
        below = (logits - logits.max()) / self.config.temperature  # divided first, large ones would overflow
        probabilities = torch.softmax(below, dim=0).numpy().astype(np.float32)
        probabilities.setflags(write=False)
        top = top_labels(probabilities, self.config.labels)
        return Prediction(
            t_start_us=window[0].t_start_us,
            t_end_us=window[-1].t_end_us,
            index=window[-1].index,
            label=top[0][0],
            confidence=top[0][1],
            topk=top,
            probabilities=probabilities,
            latency_ms={"decode": sample.decode_ms, "render": sample.render_ms, **times},
            model=self.name,
            unsure=top[0][1] < self.config.unsure_below or all(frame.blank for frame in window),
        )


def _image(job: Job, normal: dict[Frame, Tensor]) -> Tensor:
    """The image [3, S, S] that a job encodes."""
    if job.before is None or job.stream != DIFF:
        return normal[job.frame][job.stream]
    pair = torch.stack([normal[job.before], normal[job.frame]]).unsqueeze(0)  # [1, T = 2, modality, 3, S, S]
    return difference(pair[:, :, 0], pair[:, :, 1])[0, 0]


def _pooled(windows: Sequence[Sequence[Frame]], stream: int) -> Tensor:
    """Means over time of encodings, one a window; afresh at every step, so that no rounding adds up."""
    return torch.stack([_mean([frame.codes[stream] for frame in window]) for window in windows])


def _mean(codes: Sequence[Tensor]) -> Tensor:
    """As `pool`, without a copy of all codes."""
    total = codes[0].to(torch.promote_types(codes[0].dtype, torch.float32), copy=True)
    for code in codes[1:]:
        total += code
    return total.div_(len(codes))
