"""`Compiled`: a forward pass that torch.compile compiles, how long that takes, and after how many steps it pays."""

import time
from statistics import median
from typing import Any, final

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ptune.data.base import Batch, TaskData
from ptune.errors import InputError, first_line, note
from ptune.tuning.tuner import PromptTuner

TIMES = 5
"""Passes whose median is the time of one."""


@final
class Compiled(Callback):
    """Compiles the model's forward pass and its gradient before the first step, for batches and texts of any length.

    It times the forward and backward pass of the first training rows before and after. Their gradient is thrown away
    and the random numbers are put back. The first validation compiles the forward pass once more, without a gradient;
    that time is not counted.

    Args:
        data: the data module of the run.

    Attributes:
        about: what `result.json` says of it: `compile_seconds` of the training step, `compiled_step`, the time of a
            compiled step as a part of that of a plain one, and `compile_pays_after` in steps, which is None where a
            compiled step is no faster.
    """

    def __init__(self, data: TaskData) -> None:
        self.data = data
        self.about: dict[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:  # type: ignore[override]
        """Check that torch.compile works here, before anything is written.

        Raises:
            InputError: it does not, mostly because there is no C++ compiler.
        """
        try:
            torch.compile(torch.neg)(torch.ones(1, device=pl_module.device))
        except Exception as error:  # the errors of torch's compilers have no class in common
            raise InputError(
                f"option --compile true: torch.compile does not work on this machine ({first_line(error)}); install a "
                "C++ compiler such as g++, or leave the option out."
            ) from error

    def on_train_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:
        """Compile, measure, and say so.

        A graph holds for the number of transformers' classes whose models were made in the process, so this callback
        stands behind `Beginning`: its summary makes a model of another class.
        """
        items = self.data.items_of(self.data.task.train)
        batch = self.data.collate([items[i] for i in range(min(self.data.batch_size, len(items)))])
        batch = trainer.strategy.batch_to_device(batch)
        _, *plain = (_seconds(trainer, pl_module, batch) for _ in range(1 + TIMES))
        # Not `pl_module.compile`: under DDP Lightning's call of the module is the whole training step.
        pl_module.forward = torch.compile(pl_module.forward, dynamic=True)  # type: ignore[method-assign]
        first, *rest = (_seconds(trainer, pl_module, batch) for _ in range(1 + TIMES))
        before, after = median(plain), median(rest)
        seconds, part = first - after, after / before
        steps = seconds / (before - after) if after < before else None
        self.about = {"compile_seconds": seconds, "compiled_step": part, "compile_pays_after": steps}
        if trainer.is_global_zero:
            pays = "it does not pay here" if steps is None else f"it pays after {steps:,.0f} steps"
            note(f"torch.compile took {seconds:.0f} s; a step takes {part:.2f} times as long as a plain one: {pays}.")


def _seconds(trainer: L.Trainer, model: PromptTuner, batch: Batch) -> float:
    """Of a forward and a backward pass."""
    with torch.random.fork_rng(devices=[]):  # every step seeds the devices by itself
        start = time.perf_counter()
        with trainer.precision_plugin.train_step_context():
            total, count = model.head.loss(model(batch), batch)
        torch.autograd.grad(total / count, [*model.trained().values()], allow_unused=True)
        if model.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - start
