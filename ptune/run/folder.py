"""The run directory: where it is, whether it may be used, and which checkpoint a run goes on from."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ptune.errors import InputError
from ptune.run.loggers import Wandb
from ptune.tuning.saving import write_whole


def default(task: str, method: str, backbone: str, seed: int) -> str:
    """runs/<task>/<method>/<backbone>-s<seed>."""
    name = re.sub(r"[^\w.-]+", "-", backbone.removeprefix("package:")).strip("-.")
    return str(Path("runs", task, method, f"{name}-s{seed}"))


def open_run(run_dir: str, ckpt_path: str | None) -> tuple[str | None, int]:
    """The checkpoint to go on from and its step, (None, 0) for a new run; nothing is ever overwritten.

    Raises:
        InputError: the directory holds a run and no checkpoint is given, or the checkpoint is not there.
    """
    folder = Path(run_dir)
    if rank_zero_only.rank != 0:  # Lightning starts this process after the first one has made the directory
        return str(folder / "last.ckpt") if ckpt_path == "last" else ckpt_path, 0
    if ckpt_path is None:
        if (folder / "result.json").exists():
            raise InputError(f"run_dir: {run_dir!r} holds a finished run; choose another --run_dir.")
        if (folder / "config.yaml").exists():
            raise InputError(
                f"run_dir: {run_dir!r} holds an unfinished run; go on with --ckpt_path last, or choose another."
            )
        return None, 0
    path = folder / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    return str(path), read_checkpoint(path, folder)["global_step"]


def read_checkpoint(path: Path, run_dir: Path) -> dict:
    """A checkpoint on the CPU. Raises InputError where it is not there or is none; `run_dir` is searched for others."""
    if not path.is_file():
        there = ", ".join(sorted(str(file) for file in run_dir.glob("*.ckpt"))) or "none"
        raise InputError(f"ckpt_path: {str(path)!r} does not exist; checkpoints in {str(run_dir)!r}: {there}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not {"global_step", "metadata", "state_dict"} <= checkpoint.keys():
            raise ValueError("keys are missing")
    except Exception as error:  # what torch raises for a file of another kind depends on the file
        raise InputError(f"ckpt_path: {str(path)!r} is not a checkpoint that a run wrote; give such a file.") from error
    return checkpoint


@contextmanager
def made(run_dir: str) -> Iterator[None]:
    """Create the run directory, and remove it again where the run is refused before it has written anything."""
    make(run_dir)
    try:
        yield
    except InputError:
        with suppress(OSError):
            Path(run_dir).rmdir()  # only an empty one
        raise


def make(run_dir: str) -> None:
    """Create the run directory; InputError where it cannot be written."""
    try:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=run_dir):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"run_dir: {run_dir!r} cannot be written ({reason}); choose another.") from error


def begin(run_dir: str, config: str, trainer: Trainer, wandb: Wandb | None, columns: dict[str, Any]) -> str:
    """Write `config.yaml` and start W&B, now that every check is passed: a run that is refused leaves nothing.

    Called in the first process alone. Returns where the run's numbers go, in words.
    """
    logs = f"{run_dir}/metrics.csv"
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return "nowhere: fast_dev_run"
    file = Path(run_dir, "config.yaml")
    if not file.exists():  # a resumed run has one
        write_whole(file, config.encode())
    if wandb is None:
        return logs
    logger, said = wandb.logger(run_dir, columns)
    trainer.loggers += [logger] if logger else []
    return said
