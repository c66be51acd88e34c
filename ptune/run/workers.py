"""Several processes of one run: when one is lost or does not answer, the others end with a sentence instead of waiting.

What is private to Lightning here, its launcher's children and its strategy's `_timeout`, was read from 2.6.6.
"""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, final

import lightning as L
import torch.distributed
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ptune.errors import InputError, TrainingError, note
from ptune.run.command import SIGNALS, Stopped

PARENT = "PTUNE_FIRST_PROCESS"
"""Environment variable: the process that has started this one as a process of its run."""

GO_ON = "go on with the same command and --ckpt_path auto"
PATIENCE = 10
"""Seconds in which the main thread may end by itself, for a reason of its own, before the process is ended."""
MEETING = 30
"""Seconds after which a process says that it waits for the others to start."""


@final
class Workers(Callback):
    """Watches the processes of a run beside the main thread, which may be within a collective operation for ever.

    The first process of each machine starts the others there and looks after them; they look after it. A process that
    ends by a signal or with an error ends the run within seconds. One that is frozen, or on another machine, is found
    by the operation that waits for it, after `timeout` seconds. A launcher such as torchrun or srun ends the processes
    it has started itself.

    Args:
        timeout: seconds that a process waits for the others, when they start and in a collective operation. With NCCL,
            torch ends the process at that moment, with its own message.

    Raises:
        InputError: `timeout` is not positive.
    """

    def __init__(self, timeout: float) -> None:
        if not 0 < timeout < threading.TIMEOUT_MAX:
            raise InputError(f"option --worker_timeout {timeout}: must be greater than 0.")
        self.timeout = timeout
        self.children: list[subprocess.Popen] = []
        self.heard = 0
        """Signals that the main thread has come to know of, and sees to."""
        self._met = False
        self._ends = threading.Event()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """The processes have met."""
        self._met = True

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """The main thread ends by itself."""
        self._ends.set()

    @contextmanager
    def watched(self, trainer: L.Trainer) -> Iterator[None]:
        """Look after the other processes as long as this one works; does nothing where there are none."""
        if trainer.world_size == 1:
            yield
            return
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and strategy._timeout == default_pg_timeout:
            strategy._timeout = timedelta(seconds=self.timeout)
        parent = os.getppid() if os.environ.get(PARENT) == str(os.getppid()) and trainer.local_rank else None
        os.environ[PARENT] = str(os.getpid())
        with _signals() as signals:
            threading.Thread(target=self._watch, args=(trainer, parent, signals), daemon=True).start()
            try:
                yield
            except Stopped as error:
                if parent:  # the first process says it
                    os._exit(error.code)
                self.leave(str(error), error.code)
            except TrainingError:
                if parent:
                    os._exit(1)
                raise
            except RuntimeError as error:
                if not _of_a_collective(error):
                    raise
                self._end_after(error, trainer, parent)
            finally:
                self._ends.set()

    def _watch(self, trainer: L.Trainer, parent: int | None, signals: socket.socket) -> None:
        """Look at processes and signals twice a second, until the main thread ends or has not done so in time."""
        began, said, arrived = time.monotonic(), False, []
        since: dict[str, float] = {}
        while not self._ends.is_set():
            if select.select([signals], [], [], 0.5)[0]:
                arrived += [number for number in signals.recv(64) if number in SIGNALS]
            self._take(trainer)
            now = time.monotonic()
            if not said and not self._met and now - began > MEETING and not parent:
                said = True
                note(f"{self._place(trainer)} waits for the others to start, up to {self.timeout:g} seconds.")
            reasons = {}
            if lost := self._lost(trainer):
                reasons[lost] = (1, PATIENCE)
            if parent and os.getppid() != parent:
                reasons[self._first_lost(trainer)] = (1, PATIENCE)
            if len(arrived) > self.heard:
                stopped = Stopped(arrived[-1], f"while waiting for the other processes; {GO_ON}")
                reasons[str(stopped)] = (stopped.code, PATIENCE if self._met else 2)
            since = {reason: since.get(reason, now) for reason in reasons}
            for reason, (code, patience) in reasons.items():
                if now - since[reason] > patience and not self._ends.is_set():
                    self.leave(reason, code)

    def _take(self, trainer: L.Trainer) -> None:
        """Take the children over from Lightning, which would kill this process without a word when one of them ends."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and len(launcher.procs) == launcher.num_processes - 1:
            self.children += launcher.procs
            launcher.procs.clear()

    def _lost(self, trainer: L.Trainer) -> str:
        """The sentence about a child that has ended with an error; empty where none has. One killed comes first."""
        codes = {rank: child.poll() for rank, child in enumerate(self.children, trainer.global_rank + 1)}
        for rank in sorted(codes, key=lambda rank: codes[rank] or 0):
            code = codes[rank]
            if code:
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"error: process {rank} of this run {how}; {GO_ON}."
        return ""

    def _first_lost(self, trainer: L.Trainer) -> str:
        return f"error: the first process of this run has ended, and so does {self._place(trainer)}; {GO_ON}."

    def _place(self, trainer: L.Trainer) -> str:
        return f"process {trainer.global_rank} of {trainer.world_size}"

    def _end_after(self, error: RuntimeError, trainer: L.Trainer, parent: int | None) -> NoReturn:
        """End this process, since a collective operation has failed; the first process of the machine says why."""
        if re.search("[Tt]imed out|[Tt]imeout", str(error)):
            reason = f"error: {self._place(trainer)} has waited {self.timeout:g} seconds for another one; "
            if not self._met and trainer.num_nodes > 1:
                reason += f"trainer.num_nodes: {trainer.num_nodes} needs the command on each machine (torchrun, srun); "
            reason += f"{GO_ON}, and a larger --worker_timeout if it was only slow."
        else:
            reason = f"error: another process of this run has ended, and so does {self._place(trainer)}; {GO_ON}."
            limit = time.monotonic() + 2  # the system may need a moment to tell of it
            while time.monotonic() < limit and not self._lost(trainer) and (parent is None or os.getppid() == parent):
                time.sleep(0.1)
            reason = self._lost(trainer) or reason
        if parent and os.getppid() != parent:
            reason = self._first_lost(trainer)
        elif parent:
            os._exit(1)
        self.leave(reason, 1)

    def leave(self, sentence: str, code: int) -> NoReturn:
        """End the other processes of this machine and this one, without a collective operation, which may not end."""
        self._ends.set()
        for child in self.children:
            child.kill()
        print(sentence, file=sys.stderr, flush=True)
        os._exit(code)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket from which the numbers of signals can be read, even where the main thread cannot run their handlers."""
    read, write = socket.socketpair()
    write.setblocking(False)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False) if in_main_thread else -1
    try:
        yield read
    finally:
        if in_main_thread:
            signal.set_wakeup_fd(before)
        write.close()


def _of_a_collective(error: RuntimeError) -> bool:
    """Whether torch raised the error because another process did not answer or is gone."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
