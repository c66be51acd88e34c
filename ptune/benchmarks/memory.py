"""The peak memory of a row, in a process of its own."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import transformers

from ptune.benchmarks import rows
from ptune.benchmarks.contender import Setting
from ptune.benchmarks.resident import largest

STEPS = 3
"""Steps before memory is read: AdamW makes its state in the first one."""
MIB = 2**20
RESET = Path("/proc/self/clear_refs")


def peak(name: str, setting: Setting) -> float:
    """MiB that a row takes at most in its training steps, weights, gradients and optimizer included.

    A fresh process makes the row and takes STEPS steps. On a GPU the number is torch's `max_memory_allocated`. On the
    CPU it is the process's largest resident memory in these steps less its resident memory after the imports. So no
    row is charged for another one, for the libraries, or (on Linux) for what loading needs for a moment.
    """
    context = multiprocessing.get_context("forkserver")  # its server imports once, and each process begins from there
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak, name, setting).result()


def _peak(name: str, setting: Setting) -> float:
    transformers.utils.logging.disable_progress_bar()
    before = largest()
    contender = rows.ROWS[name](setting)
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists():
        RESET.write_text("5")  # sets the peak to the present size
    for _ in range(STEPS):
        contender.step()
    if setting.device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    return (largest() - before) / MIB
