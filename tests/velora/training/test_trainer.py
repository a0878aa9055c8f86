"""Training: it learns, goes on where it was killed as if nothing had happened, and is the same on two processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from tests.velora.conftest import tiny_backbone
from tests.velora.training.made import LABELS, clip, clip_set, config_of, data_of, start, tower
from velora.checkpoint import build_model, load_checkpoint, save_checkpoint
from velora.errors import ModelError
from velora.recognizer import Recognizer
from velora.training.batches import Augmentation, Windows, blank, load_window
from velora.training.clips import ClipSet, Span
from velora.training.evaluate import answer
from velora.training.objective import Losses, Objective
from velora.training.plan import Plan
from velora.training.trainer import STATE, Data, Progress, Trainer
from velora.training.windows import fixed_windows, slots

QUICK = Plan(epochs=12, batch=4, rate=1e-2, drop_modality=0.0, patience=0)


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    AcceleratorState._reset_state()  # it keeps one precision for a whole process
    with tiny_backbone():
        yield


def train(
    folder: Path,
    plan: Plan = QUICK,
    told: Callable[[Progress], None] = lambda progress: None,
    data: Data | None = None,
    dtype: str = "auto",
    **changes: object,
) -> tuple[Trainer, dict[str, Tensor]]:
    config = config_of(**changes)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(start(config), tower(), data or data_of(config), plan, folder, dtype=dtype)
    return trainer, dict(trainer.run(told).tensors)


@pytest.mark.parametrize("variant", [{}, {"adapter": "clora", "pairs": 2}, {"adapter": "none"}, {"preset": "released"}])
def test_it_learns_what_the_clips_show(tmp_path: Path, variant: dict[str, object]) -> None:
    trainer, tensors = train(tmp_path, **variant)
    before = start(config_of(**variant)).tensors
    assert trainer.progress.best == 1.0 and trainer.progress.loss < 0.7
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_full_trains_the_tower_and_lora_leaves_it(tmp_path: Path) -> None:
    _, tensors = train(tmp_path / "full", Plan(epochs=1, batch=4, rate=1e-3), adapter="full")
    assert not torch.equal(tensors["tower.conv1.weight"], tower().conv1.weight)
    _, tensors = train(tmp_path / "lora", Plan(epochs=1, batch=4))
    assert not any(name.startswith("tower.") for name in tensors)


@pytest.mark.parametrize("stop", [1, 7, 20])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, stop: int) -> None:
    whole, expected = train(tmp_path / "whole", dropout=0.1)

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == stop:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "parts", told=kill, dropout=0.1)
    seen: list[int] = []
    _, resumed = train(tmp_path / "parts", told=lambda progress: seen.append(progress.step), dropout=0.1)
    assert seen == list(range(stop + 1, whole.progress.steps + 1))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.items())


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    plan = Plan(epochs=2, batch=4, drop_modality=0.3, crop=0.8)
    (_, one), (_, two) = (train(tmp_path / name, plan, dropout=0.2) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    _, other = train(tmp_path / "other", Plan(epochs=2, batch=4, drop_modality=0.3, crop=0.8, seed=1), dropout=0.2)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    (_, large), (_, small) = (
        train(tmp_path / str(batch), Plan(epochs=2, batch=batch, accumulate=12 // batch, rate=1e-2), dtype="fp32")
        for batch in (12, 4)
    )
    assert all(torch.allclose(large[name], small[name], atol=2e-4) for name in large)


def test_cores_learn_at_a_rate_of_their_own(tmp_path: Path) -> None:
    config = config_of(adapter="clora", pairs=2)
    trainer = Trainer(start(config), tower(), data_of(config), Plan(rate=1e-3), tmp_path)
    rates = {group["initial_lr"]: len(group["params"]) for group in trainer.optimizer.param_groups}
    assert rates.keys() == {1e-3, 1e-2} and rates[1e-2] == 2  # c_fc and c_proj


def test_diversity_counts_after_warm_up_alone(tmp_path: Path) -> None:
    parts: list[dict[str, float]] = []
    plan = Plan(epochs=4, batch=4, warmup=0.5, sade=1.0, sade_normalize=True)
    train(tmp_path, plan, lambda progress: parts.append(dict(progress.parts)), adapter="clora", pairs=2)
    half = len(parts) // 2
    assert ["sade" in part for part in parts] == [False] * half + [True] * (len(parts) - half)


def test_it_stops_when_validation_gains_no_more(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, Plan(epochs=100, batch=4, rate=0.0, patience=3))
    assert trainer.progress.step < 30


def test_it_stops_in_time_with_a_model_that_was_validated_last(tmp_path: Path) -> None:
    trainer, tensors = train(tmp_path, Plan(epochs=1000, batch=4, patience=0, max_minutes=0.02))
    assert trainer.progress.step < trainer.progress.steps and tensors
    assert trainer.progress.validated == trainer.progress.step


def test_an_epoch_need_not_be_whole(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", Plan(epochs=2, batch=4, patience=0))
    half, _ = train(tmp_path / "half", Plan(epochs=0.5, batch=4, patience=0))
    assert half.progress.step == round(whole.progress.step / 4) and half.progress.best is not None
    assert whole.progress.clips_s > 0


def test_the_rate_rises_and_falls_within_the_time_that_is_given(tmp_path: Path) -> None:
    rates: list[float] = []
    plan = Plan(epochs=100_000, batch=4, patience=0, max_minutes=0.05, warmup=0.3, validate_every=1000)
    train(tmp_path, plan, lambda progress: rates.append(progress.rate / plan.rate))
    top = rates.index(max(rates))
    assert rates[0] < 1e-4 and max(rates) > 0.9 and rates[-1] < 0.3
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_the_best_by_validation_is_kept(tmp_path: Path) -> None:
    seen: list[tuple[int, float | None]] = []
    trainer, tensors = train(tmp_path, told=lambda p: seen.append((p.step, p.val_accuracy)))
    best = Trainer(start(config_of()), tower(), data_of(config_of()), QUICK, tmp_path)
    best._resume()
    assert trainer.progress.best == max(accuracy for _, accuracy in seen if accuracy is not None)
    assert all(torch.equal(best._best[name], tensors[name]) for name in tensors)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    train(tmp_path, Plan(epochs=1))
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:500])
    with pytest.raises(ModelError, match=f"{STATE} cannot be resumed from"):
        train(tmp_path, Plan(epochs=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be more than 0"),
        ({"rate": -1.0}, "rate must be 0 or more"),
        ({"rate": float("nan")}, "rate must be 0 or more"),
        ({"crop": 0.0}, "crop is the smallest share"),
        ({"drop_modality": 2.0}, "drop_modality is a share"),
    ],
)
def test_plans_out_of_range(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**change)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_ends_it_and_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="loss is not finite at step"):
        train(tmp_path, Plan(epochs=3, batch=4, rate=1e30, clip=1e30, warmup=0.0))
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("where", ["in a step", "at validation"])
def test_a_loss_that_stops_being_finite_leaves_the_last_sound_state(tmp_path: Path, where: str) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, told=stop)
    sound = (tmp_path / STATE).read_bytes()
    config = config_of()
    trainer = Trainer(start(config), tower(), data_of(config), QUICK, tmp_path)
    training = trainer.objective.forward

    def poison(images: Tensor, labels: Tensor, *, diverse: bool) -> Losses:
        losses = training(images, labels, diverse=diverse)
        return losses._replace(total=losses.total * torch.nan) if trainer.progress.step == 8 else losses

    if where == "in a step":
        trainer.objective.forward = poison  # type: ignore[method-assign]
    else:
        trainer.objective.logits = lambda images: torch.full((len(images), len(LABELS)), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="the loss is not finite at step [0-9]+: try a lower --rate"):
        trainer.run(lambda _: None)
    assert (tmp_path / STATE).read_bytes() == sound
    trainer, _ = train(tmp_path)  # goes on from there
    assert trainer.progress.spent >= 1


def test_the_saved_checkpoint_says_what_the_trained_model_said(tmp_path: Path) -> None:
    config = config_of()
    trainer, tensors = train(tmp_path, dtype="fp32")  # in bfloat16 a logit of 8 is known to a sixteenth
    save_checkpoint(tmp_path, type(start(config))(config, tensors), card="")
    model = build_model(load_checkpoint(tmp_path), tower())
    logits, truth = trainer.predict(trainer.data.val, trainer.data.windows, model)
    found = answer(Recognizer("it", model), trainer.data.val, "stream", most=2)
    assert found.truth.tolist() == truth.tolist()
    theirs = torch.log_softmax(torch.from_numpy(found.logits), dim=1)
    assert torch.allclose(torch.log_softmax(logits.double(), dim=1), theirs, atol=1e-3)


@pytest.mark.parametrize("adapter", ["lora", "clora"])
def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path, adapter: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    script = "tests.velora.training.parallel"
    common = [sys.executable, "-m", "accelerate.commands.launch", "--num_cpu_threads_per_process", "1"]
    root = Path(__file__).parents[3]
    for name, processes, batch in (("one", "1", "4"), ("two", "2", "2")):
        several = ["--multi_gpu"] if processes != "1" else []  # how accelerate calls it, also where there is none
        launch = [*common, *several, "--num_processes", processes, "-m", script, str(tmp_path / name), batch, adapter]
        done = subprocess.run(launch, cwd=root, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (
        torch.load(tmp_path / path, weights_only=True) for path in ("one/rank0.pt", "two/rank0.pt", "two/rank1.pt")
    )
    assert one["steps"] == first["steps"] == second["steps"]
    for name, tensor in first["tensors"].items():
        assert torch.equal(tensor, second["tensors"][name])
        assert torch.allclose(tensor, one["tensors"][name], atol=1e-4), name


def test_answers_by_clip_and_by_modality() -> None:
    config = config_of()
    model = build_model(start(config), tower())
    data = clip_set(4)
    recognizer = Recognizer("it", model)
    assert len(answer(recognizer, data, "clip").truth) == 4
    windows = fixed_windows(data.clips, config, "stream", 3)
    assert answer(recognizer, data, "stream", most=3).features is None
    found = answer(recognizer, data, "stream", most=3, features=True)
    assert found.indices == tuple(window.indices for window in windows)
    assert found.features is not None and len(found.features) == len(windows)
    blind = [answer(recognizer, data, "stream", modality=m, features=True).features for m in ("rgb", "event", "both")]
    assert all(features is not None for features in blind) and not (blind[0] == blind[2]).all()
    with pytest.raises(ValueError, match="no clip has a labelled window by the protocol stream"):
        answer(recognizer, type(data)(data.labels, data.clips[:0]), "stream")


def test_answers_are_those_of_the_windows_that_were_chosen() -> None:
    """Across discontinuities, holes in the labels, and clips that are shorter than a window."""
    config = config_of()
    recognizer = Recognizer("it", build_model(start(config), tower()))
    broken = clip(0, count=60, broken_at=(25, 41))
    broken.spans = [Span(0, 120_000, 0), Span(300_000, 500_000, 1)]
    data = ClipSet(LABELS, (broken, clip(2, count=2), clip(1, count=30, seed=5)))
    for protocol in ("stream", "clip"):
        windows = fixed_windows(data.clips, config, protocol, 4)
        found = answer(recognizer, data, protocol, most=4, features=True)
        assert sorted(found.indices) == sorted(window.indices for window in windows)
        assert found.features is not None and len(found.features) == len(windows)
        images = torch.stack([load_window(data.clips, w) for w in sorted(windows, key=lambda w: (w.clip, w.indices))])
        logits = Objective(recognizer.model).logits(images)
        theirs = torch.log_softmax(torch.from_numpy(found.logits), dim=1)
        assert torch.allclose(torch.log_softmax(logits.double(), dim=1), theirs, atol=1e-4)


ONE_EPOCH = Plan(epochs=1, batch=4, drop_modality=0.0)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def stopped_and_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, instead: Callable[..., object], plan: Plan
) -> Trainer:
    """A training that ends where `method` is called, and is resumed: its weights equal those of one that was not."""
    _, expected = train(folder / "whole", plan)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, method, instead)
        with pytest.raises(KeyboardInterrupt):
            train(folder / "parts", plan)
    trainer, tensors = train(folder / "parts", plan)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    return trainer


def test_a_validation_that_was_interrupted_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = stopped_and_resumed(tmp_path, monkeypatch, "predict", interrupted, ONE_EPOCH)
    assert trainer.progress.best is not None


def test_an_interrupt_while_the_best_is_kept_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is told of the best weights would be of others."""
    tensors = Trainer._tensors

    def signalled(self: Trainer) -> dict[str, torch.Tensor]:
        signal.raise_signal(signal.SIGINT)
        return tensors(self)

    trainer = stopped_and_resumed(tmp_path, monkeypatch, "_tensors", signalled, ONE_EPOCH)
    assert trainer.progress.best is not None


