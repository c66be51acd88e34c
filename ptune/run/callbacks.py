"""What a run says about itself: before training, what is trained and how; during it, speed, memory and norms."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, final

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from ptune.errors import printable
from ptune.tuning.peft_gaps import gaps
from ptune.tuning.steps import batch_rows
from ptune.tuning.tuner import PromptTuner


def peak_memory() -> float:
    """Largest memory used so far, in MiB: of the GPU where there is one, else of the process; nan on Windows."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def summary(trainer: L.Trainer, model: PromptTuner, logs: str) -> str:
    """What is trained, and the choices a reader needs to reproduce the run; `logs` says where its numbers go."""
    choice, backbone, data = model.hparams, model.backbone, trainer.datamodule  # type: ignore[attr-defined]
    trained = model.trained()
    count, total = sum(value.numel() for value in trained.values()), model.backbone_size
    lines = [f"{type(model).__name__} of {choice['backbone']} ({backbone.fingerprint}) on {model.head_spec.task}"]
    for group, tensors in model.groups().items():
        n = sum(value.numel() for value in tensors.values())
        names = ", ".join(list(tensors)[:4]) + (f", ... ({len(tensors)} tensors)" if len(tensors) > 4 else "")
        lines.append(f"  trained {group:<9}{n:>12,}  {names}")
    lines.append(f"  trained in all   {count:>12,}  {100 * count / total:.3f} % of the backbone's {total:,}")
    effective = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    rates = ", ".join(f"{group} {model.rates[group]:g}" for group in model.groups())
    warmup = choice["warmup"]
    ramp = "" if not warmup else f", warm-up {f'{100 * warmup:g} %' if warmup < 1 else f'{warmup:g} steps'}"
    steps = trainer.estimated_stepping_batches
    choices = {
        **({"data": "; ".join(data.said)} if data.said else {}),
        "weights": f"{backbone.dtype}, attention {backbone.attention}",
        "reading": _reading(model),
        **({"start": choice["init"]} if isinstance(choice.get("init"), str) else {}),
        "positions": f"{backbone.room or 'unlimited'}, text from {model.shift}",
        "dropout": f"backbone {'on' if choice['backbone_dropout'] else 'off'}, head {choice['head_dropout']}",
        "device": f"{trainer.strategy.root_device}, precision {trainer.precision}",
        "rates": f"{rates}; {choice['schedule']}{ramp}, weight decay {choice['weight_decay']:g}",
        "length": f"{_epochs(trainer)}, {'no end' if steps == float('inf') else f'{steps:,} steps'}",
        "batch": f"{effective} ({data.batch_size} x {trainer.world_size} processes x "
        f"{trainer.accumulate_grad_batches} batches)",
        "rows": _rows(trainer, data),
        "PEFT": _exportable(model),
        "seed": os.environ.get("PL_GLOBAL_SEED", "none"),
        "run": trainer.default_root_dir,
        "logs": logs,
    }
    return "\n".join(map(printable, lines + [f"  {key:<10}{value}" for key, value in choices.items()]))


def _reading(model: PromptTuner) -> str:
    """What the head reads, and how its answer is decoded where there is a choice."""
    spec = model.head_spec
    read = spec.template or (f"pooled: {model.backbone.pooling}" if model.head.pools else "every token")
    return read + (f"; the best tags that {spec.decoding} allows (Viterbi)" if spec.decoding else "")


def _exportable(model: PromptTuner) -> str:
    """Whether `ptune.export` can write an adapter for PEFT, and all the options that stand in the way."""
    reasons = gaps(model)
    if not reasons:
        return "can be exported"
    if len(reasons) == 1:
        return f"cannot be exported: {reasons[0].rstrip('.')}"
    listed = "; ".join(f"({i}) {reason.rstrip('.')}" for i, reason in enumerate(reasons, 1))
    return f"cannot be exported: {listed}"


def _epochs(trainer: L.Trainer) -> str:
    epochs = trainer.max_epochs
    return f"{epochs} epoch{'s' * (epochs != 1)} at most" if epochs and epochs > 0 else "epochs without a limit"


def _rows(trainer: L.Trainer, data: Any) -> str:
    """Training rows an epoch, and what the checkpoint is chosen on."""
    loader = trainer.train_dataloader
    rows = len(loader.dataset)  # type: ignore[union-attr]
    batches = int(trainer.num_training_batches) * trainer.world_size
    used = min(rows, batches * data.batch_size)
    shown = f"{rows:,}" if used >= rows - rows % (data.batch_size * trainer.world_size) else f"{used:,} of {rows:,}"
    return f"{shown} an epoch; the checkpoint is chosen on {data.chosen_how}"


@final
class Beginning(Callback):
    """Calls `begin` when all checks are passed, right before the first step, and prints the summary.

    Args:
        begin: opens what a run that is refused must not leave behind, and says where the run's numbers go.
    """

    def __init__(self, begin: Callable[[L.Trainer], str]) -> None:
        self.begin = begin

    def on_train_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Say what is about to be trained."""
        if trainer.is_global_zero:
            logs = self.begin(trainer)
            print(summary(trainer, pl_module, logs), flush=True)


@final
class Telemetry(Callback):
    """Logs examples/s, tokens/s, peak memory, gradient norms and the prompt's norm by layer."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.examples = 0
        self.tokens: Tensor | int = 0
        self._mark = (0.0, 0, 0)
        self._tick = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Seconds, examples and tokens so far; a resumed run adds to them."""
        return {"seconds": self.seconds, "examples": self.examples, "tokens": int(self.tokens)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the counts of the part of the run that is done."""
        self.seconds, self.examples, self.tokens = state["seconds"], state["examples"], state["tokens"]

    def on_train_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Start the counts between two logged speeds."""
        self._mark = (self.seconds, self.examples, int(self.tokens))
        self._tick = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Start the clock."""
        self._tick = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Start the clock again: training is timed with the preparation of its batches, without validation."""
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
