"""Learning rate schedules, as a function of the step or, for the authors' exponential decay, of the epoch."""

import math
from typing import Any, Literal

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR

from ptune.errors import InputError

Schedule = Literal["linear", "cosine", "constant", "exponential"]


def factor(step: int, total: float, warmup: float, schedule: Schedule) -> float:
    """Share of the peak learning rate at `step` of `total`: linear over `warmup` steps, then the schedule."""
    if step < warmup:
        return step / warmup
    done = 0.0 if schedule == "constant" else min(1.0, (step - warmup) / max(1.0, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done


def needs_total(schedule: Schedule, warmup: float) -> bool:
    """Whether the rate of a step depends on the number of all steps."""
    return schedule in ("linear", "cosine") or (schedule == "constant" and 0 < warmup < 1)


def rates(scheduler: LambdaLR | ExponentialLR, done: int) -> list[float]:
    """The rate of each group after `done` steps, or epochs of the exponential decay, as the scheduler computes it."""
    if isinstance(scheduler, LambdaLR):
        return [float(base) * share(done) for base, share in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    found = [float(base) for base in scheduler.base_lrs]
    for _ in range(done):  # one by one, since powers differ from it in the last bit
        found = [rate * scheduler.gamma for rate in found]
    return found


def scheduler(
    optimizer: Optimizer, trainer: L.Trainer, schedule: Schedule, warmup: float, decay: float
) -> dict[str, Any]:
    """The learning rate schedule in the form that Lightning's `configure_optimizers` returns.

    `exponential` multiplies the rate by `decay` once an epoch and does not reach 0 (P-tuning-v2 b1520c9,
    training/trainer_exp.py, decay 0.95). Raises InputError for a warm-up that has no effect, and for a schedule that
    needs the number of steps where the run has no end.
    """
    if schedule == "exponential":
        if warmup:
            raise InputError(f"warmup: {warmup} has no effect with schedule 'exponential'; leave it out.")
        return {"scheduler": ExponentialLR(optimizer, decay), "interval": "epoch"}
    total = float(trainer.estimated_stepping_batches)
    if math.isinf(total) and needs_total(schedule, warmup):
        raise InputError(
            f"schedule: {schedule!r} needs the number of steps; set trainer.max_epochs or trainer.max_steps."
        )
    steps = warmup * total if warmup < 1 else warmup
    return {"scheduler": LambdaLR(optimizer, lambda step: factor(step, total, steps, schedule)), "interval": "step"}
