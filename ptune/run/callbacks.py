"""What a run says about itself: before training, what is trained; during it, speed, memory and norms."""

import resource
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from ptune.tuning.tuner import PromptTuner, batch_rows


def peak_memory() -> float:
    """Largest memory used so far, in MiB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux


def summary(trainer: L.Trainer, model: PromptTuner, logs: str) -> str:
    """What is trained, and the choices a reader needs to reproduce the run."""
    choice = model.hparams
    backbone = model.backbone
    trained = model.trained()
    count, total = sum(value.numel() for value in trained.values()), model.backbone_size
    lines = [f"{type(model).__name__} of {choice['backbone']} ({backbone.fingerprint}) on {model.head_spec.task}"]
    for group, tensors in model.groups().items():
        n = sum(value.numel() for value in tensors.values())
        names = ", ".join(list(tensors)[:4]) + (f", ... ({len(tensors)} tensors)" if len(tensors) > 4 else "")
        lines.append(f"  trained {group:<9}{n:>12,}  {names}")
    lines.append(f"  trained in all   {count:>12,}  {100 * count / total:.3f} % of the backbone's {total:,}")
    batch = trainer.datamodule.batch_size  # type: ignore[attr-defined]
    effective = batch * trainer.world_size * trainer.accumulate_grad_batches
    choices = {
        "weights": f"{backbone.dtype}, attention {backbone.attention}",
        "reading": model.head_spec.template or (f"pooled: {backbone.pooling}" if model.head.pools else "every token"),
        "positions": f"{backbone.room or 'unlimited'}, text from {model.shift}",
        "dropout": f"backbone {'on' if choice['backbone_dropout'] else 'off'}, head {choice['head_dropout']}",
        "device": f"{trainer.strategy.root_device}, precision {trainer.precision}",
        "batch": f"{effective} ({batch} x {trainer.world_size} processes x {trainer.accumulate_grad_batches} batches)",
        "logs": logs,
    }
    return "\n".join(lines + [f"  {key:<10}{value}" for key, value in choices.items()])


class Last(ModelCheckpoint):
    """The state after each epoch. `save_last` of the checkpoint that looks at a metric is of the last improvement.

    A class of its own, so that its state is not taken for that of a ModelCheckpoint that a user adds.
    """


class Telemetry(Callback):
    """Prints the summary; logs examples/s, tokens/s, peak memory, gradient norms and the prompt's norm by layer."""

    def __init__(self, logs: str) -> None:
        self.logs = logs
        self.seconds = 0.0
        self.examples = 0
        self.tokens: Tensor | int = 0
        self._mark = (0.0, 0, 0)
        self._tick = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Work done so far; a resumed run adds to it."""
        return {"seconds": self.seconds, "examples": self.examples, "tokens": int(self.tokens)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the work done before."""
        self.seconds, self.examples, self.tokens = state["seconds"], state["examples"], state["tokens"]

    def on_train_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Say what is about to be trained."""
        if trainer.is_global_zero:
            print(summary(trainer, pl_module, self.logs), flush=True)
        self._mark = (self.seconds, self.examples, int(self.tokens))
        self._tick = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Start the clock."""
        self._tick = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Start the clock again: what is timed is training, the preparation of its batches included."""
        self._tick = time.perf_counter()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: PromptTuner, optimizer: Optimizer) -> None:
        """Log norms, at the steps that are logged."""
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        norms = {
            f"grad_norm/{group}": torch.stack(
                [value.grad.norm() for value in tensors.values() if value.grad is not None]
            )
            for group, tensors in pl_module.groups().items()
        }
        pl_module.log_dict({name: values.norm() for name, values in norms.items()} | pl_module.layer_norms())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: PromptTuner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; every `log_every_n_steps`, log the speed since the last time."""
        now = time.perf_counter()
        self.seconds, self._tick = self.seconds + now - self._tick, now
        self.examples += batch_rows(batch) * trainer.world_size
        self.tokens = self.tokens + batch["attention_mask"].sum() * trainer.world_size
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            done = (self.seconds, self.examples, int(self.tokens))
            seconds, rows, tokens = (a - b for a, b in zip(done, self._mark, strict=True))
            self._mark = done
            speed = {"examples_per_second": rows / seconds, "tokens_per_second": tokens / seconds}
            pl_module.log_dict({f"speed/{key}": float(value) for key, value in speed.items()})
            pl_module.log("memory/peak_mib", peak_memory())
