"""The run directory: where it is, whether it may be used, and which checkpoint a run goes on from."""

import json
import math
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, final

from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ptune.errors import InputError, note
from ptune.run import resolved
from ptune.run.checkpoints import read
from ptune.run.cli import CLI
from ptune.run.directory import PREDICTIONS
from ptune.run.identity import Identity
from ptune.run.metrics_log import MetricsLog
from ptune.tuning.saving import write_whole

LOCK = ".lock"
"""Locked by the run that writes into its directory; the system frees it when the process ends, however it ends."""
WRITER = ".writer"
"""Who holds the lock. It is a file of its own, since older versions of filelock truncate the other one when they try.
A process that is killed leaves it behind."""
RUN = ("config.yaml", "last.ckpt")
"""Files of which each shows that a directory holds a run."""


@final
@dataclass(frozen=True)
class Start:
    """Where a run begins."""

    path: str | None = None
    """The checkpoint it goes on from; None for a new run."""
    checkpoint: dict[str, Any] = field(default_factory=dict)
    """What that holds, without its tensors."""
    elsewhere: bool = False
    """Whether that lies outside of the run's directory, since another run has written it."""
    stamp: tuple[int, int] | None = None
    """Time and size of the file that decided it, None where there was none."""

    @property
    def step(self) -> int:
        """Optimizer steps that are done."""
        return self.checkpoint.get("global_step", 0)


def open_run(run_dir: str, ckpt_path: str | None) -> Start:
    """The checkpoint to go on from; nothing is ever overwritten.

    `last` is the last checkpoint in the directory; `auto` is the same, or a new beginning where there is none yet.

    Raises:
        InputError: the directory holds a finished run; or a run, and no checkpoint of it is given; or the checkpoint is
            not there or damaged.
    """
    folder = Path(run_dir)
    path = _checkpoint(run_dir, ckpt_path)
    if rank_zero_only.rank != 0:  # Lightning starts this process after the first one has made the directory
        return Start(str(path) if path and (ckpt_path != "auto" or path.is_file()) else None)
    check_free(run_dir, ckpt_path)
    stamp = _stamp(path)
    if path is None or (ckpt_path == "auto" and stamp is None):
        return Start(stamp=stamp)
    elsewhere = folder.resolve() not in path.resolve().parents
    if elsewhere and _holds_run(folder):
        raise InputError(
            f"ckpt_path: {str(path)!r} is of another run than {run_dir!r} holds; choose another --run_dir."
        )
    held = read(path, folder)
    told = {key: held[key] for key in held if key not in ("state_dict", "optimizer_states")}
    return Start(str(path), told, elsewhere, stamp)


def done_before(run_dir: str, identity: Identity) -> dict[str, Any] | None:
    """What `result.json` of a directory holds, and a line on stderr, where that is this run; None otherwise.

    For a job that Slurm starts again: its run may have been finished when it was stopped.
    """
    try:
        found = json.loads(Path(run_dir, "result.json").read_text(encoding="utf-8"))
        same = found["hash"] == identity.changed(found["changes"]).hash
    except (OSError, ValueError, KeyError, TypeError):  # not there, or torn
        return None
    if same and rank_zero_only.rank == 0:
        note(f"{run_dir!r} holds this run, which is finished; nothing is left to do.")
    return found if same else None


def check_free(run_dir: str, ckpt_path: str | None) -> None:
    """Raise InputError where the directory holds a finished run, or an unfinished one that no checkpoint continues."""
    if rank_zero_only.rank != 0:  # the first process has checked it, and writes into it since
        return
    if Path(run_dir, "result.json").exists():
        raise InputError(f"run_dir: {run_dir!r} holds a finished run; choose another --run_dir.")
    if ckpt_path is None and _holds_run(Path(run_dir)):
        raise InputError(
            f"run_dir: {run_dir!r} holds an unfinished run; go on with --ckpt_path auto, or choose another."
        )


def check_unchanged(run_dir: str, ckpt_path: str | None, start: Start) -> None:
    """Check the directory again when it is locked: another run may have written there since `open_run`.

    Raises:
        InputError: it holds a finished run, or another checkpoint than `start` goes on from.
    """
    check_free(run_dir, ckpt_path)
    if rank_zero_only.rank == 0 and _stamp(_checkpoint(run_dir, ckpt_path)) != start.stamp:
        raise InputError(f"ckpt_path: another run has written into {run_dir!r} meanwhile; repeat the command.")


