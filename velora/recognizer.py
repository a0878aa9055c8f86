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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from velora.config import VELoRAConfig
from velora.errors import ModelError, NotFiniteError
from velora.graphs import Function, Replays, record_on_cuda
from velora.model import VELoRA, pool
from velora.prediction import Prediction, top_labels
from velora.preprocess import difference, normalize, resize_to
from velora.session import DIFF, EVENT, RGB, Frame, Plan, Session
from velora.stopwatch import Stopwatch

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

    def rehearse(self) -> None:
        """On a GPU, record what a label of one stream takes, so that the first labels need not wait for that."""
        if self.device.type != "cuda":
            return
        size, moves = self.model.tower.backbone.image_size, "diff" in self.config.streams
        with self._lock, torch.inference_mode():
            # drawn on the CPU: the state of the GPU's generator stays as it was
            images = torch.randint(256, (2, 2, 3, size, size), dtype=torch.uint8).to(self.device)
            for _ in range(2):
                codes = self._encodings(images, *self._sent([(1, RGB), (1, EVENT)], [(0, 1)] if moves else []))
                self._fusion(*(code.float().unsqueeze(0) for code in codes))

    @contextlib.contextmanager
    def watched(self, hook: Callable[[Tensor], object]) -> Iterator[None]:
        """Meanwhile `hook` is called with what the head reads, [B, F], at each fusion; where there is such a layer."""
        head, fusion = getattr(self.model.fuser, "head", None), self._fusion
        if not isinstance(head, nn.Module):
            yield
            return
        handle = head.register_forward_pre_hook(lambda _, inputs: hook(inputs[0]))
        try:
            with fusion.aside() if isinstance(fusion, Replays) else contextlib.nullcontext():
                yield
        finally:
            handle.remove()

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
            watch = Stopwatch(self.device)
            images = self._images([sample for _, sample in pairs])
            kept = {session: session.window_now() for session, _ in pairs}
            try:
                plans = [session.admit(sample, own) for (session, sample), own in zip(pairs, images, strict=True)]
                self._encode(plans)
                watch.mark()
                logits = self._fuse(plans)
                watch.mark()
            except BaseException:  # as of a device without memory: each alone may go well
                for session, window in kept.items():
                    session.restore(window)
                raise
        rows = iter(logits)
        due = {k: next(rows) for k, plan in enumerate(plans) if plan.window}
        failed = [k for k, row in due.items() if not torch.isfinite(row).all()]
        times = dict(zip(("encode", "fuse"), watch.between_ms(), strict=True)) if due else {}
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
        resized = resize_to(flat, self.model.tower.backbone.image_size, self.device)
        return [own.clone() for own in torch.split(resized, 2)]  # a view would keep the whole batch alive

    def _encode(self, plans: Sequence[Plan]) -> None:
        """Encode what the plans ask for, each image once, and leave it in their frames."""
        distinct = {(job.frame, job.stream): job for plan in plans for job in plan.jobs}
        jobs = sorted(distinct.values(), key=lambda job: job.stream == DIFF)
        if not jobs:
            return
        places: dict[Frame, int] = {}
        for job in jobs:
            for frame in (job.frame, job.before):
                if frame is not None:
                    places.setdefault(frame, len(places))
        still = [(places[job.frame], job.stream) for job in jobs if job.stream != DIFF]
        motion = [(places[job.before], places[job.frame]) for job in jobs if job.stream == DIFF and job.before]
        images = torch.stack([frame.images for frame in places])
        for job, code in zip(jobs, self._encodings(images, *self._sent(still, motion)), strict=True):
            job.frame.codes[job.stream] = code.clone()  # the next step may overwrite it, and a view keeps all alive

    def _sent(self, *pairs: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Pairs of numbers as int64 [n, 2] on the device, by one copy for which nobody waits."""
        flat = torch.tensor([pair for own in pairs for pair in own], pin_memory=self.device.type == "cuda").view(-1, 2)
        sent = flat.to(self.device, non_blocking=flat.is_pinned())  # else it may be gone before it was read
        return list(torch.split(sent, [len(own) for own in pairs]))

    @cached_property
    def _encodings(self) -> Function:
        """Codes [P + D, N, d] of images uint8 [F, 2, 3, S, S]: see `encodings`."""
        model = self.model  # not self: what nobody holds any more would wait for the collector of cycles
        return self._replayed(lambda images, still, motion: encodings(model, images, still, motion))

    @cached_property
    def _fusion(self) -> Function:
        """Logits float32 [B, C] of encodings pooled over time."""
        model = self.model
        return self._replayed(lambda *pooled: model.fuse(*pooled, *[None] * (3 - len(pooled))).float())

    def _replayed(self, function: Function) -> Function:
        """The same by CUDA graphs, on devices that have them; streams with towers of their own need to be sorted."""
        plain = self.device.type != "cuda" or len(self.model.encoders.others)
        return function if plain else Replays(function, record_on_cuda)

    def _fuse(self, plans: Sequence[Plan]) -> Tensor:
        """Logits float32 [windows, C] of the windows that are due, on the CPU."""
        windows = [plan.window for plan in plans if plan.window]
        if not windows:
            return torch.empty(0, len(self.config.labels))
        pooled = [_pooled(windows, stream) for stream in (RGB, EVENT)]
        if "diff" in self.config.streams:
            pooled.append(_pooled([window[1:] for window in windows], DIFF))
        return self._fusion(*pooled).cpu()

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


def encodings(model: VELoRA, images: Tensor, still: Tensor, motion: Tensor) -> Tensor:
    """Codes [P + D, N, d] of some samples' images, uint8 [F, 2, 3, S, S].

    `still` [P, 2] are the places in [F, 2] of the images to encode, `motion` [D, 2] the samples of [F] before and
    after each motion.
    """
    normal = normalize(images, model.config.mean, model.config.std)
    place, stream = still.T
    batch = [normal[place, stream]]
    if len(motion):
        before_now = normal[motion]  # [D, 2, modality, 3, S, S]
        batch.append(difference(before_now[:, :, 0], before_now[:, :, 1])[:, 0])
    return model.encode(torch.cat(batch), torch.cat([stream, torch.full_like(motion[:, 0], DIFF)]))


def _pooled(windows: Sequence[Sequence[Frame]], stream: int) -> Tensor:
    """Means over time of encodings, one a window; afresh at every step, so that no rounding adds up."""
    codes = [[frame.codes[stream] for frame in window] for window in windows]
    if codes[0][0].device.type == "cpu":
        return torch.stack([_mean(own) for own in codes])
    together = torch.stack([code for own in codes for code in own])  # a GPU takes longer for many calls than for a copy
    return pool(together.view(len(codes), -1, *together.shape[1:]), dim=1)


def _mean(codes: Sequence[Tensor]) -> Tensor:
    """As `pool`, without a copy of all codes."""
    total = codes[0].to(torch.promote_types(codes[0].dtype, torch.float32), copy=True)
    for code in codes[1:]:
        total += code
    return total.div_(len(codes))
