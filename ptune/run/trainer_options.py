"""Options of Lightning's trainer that are checked before it is built."""

import math
import os
import re

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from ptune.errors import InputError

LEAST = {
    "log_every_n_steps": 1,
    "accumulate_grad_batches": 1,
    "val_check_interval": 0,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
}
"""Smallest values of Trainer options that Lightning accepts below and divides by, or trains something else with."""


def check(trainer: Namespace) -> None:
    """Refuse what Lightning accepts and does not do, or finds in the middle of a run.

    Raises:
        InputError: a number below what it may be, an option that a run cannot be resumed with, or more processes than
            the CPU has cores.
    """
    _check_numbers(trainer)
    _check_devices(trainer)


def _check_numbers(trainer: Namespace) -> None:
    for name, least in LEAST.items():
        value = trainer[name]
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not math.isfinite(value) or value < least or (name == "val_check_interval" and value == 0):
            bound = "greater than 0" if name == "val_check_interval" else f"at least {least}"
            raise InputError(f"trainer.{name}: {value} must be {bound}.")
    if trainer.overfit_batches:
        raise InputError(
            f"trainer.overfit_batches: {trainer.overfit_batches} would replace the loaders, which a run resumes by; "
            "use --trainer.limit_train_batches with --data.path of a few rows."
        )


def _check_devices(trainer: Namespace) -> None:
    """Refuse more processes than the CPU has cores: Lightning would start them all."""
    devices, cores = str(trainer.devices), os.cpu_count() or 1
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    if isinstance(trainer.strategy, str) and re.search("spawn|fork|notebook", trainer.strategy):
        raise InputError(f"trainer.strategy: {trainer.strategy!r} would pickle the run; use ddp.")
    if on_cpu and devices.isdecimal() and int(devices) > cores:
        raise InputError(f"trainer.devices: {devices}, but this machine has {cores} CPU cores; use {cores} or less.")


def check_processes(trainer: Trainer) -> None:
    """Refuse another number of processes than of devices: in a Slurm job they are its tasks, and Lightning starts none.

    Raises:
        InputError: the job has more or fewer tasks.
    """
    if trainer.world_size != trainer.num_devices * trainer.num_nodes:
        raise InputError(
            f"trainer.devices: {trainer.num_devices} for each of {trainer.num_nodes} nodes, but the job's number of "
            f"tasks is {trainer.world_size}; give it --ntasks-per-node={trainer.num_devices} and start the command by "
            "srun, or change trainer.devices."
        )