def test_half_a_step_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # between the weights' change and the step's count
    stopped_and_resumed(tmp_path, monkeypatch, "_note", interrupted, QUICK)


@pytest.mark.parametrize("plan", [Plan(epochs=2, batch=4), Plan(epochs=99, batch=4, rate=0.0, patience=2)])
def test_a_run_that_is_over_stays_as_it_is(tmp_path: Path, plan: Plan) -> None:
    first, expected = train(tmp_path, plan)
    seen: list[int] = []
    again, tensors = train(tmp_path, plan, told=lambda progress: seen.append(progress.step))
    assert seen == [] and again.progress.step == first.progress.step
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_released_without_its_loss_leaves_out_what_that_alone_reads(tmp_path: Path) -> None:
    config = config_of(preset="released")
    trainer = Trainer(start(config), tower(), data_of(config), Plan(w_rec=0.0), tmp_path)
    assert not any(p.requires_grad for p in trainer.objective.model.fuser.blocks.parameters())


def test_one_modality_alone_is_never_left_out() -> None:
    """Else windows of a camera without frames, or without events, would be blank, and labelled."""
    made = clip(1)
    for modality in (0, 1):
        made.present[:] = [modality == 0, modality == 1]
        places = slots((made,), config_of(), "stream")
        windows = Windows((made,), places, 2, Augmentation(drop_modality=1.0), seed=0)
        assert all(
            not torch.equal(images, blank(images, modality))
            for images, _ in (windows[0, k] for k in range(len(places)))
        )
    made.present[:] = True
    images, _ = windows[0, 0]
    assert any(torch.equal(images, blank(images, modality)) for modality in (0, 1))


