"""The training loop: adapters and head, on any number of devices through `accelerate`, resumable at any step.

Every random choice follows from the seed and the number of the step, so a run that was killed and resumed ends with the
same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streams.endings import heeded
from streams.files import replaced_when_whole
from velora.checkpoint import Checkpoint, build_trainable, trained_tensors
from velora.clora import CLoRA
from velora.devices import choose_device, choose_dtype
from velora.errors import ModelError
from velora.model import VELoRA
from velora.training.batches import Augmentation, EpochBatches, Windows, batches_an_epoch, load_window, only
from velora.training.clips import ClipSet
from velora.training.loader import loader_of, read, workers_for
from velora.training.objective import Losses, Objective
from velora.training.plan import Plan
from velora.training.windows import Slot, Window
from velora.vit import VisionTower

STATE = "training.pt"
_NOT_A_STATE = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, pickle.PickleError)


@dataclass(frozen=True, slots=True)
class Data:
    """Training slots and validation windows, each with the clips that they are of."""

    train: ClipSet
    slots: Sequence[Slot]
    val: ClipSet
    windows: Sequence[Window]


@dataclass(slots=True)
class Progress:
    """How a run goes, for those who watch it."""

    step: int
    steps: int
    epoch: float
    loss: float = 0.0  # smoothed
    accuracy: float = 0.0  # of training batches, smoothed
    parts: dict[str, float] = field(default_factory=dict)  # of the last step's loss
    rate: float = 0.0
    clips_s: float = 0.0
    val_loss: float | None = None  # of the last validation
    val_accuracy: float | None = None
    best: float | None = None  # validation accuracy
    best_loss: float | None = None
    since_best: int = 0  # validations
    validated: int = 0  # the step of the last one
    spent: float = 0.0  # share of the steps, or of the minutes, that are behind


class Trainer:
    """Trains one model; `run` may be interrupted, and goes on from what is in its folder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tower: VisionTower | None,
        data: Data,
        plan: Plan,
        folder: Path,
        *,
        dtype: str = "auto",
    ) -> None:
        import accelerate

        self.plan, self.data, self.folder, self.config = plan, data, folder, checkpoint.config
        on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
        self.accelerator = accelerate.Accelerator(cpu=on_cpu, mixed_precision=_precision(dtype))
        self._ranks = self.accelerator.num_processes
        torch.manual_seed(plan.seed)
        model = build_trainable(checkpoint, tower)
        self.objective = Objective(model, w_rec=plan.w_rec, sade_weight=plan.sade, sade_normalize=plan.sade_normalize)
        self.optimizer = torch.optim.AdamW(_groups(model, plan), lr=plan.rate, weight_decay=plan.weight_decay)
        self._wrapped, self._stepper = self.accelerator.prepare(self.objective, self.optimizer)
        self._best: dict[str, Tensor] = {}
        self._unsound = False  # within a step, whose count the weights may not belong to, or no longer finite
        self._an_epoch = batches_an_epoch(len(data.slots), plan.batch) / (
            plan.accumulate * self.accelerator.num_processes
        )
        steps = max(1, round(plan.epochs * self._an_epoch))
        self.progress = Progress(0, steps, 0.0)
        self.spent_s = 0.0  # seconds of training, over all runs

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for p in self.objective.parameters() if p.requires_grad)

    def run(self, told: Callable[[Progress], None], *, save_every_s: float = 60.0) -> Checkpoint:
        """Train to the end, or until validation has not gained for long; the best checkpoint by validation."""
        self._resume()
        stop = _Stop()
        if self.progress.step and self._validates() and self.progress.validated < self.progress.step:
            self._validate(stop)  # the last run was stopped in it
            stop.heed()
        if self._is_over():
            return Checkpoint(self.config, self._best)
        last_save = began = time.perf_counter()
        speed = _Speed()
        spent_before = self.spent_s
        try:
            for number, batches in self._steps():
                self._unsound = True
                with stop.deferred():
                    self._step(number, batches)
                self._unsound = False
                stop.heed()
                self.spent_s = spent_before + time.perf_counter() - began
                self.progress.clips_s = speed.after_step(sum(len(truth) for _, truth in batches) * self._ranks)
                self.progress.spent = self._spent()
                if self._validates():
                    self._validate(stop)
                    stop.heed()
                told(self.progress)
                if self._is_over():
                    break
                if time.perf_counter() - last_save > save_every_s:
                    self.save()
                    last_save = time.perf_counter()
        finally:
            if not self._unsound:  # else the state on disk is whole, and less than `save_every_s` old
                self.save()
        return Checkpoint(self.config, self._best or self._tensors())

    # --- one step -----------------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
        plan, done = self.plan, self.progress.step
        count = plan.accumulate * self.accelerator.num_processes
        places = EpochBatches(len(self.data.slots), plan.batch, plan.seed, done * count, self.progress.steps * count)
        augmentation = Augmentation(plan.flip and self.data.train.mirrors, plan.crop, plan.drop_modality, plan.modality)
        windows = Windows(self.data.train.clips, self.data.slots, self.config.frames, augmentation, plan.seed)
        workers = workers_for(self.accelerator.device, self.accelerator.num_processes)
        loader = self.accelerator.prepare(loader_of(windows, places, workers))
        group: list[tuple[Tensor, Tensor]] = []
        for images, labels in read(loader):
            group.append((images, labels))
            if len(group) == plan.accumulate:
                yield self.progress.step, group
                group = []

    def _step(self, number: int, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        plan, progress = self.plan, self.progress
        # Dropout too follows from the step alone; processes differ, as the halves of a batch would.
        torch.manual_seed(hash((plan.seed, number, self.accelerator.process_index)) & (2**63 - 1))
        self._wrapped.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * plan.share(progress.spent + 0.5 / progress.steps)  # amid the step
        self._stepper.zero_grad()
        right = []
        for k, (images, labels) in enumerate(batches):
            with self._alone(k < len(batches) - 1):
                losses = self._losses(images, labels)
                self.accelerator.backward(losses.total / len(batches))
            right.append((losses.logits.argmax(dim=1) == labels).float().mean())
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        norm = self.accelerator.clip_grad_norm_(trained, plan.clip or math.inf)
        if not torch.isfinite(torch.as_tensor(norm)) or not torch.isfinite(losses.total):
            raise _not_finite(number)
        self._stepper.step()
        self._note(losses, float(torch.stack(right).mean()))

    def _losses(self, images: Tensor, labels: Tensor) -> Losses:
        with self.accelerator.autocast():
            losses: Losses = self._wrapped(images, labels, diverse=self.progress.spent >= self.plan.warmup)
        return losses

    def _alone(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Between the batches of one step, processes do not exchange gradients."""
        if more and self.accelerator.num_processes > 1:
            context: contextlib.AbstractContextManager[Any] = self._wrapped.no_sync()
            return context
        return contextlib.nullcontext()

    def _note(self, losses: Losses, right: float) -> None:
        progress = self.progress
        kept = 0.95 if progress.step else 0.0
        progress.loss = kept * progress.loss + (1 - kept) * float(losses.total.detach())
        progress.accuracy = kept * progress.accuracy + (1 - kept) * right
        progress.parts = {name: float(part.detach()) for name, part in losses.parts.items()}
        progress.rate = self.optimizer.param_groups[0]["lr"]
        progress.step += 1
        progress.epoch = progress.step / self._an_epoch

    # --- validation ---------------------------------------------------------------------------------------------------

    def _validates(self) -> bool:
        every = self.plan.validate_every or max(1, round(self._an_epoch))
        return self.progress.step % every == 0 or self.progress.spent >= 1

    def _validate(self, stop: _Stop) -> None:
        progress = self.progress
        if not self.data.windows:
            with stop.deferred():
                self._best, progress.validated = self._tensors(), progress.step
            return
        logits, truth = self.predict(self.data.val, self.data.windows)
        if not torch.isfinite(logits).all():
            self._unsound = True
            raise _not_finite(progress.step)
        with stop.deferred():  # what is told of the best weights goes with them
            progress.validated = progress.step
            progress.val_loss = float(nn.functional.cross_entropy(logits, truth))
            progress.val_accuracy = float((logits.argmax(dim=1) == truth).float().mean())
            best = (progress.best if progress.best is not None else -1.0, -(progress.best_loss or 0.0))
            if (progress.val_accuracy, -progress.val_loss) > best:
                progress.best, progress.best_loss, progress.since_best = progress.val_accuracy, progress.val_loss, 0
                self._best = self._tensors()
            else:
                progress.since_best += 1

    def predict(self, data: ClipSet, windows: Sequence[Window], model: VELoRA | None = None) -> tuple[Tensor, Tensor]:
        """Logits [n, C] and labels [n] of windows, on the CPU, by the model in training or by another one."""
        objective = Objective(model) if model is not None else self.objective
        objective.to(self.accelerator.device).eval()
        rows = []
        with torch.inference_mode():
            for start in range(0, len(windows), self.plan.batch):
                batch = [load_window(data.clips, window) for window in windows[start : start + self.plan.batch]]
                with self.accelerator.autocast():
                    images = only(torch.stack(batch), self.plan.modality).to(self.accelerator.device)
                    rows.append(objective.logits(images).float().cpu())
        return torch.cat(rows), torch.tensor([window.label for window in windows])

    def _spent(self) -> float:
        """Share of the run that is behind, alike in all processes."""
        plan, progress = self.plan, self.progress
        steps = progress.step / progress.steps
        if not plan.max_minutes:
            return steps
        minutes = torch.tensor(self.spent_s / (60 * plan.max_minutes), device=self.accelerator.device)
        return max(steps, float(self.accelerator.reduce(minutes, "max")))

    def _is_over(self) -> bool:
        """Whether there is nothing left to do; all processes must stop at the same step."""
        plan, progress = self.plan, self.progress
        over = progress.spent >= 1 or bool(plan.patience and progress.since_best >= plan.patience)
        if self.accelerator.num_processes > 1:
            over = bool(self.accelerator.reduce(torch.tensor(float(over), device=self.accelerator.device), "max"))
        return over

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor.cpu().clone() for name, tensor in trained_tensors(self.objective.model).items()}

    def save(self) -> None:
        """Write all that is needed to go on, in one piece."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "tensors": {name: p.detach().cpu() for name, p in self.objective.named_parameters() if p.requires_grad},
            "optimizer": self.optimizer.state_dict(),
            "best": self._best,
            "progress": {name: getattr(self.progress, name) for name in Progress.__slots__},
            "spent_s": self.spent_s,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replaced_when_whole(self.folder / STATE) as part:
                torch.save(state, part)
        except RuntimeError as error:  # torch's word for a disk that is full
            why = "cannot be written whole (the disk takes no more)"
            raise ModelError(f"{self.folder / STATE} {why}: make room, and the same command goes on") from error

    def _resume(self) -> None:
        path = self.folder / STATE
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            mine = dict(self.objective.named_parameters())
            with torch.no_grad():
                for name, tensor in state["tensors"].items():
                    mine[name].copy_(tensor)
            self.optimizer.load_state_dict(state["optimizer"])
            self._best, self.progress = state["best"], Progress(**state["progress"])
            self.spent_s = state["spent_s"]
            self.progress.spent = self._spent()
        except _NOT_A_STATE as error:
            reason = str(error).partition("\n")[0][:200] or "it is cut off"
            raise ModelError(f"{path} cannot be resumed from ({reason}): choose another --out") from None


def _not_finite(step: int) -> ModelError:
    return ModelError(f"the loss is not finite at step {step}: try a lower --rate, or --dtype fp32")


def _groups(model: VELoRA, plan: Plan) -> list[dict[str, Any]]:
    """What is trained, in two groups: CLoRA's cores, at a rate of their own, and all else."""
    cores = {id(p) for a in model.encoders.each_adapter() if isinstance(a, CLoRA) for p in a.cores.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in cores], "initial_lr": plan.rate},
        {"params": [p for p in trained if id(p) in cores], "initial_lr": plan.rate * plan.core_rate},
    ]
    return [group for group in groups if group["params"]]


def _precision(dtype: str) -> str:
    """As accelerate calls it; with "auto", bfloat16 where the device computes faster with it."""
    return "bf16" if choose_dtype(dtype, choose_device("auto")) == torch.bfloat16 else "no"


class _Speed:
    """Clips a second: all but the first step, which waits for the processes that read to start."""

    def __init__(self) -> None:
        self._clips, self._began = 0, 0.0

    def after_step(self, clips: int) -> float:
        """Of so many. 0 after the first one."""
        if not self._began:
            self._began = time.perf_counter()
            return 0.0
        self._clips += clips
        return self._clips / (time.perf_counter() - self._began)


class _Stop:
    """Ctrl-C, or a request to end, that waits for the end of a step; the second one does not."""

    def __init__(self) -> None:
        self._asked = False

    def _ask(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, an interrupt is only noted."""
        if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in heeded()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def heed(self) -> None:
        """Raise KeyboardInterrupt if one was noted."""
        if self._asked:
            raise KeyboardInterrupt
