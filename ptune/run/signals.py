"""SIGINT, SIGTERM and SIGUSR1: a run that trains ends at its next step with a checkpoint and the signal's exit code.

Schedulers and `timeout` send SIGTERM, clusters SIGUSR1 before a time limit. Lightning takes SIGTERM for the end of a
fit, and the process would exit with code 0.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import final

import lightning as L
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from ptune.run import slurm
from ptune.run.checkpoints import RunCheckpoint
from ptune.run.command import SIGNALS, Stopped, stop_now
from ptune.run.workers import GO_ON, Workers
from ptune.tuning import resume


@final
class StopAtStep(Callback):
    """While a run trains, notes a signal, writes `last.ckpt` at the end of the step and raises `Stopped`.

    Within a validation, `last.ckpt` is the state before it, and the resumed run begins with the validation. A signal is
    only noted, so that it interrupts no checkpoint that is being written; a second one stops at once.

    In a Slurm job that Lightning is to put into the queue again (`auto_requeue`), the requeue signal, SIGUSR1, does
    that behind the checkpoint.

    In several processes the first one decides: it writes without a collective operation, which would wait for processes
    that have ended, ends the others and leaves.

    Args:
        last: the callback that writes `last.ckpt`.
        workers: the processes of the run.
    """

    def __init__(self, last: RunCheckpoint, workers: Workers) -> None:
        self.last, self.workers = last, workers
        self.signal = 0
        self.saved = False
        self._requeue_signal = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which gives them back when the fit ends."""
        environment = resume.cluster(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            self._requeue_signal = environment.requeue_signal
        self._handle(trainer, self._note)

    def _handle(self, trainer: L.Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
        """Let a signal call the handler in the first process; the others leave it to that one."""
        if threading.current_thread() is threading.main_thread():
            for number in {*SIGNALS, self._requeue_signal} - {0}:
                signal.signal(number, handler if trainer.is_global_zero else signal.SIG_IGN)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            stop_now(number, frame)
        self.signal = number
        self.workers.heard += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write the checkpoint; the run stops when the step is logged."""
        if self.signal:
            self._save(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, _: int) -> None:
        """Stop before the next step."""
        if self.saved:
            self._leave(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before a validation, which the resumed run begins with; a signal ends the one of the result at once."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._end_at_once(trainer)
        self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop within a validation."""
        self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at the end of an epoch."""
        if self.saved:
            self._leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop behind the last checkpoint; a later signal ends the process at once."""
        if self.signal:
            self._leave(trainer)
        self._end_at_once(trainer)

    def _end_at_once(self, trainer: L.Trainer) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            self.signal = number
            self._leave(trainer)

        self._handle(trainer, end)

    def _stop(self, trainer: L.Trainer) -> None:
        if self.signal:
            self._save(trainer)
            self._leave(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if not self.saved:
            resume.save(trainer, self.last.path)
            self.saved = True

    def _leave(self, trainer: L.Trainer) -> None:
        for number in SIGNALS:  # Slurm sends SIGTERM to a job that it puts into the queue
            signal.signal(number, signal.SIG_IGN)
        how = GO_ON
        if self.signal == self._requeue_signal:
            how = slurm.requeue()
            how = f"{how}; {GO_ON}" if how else "Slurm starts the job again, and the same command goes on"
        stopped = Stopped(self.signal, f"at step {trainer.global_step}; {how}")
        if trainer.world_size == 1:
            raise stopped
        for logger in trainer.loggers:
            logger.finalize("failed")
        self.workers.leave(str(stopped), stopped.code)