def test_a_run_of_one_step_learns(tmp_path: Path) -> None:
    trainer, tensors = train(tmp_path, Plan(epochs=0.01, batch=4, patience=0))
    before = start(config_of()).tensors
    assert trainer.progress.steps == 1
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tensors.items())


def test_gradients_may_be_of_any_size(tmp_path: Path) -> None:
    _, tensors = train(tmp_path, Plan(epochs=1, batch=4, clip=0.0))
    before = start(config_of()).tensors
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("damage", [b"", b"no state", {"tensors": [1]}, {}])
def test_a_state_that_is_none_is_named(tmp_path: Path, damage: bytes | dict[str, object]) -> None:
    if isinstance(damage, bytes):
        (tmp_path / STATE).write_bytes(damage)
    else:
        torch.save(damage, tmp_path / STATE)
    with pytest.raises(ModelError, match=r"training.pt cannot be resumed from \(.+\): choose another --out"):
        train(tmp_path)


def test_a_folder_that_is_removed_meanwhile_is_made_anew(tmp_path: Path) -> None:
    train(tmp_path / "run", told=lambda _: shutil.rmtree(tmp_path / "run", ignore_errors=True))
    assert (tmp_path / "run" / STATE).exists()


def test_the_gain_over_the_mean_token_is_told(tmp_path: Path) -> None:
    gains: list[float] = []
    train(tmp_path, QUICK, lambda progress: gains.append(progress.parts["reconstruction_gain"]))
    assert all(gain < 1 for gain in gains) and gains[-1] > gains[0]
