"""The run directory: where it is, whether it may be used, and which checkpoint a run goes on from."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ptune.errors import InputError
from ptune.run.checkpoints import read
from ptune.run.loggers import Wandb
from ptune.tuning.saving import write_whole

LOCK = ".lock"
"""Locked by the run that writes into its directory; the system frees it when the process ends, however it ends."""


def default(task: str, method: str, backbone: str, seed: int) -> str:
    """runs/<task>/<method>/<backbone>-s<seed>."""
    name = re.sub(r"[^\w.-]+", "-", backbone.removeprefix("package:"))
    name = name.encode()[-200:].decode(errors="ignore").strip("-.")  # a name has at most 255 bytes
    return str(Path("runs", task, method, f"{name}-s{seed}"))


def open_run(run_dir: str, ckpt_path: str | None) -> tuple[str | None, int]:
    """The checkpoint to go on from and its step, (None, 0) for a new run; nothing is ever overwritten.

    `last` is the last checkpoint in the directory; `auto` is the same, or a new beginning where there is none yet.

    Raises:
        InputError: the directory holds a finished run; or a run, and no checkpoint of it is given; or the checkpoint is
            not there or damaged.
    """
    folder = Path(run_dir)
    last = folder / "last.ckpt"
    if rank_zero_only.rank != 0:  # Lightning starts this process after the first one has made the directory
        return str(last) if ckpt_path == "last" or (ckpt_path == "auto" and last.is_file()) else _given(ckpt_path), 0
    check_free(run_dir, ckpt_path)
    if ckpt_path is None:
        return None, 0
    if ckpt_path == "auto" and not last.is_file():
        return None, 0
    path = last if ckpt_path in ("last", "auto") else Path(ckpt_path)
    if (folder / "config.yaml").exists() and folder.resolve() not in path.resolve().parents:
        raise InputError(
            f"ckpt_path: {str(path)!r} is of another run than {run_dir!r} holds; choose another --run_dir."
        )
    return str(path), read(path, folder)["global_step"]


def check_free(run_dir: str, ckpt_path: str | None) -> None:
    """Raise InputError where the directory holds a finished run, or an unfinished one that no checkpoint continues."""
    if rank_zero_only.rank != 0:  # the first process has checked it, and writes into it since
        return
    if Path(run_dir, "result.json").exists():
        raise InputError(f"run_dir: {run_dir!r} holds a finished run; choose another --run_dir.")
    if ckpt_path is None and Path(run_dir, "config.yaml").exists():
        raise InputError(
            f"run_dir: {run_dir!r} holds an unfinished run; go on with --ckpt_path auto, or choose another."
        )


def _given(ckpt_path: str | None) -> str | None:
    return None if ckpt_path == "auto" else ckpt_path


@contextmanager
def made(run_dir: str) -> Iterator[None]:
    """Create the run directory and keep other runs out of it while this one writes.

    It is removed again where the run is refused before it has written anything.

    Raises:
        InputError: it cannot be written, or another run writes there.
    """
    make(run_dir)
    file = Path(run_dir, LOCK)
    lock = FileLock(file, timeout=0)
    if rank_zero_only.rank == 0:
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"run_dir: another run writes into {run_dir!r}; wait for it, or choose another."
            ) from error
        for torn in Path(run_dir).glob(".*.tmp"):  # a run was killed while it wrote
            torn.unlink()
    try:
        yield
    except InputError:
        with suppress(OSError):
            file.unlink()
            Path(run_dir).rmdir()  # only an empty one
        raise
    finally:
        lock.release()


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
