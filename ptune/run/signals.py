"""SIGINT and SIGTERM: a run that trains ends at its next step with a checkpoint and the signal's exit code.

Schedulers and `timeout` send SIGTERM. Lightning takes it for the end of a fit, and the process would exit with code 0.
"""

import os
import signal
import threading
from types import FrameType
from typing import final

import lightning as L
from lightning.pytorch.callbacks import Callback

from ptune.run.checkpoints import RunCheckpoint
from ptune.run.command import SIGNALS, Stopped, stop_now
from ptune.tuning import resume


@final
class StopAtStep(Callback):
    """While a run trains, notes a signal, writes `last.ckpt` at the end of the step and raises `Stopped`.

    A second signal stops at once. During a validation there is no step to wait for: `last.ckpt` is then the one before.
    In several processes the first one decides: it writes without a collective operation, which would wait for processes
    that have ended, ends the others and leaves.

    Args:
        last: the callback that writes `last.ckpt`.
    """

    def __init__(self, last: RunCheckpoint) -> None:
        self.last = last
        self.signal = 0
        self.saved = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which gives them back when the fit ends."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note if trainer.is_global_zero else signal.SIG_IGN)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let later signals end the process at once."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, stop_now)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            stop_now(number, frame)
        self.signal = number

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write the checkpoint; the run stops when the step is logged."""
        if self.signal and not self.saved:
            resume.save(trainer, self.last.path)
            self.saved = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, _: int) -> None:
        """Stop before the next step."""
        self._stop(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before a validation, which the resumed run begins with."""
        self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at the end of an epoch."""
        self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop within a validation."""
        if self.signal:
            self._leave(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self.saved:
            self._leave(trainer)

    def _leave(self, trainer: L.Trainer) -> None:
        where = f"step {trainer.global_step}"
        stopped = Stopped(self.signal, f"at {where}; go on with the same command and --ckpt_path auto")
        if trainer.world_size == 1:
            raise stopped
        for logger in trainer.loggers:
            logger.finalize("failed")
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # type: ignore[attr-defined]
        print(stopped, flush=True)
        os._exit(stopped.code)
