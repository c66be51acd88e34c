"""Processes of a run that are lost, frozen or never come: what the others say, and that they end."""

import os
import signal
import socket
import subprocess
import types
from datetime import timedelta

import lightning as L
import pytest
import runs
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ptune.run import workers
from ptune.run.workers import GO_ON, Workers


class Ended(Exception):
    """The process has ended, with this code."""


@pytest.fixture
def trainer(monkeypatch):
    """What is looked at of the Trainer of a first process that has started another one, which sleeps."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(workers, "PATIENCE", 0.1)
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=2, num_nodes=1)
    child = subprocess.Popen(["sleep", "60"])
    launcher.procs = [child]
    strategy = types.SimpleNamespace(launcher=launcher)
    yield types.SimpleNamespace(strategy=strategy, global_rank=0, world_size=2, num_nodes=1)
    child.kill()
    child.wait()


def ended(trainer, capsys, parent=None, sent=b"") -> tuple[int, str]:
    """Exit code and standard error of a process whose main thread does nothing."""
    here, there = socket.socketpair()
    there.send(sent)
    with pytest.raises(Ended) as found:
        Workers(600)._watch(trainer, parent, here)
    return found.value.args[0], capsys.readouterr().err


def test_a_child_that_is_killed_ends_the_first_process_and_lightning_does_not(trainer, capsys):
    (child,) = trainer.strategy.launcher.procs
    child.kill()
    child.wait()
    assert ended(trainer, capsys) == (1, f"error: process 1 of this run was ended by SIGKILL; {GO_ON}.\n")
    assert trainer.strategy.launcher.procs == [], "Lightning would kill the first process without a word"


def test_a_child_that_fails_is_named_with_its_exit_code(trainer, capsys):
    trainer.strategy.launcher.procs = [subprocess.Popen(["false"])]
    assert ended(trainer, capsys) == (1, f"error: process 1 of this run ended with exit code 1; {GO_ON}.\n")


def test_the_end_of_the_first_process_ends_its_children(trainer, capsys):
    trainer.global_rank, trainer.strategy.launcher = 1, None
    expected = f"error: the first process of this run has ended, and so does process 1 of 2; {GO_ON}.\n"
    assert ended(trainer, capsys, parent=os.getpid()) == (1, expected)


def test_a_signal_that_the_main_thread_cannot_see_to_ends_the_process_and_its_children(trainer, capsys, monkeypatch):
    monkeypatch.setattr(workers, "MEETING", 0)
    (child,) = trainer.strategy.launcher.procs
    code, err = ended(trainer, capsys, sent=bytes([signal.SIGCHLD, signal.SIGTERM]))
    assert code == 143
    assert err.splitlines() == [
        "note: process 0 of 2 waits for the others to start, up to 600 seconds.",
        f"stopped by SIGTERM while waiting for the other processes; {GO_ON}.",
    ]
    assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("nodes", [1, 2])
def test_processes_that_do_not_come_or_answer_are_waited_for_so_long(trainer, capsys, nodes):
    trainer.num_nodes = nodes
    with pytest.raises(Ended):
        Workers(5)._end_after(RuntimeError("[gloo/x.cc:81] Timed out waiting 5000ms for recv"), trainer, None)
    machines = "trainer.num_nodes: 2 needs the command on each machine (torchrun, srun); " if nodes == 2 else ""
    assert capsys.readouterr().err == (
        f"error: process 0 of 2 has waited 5 seconds for another one; {machines}{GO_ON}, and a larger "
        "--worker_timeout if it was only slow.\n"
    )


@pytest.mark.parametrize(("given", "used"), [(None, 600), (7, 7)])
def test_the_timeout_is_that_of_the_process_group_unless_the_strategy_has_its_own(tmp_path, given, used):
    strategy = "ddp" if given is None else DDPStrategy(timeout=timedelta(seconds=given))
    trainer = L.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, default_root_dir=tmp_path)
    with Workers(600).watched(trainer):
        assert trainer.strategy._timeout == timedelta(seconds=used)


@pytest.mark.parametrize("value", ["0", "-1"])
def test_an_impossible_timeout_is_refused(tmp_path, value):
    code, _, err = runs.call([*runs.line(tmp_path / "run"), "--worker_timeout", value])
    assert (code, err.count("\n")) == (2, 1)
    assert f"--worker_timeout {float(value)}: must be greater than 0." in err
