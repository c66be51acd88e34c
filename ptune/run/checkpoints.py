"""Checkpoints of a run: written whole, checked when they are read, and found wherever the run directory lies now."""

import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, final

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import Parameter

from ptune.errors import InputError, note
from ptune.tuning.saving import link_whole, whole

KEYS = {"global_step", "metadata", "state_dict"}
"""What every checkpoint of a run holds."""


def read(path: Path, run_dir: Path) -> dict[str, Any]:
    """A checkpoint on the CPU, whose tensors are read from the file when they are first used.

    torch writes a checkpoint as a zip archive with a checksum for every tensor, and does not compare it when it reads;
    this does. Nothing in it is executed.

    Raises:
        InputError: it is not there (`run_dir` is searched for others), is no checkpoint of a run, or is damaged.
    """
    if not path.is_file():
        there = ", ".join(sorted(str(file) for file in run_dir.glob("*.ckpt"))) or "none"
        raise InputError(f"ckpt_path: {str(path)!r} does not exist; checkpoints in {str(run_dir)!r}: {there}.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not checkpoint.keys() >= KEYS:
            raise KeyError(KEYS - checkpoint.keys())
    except Exception as error:  # what torch raises for a file of another kind depends on the file
        raise InputError(f"ckpt_path: {str(path)!r} is not a checkpoint that a run wrote; give such a file.") from error
    if damaged is not None:
        raise InputError(f"ckpt_path: {str(path)!r} is damaged ({damaged}); give another checkpoint.")
    return checkpoint


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there and can be read."""
    try:
        read(path, path.parent)
    except InputError:
        return False
    return True


@final
class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its target, flushes it to the disk and renames it, so that the one before stays until
    the next is whole.

    Lightning writes it into $TMPDIR and moves it, which copies over the old file where that is another file system.

    What was written last and has not changed since is written once: the second file is a hard link to the first, or a
    file of its own where the file system has no links. `best.ckpt` and `last.ckpt` of an epoch that is the best one are
    such a pair. Neither is ever written into, so that each keeps its content when the other one is replaced.
    """

    def __init__(self) -> None:
        self._path: str | os.PathLike = ""
        self._content: list[Any] = []  # `_content` of what lies there

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        content = list(_content(checkpoint))
        if content == self._content and link_whole(self._path, path):
            return
        try:
            with whole(path) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch ends its archive behind a write that has failed, too, and says that alone
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        self._path, self._content = path, content


def _content(value: Any) -> Iterator[Any]:
    """What a checkpoint holds, flat, so that equal lists are equal content.

    A tensor is told by its place in memory and the count of its changes, which are no proof by themselves: memory that
    was freed is used again. Two states of one run that agree in all their steps and losses are one state, though.
    """
    if isinstance(value, Mapping):
        yield len(value)
        for key, item in value.items():
            yield key
            yield from _content(item)
    elif isinstance(value, list | tuple):
        yield len(value)
        for item in value:
            yield from _content(item)
    elif type(value) in (Tensor, Parameter) and value.layout == torch.strided:  # no other kind has one place in memory
        yield value.data_ptr(), value.shape, 0 if value.is_inference() else value._version
    else:  # what is of another type, such as an array or a sharded tensor, is never equal
        yield value if isinstance(value, str | bytes | int | float | None) else object()


@final
class RunCheckpoint(ModelCheckpoint):
    """Writes `best.ckpt` when the monitored metric improves or, without one, `last.ckpt` every epoch.

    Its state names files, not their folder, so that a run may be moved, copied or renamed. Lightning keeps the states
    of callbacks by class and options, so that the state of a ModelCheckpoint which a user adds is not taken for it.

    Args:
        run_dir: the run directory.
        name: name of the file without `.ckpt`.
        monitor: name of the metric, which is better when it is larger; None writes the state of every epoch.
        every_n_steps: also write every so many steps; 0 does not.
        every_minutes: also write at the end of the first step when so many minutes have passed; 0 does not.

    Raises:
        InputError: a negative or infinite number.
    """

    def __init__(
        self, run_dir: str, name: str, monitor: str | None = None, every_n_steps: int = 0, every_minutes: float = 0.0
    ) -> None:
        super().__init__(run_dir, name, monitor=monitor, mode="max", enable_version_counter=False)
        for option, value in {"every_n_steps": every_n_steps, "every_minutes": every_minutes}.items():
            if not 0 <= value < math.inf:
                raise InputError(f"{option}: {value} must be at least 0 and finite; 0 writes no further checkpoints.")
        self.path = Path(run_dir, f"{name}.ckpt")
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self._step, self._clock = 0, monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._step, self._clock = trainer.global_step, monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a checkpoint where one is due by the validation, unless its loss is not finite."""
        if validated(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write a checkpoint where one is due by the epoch, unless its validation's loss is not finite."""
        if validated(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint where one is due by the steps or by the clock, never between accumulated batches."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        due = bool(self.every_n_steps) and self._step % self.every_n_steps == 0
        if self.every_minutes:
            late = monotonic() - self._clock >= 60 * self.every_minutes
            due = trainer.strategy.broadcast(due or late)  # the clocks of the processes differ
        if due:
            trainer.save_checkpoint(self.path)
            self._clock = monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state without the folder.

        Without a metric, the file is always the same: its name is there before it is written, too.
        """
        state = super().state_dict() | ({} if self.monitor else {"best_model_path": str(self.path)})
        return _renamed(state, os.path.basename) | {"dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's state in the folder of this run; without the best checkpoint where that is missing or damaged."""
        state = _renamed(state_dict, lambda path: os.path.join(str(self.dirpath), os.path.basename(path)))
        super().load_state_dict(state | {"dirpath": self.dirpath})
        best = self.best_model_path
        if self.monitor and best and not is_whole(Path(best)):
            note(f"{best} is missing or damaged; the best of what follows is kept instead.")
            self.best_model_path, self.best_model_score = "", None  # type: ignore[assignment]
            self.best_k_models, self.kth_best_model_path, self.kth_value = {}, "", None  # type: ignore[assignment]


def validated(trainer: L.Trainer) -> bool:
    """Whether the loss of the last validation is finite; it is NaN or infinite where the weights are, or nearly."""
    loss = trainer.callback_metrics.get("val/loss")
    return loss is None or math.isfinite(loss)


def _renamed(state: dict[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """A ModelCheckpoint's state with every path renamed."""
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    paths = {name: rename(state[name]) if state[name] else "" for name in names}
    return state | paths | {"best_k_models": {rename(path): score for path, score in state["best_k_models"].items()}}
