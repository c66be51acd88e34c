"""The course of a training: what each of its validations has measured, the `history` of `result.json`."""

from typing import Any, final

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ptune.run.callbacks import Telemetry
from ptune.tuning import resume
from ptune.tuning.tuner import PromptTuner


@final
class History(Callback):
    """Keeps an entry for each validation of a training, within an epoch, too.

    Checkpoints hold the entries, so that a run which was stopped has those of one that was not. An entry has

    - `epoch`: number of the epoch, from 1;
    - `step`: optimizer steps that are done;
    - `seconds`: seconds of training until then, without validations, on the clock of the result's `seconds`;
    - `train_loss`: mean loss of the batches since the entry before, in the first process;
    - `metrics`: of the split that the checkpoint is chosen on, by their names, `loss` among them.

    Args:
        telemetry: the clock; it must stand before this among the trainer's callbacks.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.entries: list[dict[str, Any]] = []
        self._loss: Tensor | float = 0.0
        self._batches = 0
        self._entered = False
        """Whether the last entry is that of the batches counted. They are kept until the next one is trained on: a run
        that goes on from the checkpoint of a validation begins with that validation."""

    def state_dict(self) -> dict[str, Any]:
        """The entries, and the loss of the batches that have none yet."""
        loss = {"loss": float(self._loss), "batches": self._batches, "entered": self._entered}
        return {"entries": list(self.entries), **loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the entries of the part of the run that is done."""
        self.entries, self._loss = list(state["entries"]), state["loss"]
        self._batches, self._entered = state["batches"], state["entered"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: PromptTuner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch and its loss, which Lightning has divided by the batches of a step."""
        if self._entered:
            self._loss, self._batches, self._entered = 0.0, 0, False
        self._loss = self._loss + outputs["loss"].float() * trainer.accumulate_grad_batches
        self._batches += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Make the entry; that of a validation which is repeated replaces its first one."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._entered:
            self.entries.pop()
        prefix = f"{pl_module.split}/"
        measured = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
        entry = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": self.telemetry.seconds,
            "train_loss": float(self._loss) / self._batches if self._batches else None,
            "metrics": {name.removeprefix(prefix): float(value) for name, value in measured.items()},
        }
        self.entries.append(entry)
        self._entered = True


def seconds_to(checkpoint: dict[str, Any]) -> float | None:
    """Seconds of training until the validation that a checkpoint was written at; None where it does not say."""
    entries = checkpoint["callbacks"].get(History.__qualname__, {}).get("entries")
    return entries[-1]["seconds"] if entries else None


def limits(trainer: L.Trainer) -> list[str]:
    """Options of the trainer that have ended its training, or its epochs, before all rows of an epoch were seen."""
    loader, found = trainer.train_dataloader, []
    if loader is not None and trainer.num_training_batches < len(loader):  # type: ignore[arg-type]
        found.append("trainer.limit_train_batches")
    if 0 <= trainer.max_steps <= trainer.global_step and resume.within_epoch(trainer):
        found.append("trainer.max_steps")
    left = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]  # type: ignore[attr-defined]
    if any(seconds is not None and seconds <= 0 for seconds in left):
        found.append("trainer.max_time")
    return found