def _checkpoint(run_dir: str, ckpt_path: str | None) -> Path | None:
    return Path(run_dir, "last.ckpt") if ckpt_path in ("last", "auto") else Path(ckpt_path) if ckpt_path else None


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None or not path.is_file():
        return None
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN)


@contextmanager
def made(run_dir: str) -> Iterator[None]:
    """Create the run directory and keep other runs out of it while this one writes.

    Folders that it has created are removed again where nothing was written into them. A directory that a killed process
    has left is taken over, with a line on stderr that names the process.

    The lock is the system's flock. It holds for all machines that share a directory where the file system passes it to
    its server: NFS on Linux since 2.6.12 and NFSv4, Lustre mounted with `flock`, GPFS, CephFS. With the mount options
    `nolock`, `local_lock` or `localflock` it holds on one machine only. Where there is no flock at all, filelock takes
    the existence of `.lock` for the lock, which a killed run leaves behind.

    Raises:
        InputError: the directory cannot be written or locked, or another run writes there.
    """
    folder = Path(run_dir)
    if rank_zero_only.rank != 0:
        yield
        return
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    make(run_dir)
    lock, writer = FileLock(folder / LOCK, timeout=0), folder / WRITER
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"run_dir: another run{_shown(writer)} writes into {run_dir!r}; wait for it, or choose another."
        ) from error
    except OSError as error:
        raise InputError(f"run_dir: {run_dir!r} cannot be locked ({error.strerror}); choose another.") from error
    if writer.exists():
        print(
            f"note: {run_dir!r} was left by a run{_shown(writer)}, which is gone; this one takes it over.",
            file=sys.stderr,
        )
    for torn in (*folder.glob(".*.tmp"), *(folder / PREDICTIONS).glob(".*.tmp")):  # a run was killed while it wrote
        torn.unlink()
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    with suppress(OSError):  # a full disk: it is for others to read
        writer.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": now}))
    try:
        yield
    finally:
        with suppress(OSError):
            writer.unlink(missing_ok=True)
            if [file.name for file in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # only empty ones
            for path in created:
                path.rmdir()


def _shown(writer: Path) -> str:
    """Who holds or held the lock, in brackets; nothing where that cannot be read."""
    try:
        held = json.loads(writer.read_text())
        return f" (pid {int(held['pid'])} on {str(held['host'])[:80]!a}, since {str(held['start'])[:40]!a})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def make(run_dir: str) -> None:
    """Create the run directory; InputError where it cannot be written."""
    try:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=run_dir):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"run_dir: {run_dir!r} cannot be written ({reason}); choose another.") from error


def begin(cli: CLI, config: str, trainer: Trainer) -> str:
    """Write `config.yaml`, tell the loggers what the run is and start W&B, now that every check is passed.

    So a run that is refused leaves nothing. Called in the first process alone, when the backbone is loaded.

    Args:
        cli: the options, model and data.
        config: the resolved configuration.
        trainer: the trainer, in its fit or before an evaluation.

    Returns:
        Where the run's numbers go, in words.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return "nowhere: fast_dev_run"
    described = cli.described()
    for logger in trainer.loggers:
        logger.log_hyperparams(described)
    write_config(Path(cli.run_dir), config)
    if cli.wandb is None:
        others = [type(logger).__name__ for logger in trainer.loggers if not isinstance(logger, MetricsLog)]
        return ", ".join([f"{cli.run_dir}/metrics.csv", *others])
    steps = trainer.estimated_stepping_batches if trainer.training else math.inf
    own, said = cli.wandb.logger(cli.run_dir, cli.identity, described, cli.datamodule.task.metrics, steps)
    trainer.loggers += [own] if own else []
    return said


def write_config(folder: Path, config: str) -> None:
    """Write `config.yaml`, unless it holds these options already; other ones stay as `config-1.yaml`, `-2` and so on.

    A file that a full disk or a kill has torn is replaced, with a line that says so.
    """
    file = folder / "config.yaml"
    before = resolved.stored(file)
    if before is not None and before == resolved.options(config):
        return
    if before is not None:
        kept = next(path for i in count(1) if not (path := folder / f"config-{i}.yaml").exists())
        write_whole(kept, file.read_bytes())
    elif file.exists():
        print(f"note: {file} holds no whole configuration and is written again.", file=sys.stderr)
    write_whole(file, config.encode())
