"""NaN and overflow: a run whose loss or gradient is not finite stops with a sentence, or leaves such steps out."""

from dataclasses import dataclass
from typing import Any, final

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

from ptune.errors import InputError, TrainingError, note
from ptune.run import checkpoints
from ptune.run.checkpoints import RunCheckpoint, validated
from ptune.tuning.tuner import PromptTuner


@final
@dataclass(frozen=True)
class Step:
    """A step whose gradient is looked at."""

    number: int
    """From 1."""
    rates: dict[str, float]
    """Its learning rates by group."""
    finite: Tensor
    """Whether the norm of its gradient is finite; on the CPU."""
    copied: torch.Event | None
    """Happens when `finite` has come from the device; None where it was never there."""

    def is_finite(self) -> bool:
        """Wait for the gradient and say."""
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.finite)


@final
class Finite(Callback):
    """Stops a run, with one sentence, at a loss, gradient or trained tensor that is NaN or infinite.

    The norm of the whole gradient is looked at. `PromptTuner.training_step` gives a loss that is not finite a gradient
    of NaN, so the norm tells of the loss, too, and in several processes, which share the gradient, all decide alike.

    On the CPU it is looked at before the step is made. On another device the host would wait there for the device; it
    reads the norm of a step when it has sent the next one's backward pass, so that the device always has work, and
    the weights are then those of one step that was not finite. Nothing of them remains: the norm is read, and trained
    tensors are looked at, before any checkpoint, validation and result. With `skip`, each step is waited for, since a
    step that is made cannot be left out any more.

    With a `GradScaler` (16-mixed), gradients that are not finite are how it finds its scale, and it leaves such steps
    out itself. They count when the scale has come down to 1, where scaling is not their reason.

    Strategies that shard the gradient (FSDP, DeepSpeed) have no norm in one process: there, trained tensors and the
    validation loss alone are looked at.

    Args:
        best: the callback that writes `best.ckpt`.
        last: the callback that writes `last.ckpt`.
        skip: steps that may be left out: neither weights nor the optimizer's moments change, the schedule goes on.

    Raises:
        InputError: `skip` is negative.
    """

    def __init__(self, best: RunCheckpoint, last: RunCheckpoint, skip: int = 0) -> None:
        if skip < 0:
            raise InputError(f"option --skip_nonfinite {skip}: must be at least 0.")
        self.best, self.last, self.skip = best, last, skip
        self.skipped = 0
        self._step: Step | None = None

    def state_dict(self) -> dict[str, Any]:
        """Steps that were left out."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = state["skipped"]

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: PromptTuner, optimizer: Optimizer) -> None:
        """Look at the gradient of this step or, on a device that works beside the host, of the one before."""
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            return
        self._look(trainer)
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        norm = torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
        self._step = Step(trainer.global_step + 1, _rates(optimizer), *_to_host(norm.isfinite()))
        if (self.skip or self._step.copied is None) and not self._look(trainer):
            for value in parameters:
                value.grad = None  # AdamW passes over a tensor without one

    def _look(self, trainer: L.Trainer) -> bool:
        """Whether the step that was not looked at yet may be made.

        Raises:
            TrainingError: it may neither be made nor left out.
        """
        step, self._step = self._step, None
        if step is None or step.is_finite() or _scaled(trainer):
            return True
        if self.skipped >= self.skip:
            raise self._error(trainer, "the loss or its gradient is", step.number, step.rates)
        self.skipped += 1
        if trainer.is_global_zero:
            count = f"{self.skipped} of at most {self.skip}"
            note(f"step {step.number} is left out: its loss or gradient is not finite ({count}).")
        return False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: PromptTuner, checkpoint: dict[str, Any]) -> None:
        """Let no checkpoint be written whose tensors are not finite, whoever writes it."""
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Validate no weights that are not finite."""
        self._look(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Say that a validation is not taken for the best one, nor its state for the last."""
        if trainer.is_global_zero and not validated(trainer):
            note(f"epoch {trainer.current_epoch + 1}: the validation loss is not finite; no checkpoint is written.")

    def on_train_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Let no result be made of what is not finite: the best checkpoint is, the last state may not be."""
        self._check(trainer, pl_module)
        if not self.best.best_model_path and not validated(trainer):
            rates = _rates(trainer.optimizers[0])
            raise self._error(trainer, "the loss of every validation is", trainer.global_step, rates)

    def _check(self, trainer: L.Trainer, model: PromptTuner) -> None:
        """Look at the last step and at the trained tensors."""
        self._look(trainer)
        trained = model.trained()
        # A tenth of the time of looking at each value; a sum may overflow where all values are finite, too.
        sums = torch.stack([value.sum().isfinite() for value in trained.values()]).tolist()
        for (name, value), finite in zip(trained.items(), sums, strict=True):
            if not finite and not value.isfinite().all():
                raise self._error(trainer, f"{name} is", trainer.global_step, _rates(trainer.optimizers[0]))

    def _error(self, trainer: L.Trainer, what: str, step: int, rates: dict[str, float]) -> TrainingError:
        """The sentence: what is not finite, when, and how to go on."""
        rate = ", ".join(f"{group} {value:g}" for group, value in rates.items())
        path = self.last.path
        if checkpoints.is_whole(path):
            kept = checkpoints.read(path, path.parent)["global_step"]
            how = f"go on from step {kept} with the same command, --ckpt_path {path}, a lower --model.lr and "
            how += "--allow_change lr"
        else:
            how = "there is no checkpoint yet, so begin again with another --run_dir and a lower --model.lr"
        skip = "" if self.skip else "; --skip_nonfinite N leaves out up to N such steps"
        return TrainingError(f"{what} not finite at step {step} (learning rate: {rate}); {how}{skip}.")


def _rates(optimizer: Optimizer) -> dict[str, float]:
    """Learning rates by group, as they are before the step."""
    return {group["name"].removesuffix("/1d"): float(group["lr"]) for group in optimizer.param_groups}


def _scaled(trainer: L.Trainer) -> bool:
    """Whether a GradScaler multiplies the loss, which may be why the gradient is not finite."""
    plugin = trainer.precision_plugin
    return isinstance(plugin, MixedPrecision) and plugin.scaler is not None and plugin.scaler.get_scale() > 1


def _to_host(value: Tensor) -> tuple[Tensor, torch.Event | None]:
    """A value of one element as the CPU has it once the event has happened; it does not wait for that."""
    if value.device.type == "cpu":
        return value, None
    there = torch.empty_like(value, device="cpu", pin_memory=True)
    there.copy_(value, non_blocking=True)
    copied = torch.Event(value.device)
    copied.record()
    return there, copied
