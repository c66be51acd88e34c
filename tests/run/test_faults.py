"""What clusters do to a run: signals, moves, torn files, two runs at once. Nothing is lost, and the exit code tells."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import numpy as np
import pytest
import runs
import torch
from filelock import FileLock
from lightning.pytorch.callbacks import Callback
from processes import LIMIT, Command, two
from test_finite import spoiling

from ptune.run import folder
from ptune.run.checkpoints import WholeCheckpoints
from ptune.run.command import guarded
from ptune.run.workers import GO_ON

EPOCHS, STEPS = 2, 6
OPTIONS = {"trainer__max_epochs": EPOCHS, "model__prefix_dropout": 0.3, "model__lr": 0.05}


class Send(Callback):
    """Sends a signal to the first process when training comes to a step, or to the start or the end of a validation."""

    def __init__(self, number: int, step: int = -1, validation: int = -1, validated: int = -1) -> None:
        self.number, self.step, self.sent = number, step, False
        self.validation, self.validated = validation, validated

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._send(trainer.global_step == self.step and trainer.is_global_zero)

    def on_validation_start(self, trainer, pl_module):
        self._send(trainer.current_epoch == self.validation)

    def on_validation_end(self, trainer, pl_module):
        self._send(trainer.current_epoch == self.validated)

    def _send(self, now):
        if now and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)


def sending(**arguments) -> list[str]:
    """Options that add the callback."""
    words = [f"--trainer.callbacks+={__name__}.Send"]
    return words + [f"--trainer.callbacks.{name}={int(value)}" for name, value in arguments.items()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The outcome of a run that nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    runs.fit(run_dir, **OPTIONS)
    return runs.outcome(run_dir)


@pytest.fixture
def stopped(tmp_path):
    """A run that SIGTERM stopped behind its fourth step: its directory and command line."""
    words = runs.line(tmp_path / "run", **OPTIONS)
    code, _, err = runs.call([*words, *sending(number=signal.SIGTERM, step=4)])
    assert code == 143, err
    return tmp_path / "run", words


def resumed(words) -> None:
    """Go on to the end."""
    code, _, err = runs.call([*words, "--ckpt_path", "auto"])
    assert code == 0, err


# ---- signals


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGINT, 130, 1), (signal.SIGUSR1, 138, 2), *((signal.SIGTERM, 143, step) for step in range(STEPS))],
)
def test_a_signal_ends_a_run_with_its_code_and_a_line_and_the_resumed_run_is_the_whole_one(
    whole, tmp_path, number, code, step
):
    words = runs.line(tmp_path / "run", **OPTIONS)
    found, _, err = runs.call([*words, *sending(number=number, step=step)])
    assert found == code
    name = signal.Signals(number).name
    assert err.splitlines()[-1] == (
        f"stopped by {name} at step {step + 1}; go on with the same command and --ckpt_path auto."
    )
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == step + 1
    assert not (tmp_path / "run" / "result.json").exists()
    resumed(words)
    assert runs.outcome(tmp_path / "run") == whole


@pytest.mark.parametrize("when", [{"validation": 0}, {"validation": 1}, {"validated": 1}])
def test_a_signal_within_a_validation_or_behind_it_costs_no_step(whole, tmp_path, when):
    words = runs.line(tmp_path / "run", **OPTIONS)
    code, _, err = runs.call([*words, *sending(number=signal.SIGTERM, **when)])
    step = STEPS // EPOCHS * (1 + next(iter(when.values())))
    assert code == 143
    assert err == f"stopped by SIGTERM at step {step}; go on with the same command and --ckpt_path auto.\n"
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == step
    resumed(words)
    assert runs.outcome(tmp_path / "run") == whole


def test_a_signal_while_the_result_is_measured_ends_at_once_and_costs_no_step(whole, tmp_path):
    words = runs.line(tmp_path / "run", **OPTIONS)
    code, _, err = runs.call([*words, *sending(number=signal.SIGTERM, validation=EPOCHS)])
    assert (code, err) == (143, f"stopped by SIGTERM at step {STEPS}; {GO_ON}.\n")
    resumed(words)
    assert runs.outcome(tmp_path / "run") == whole


def test_a_signal_while_a_checkpoint_is_read_is_no_damage_of_it(stopped, whole, monkeypatch):
    def interrupted(*args, load=torch.load, **options):
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return load(*args, **options)

    (run_dir, words), sent = stopped, []
    monkeypatch.setattr(torch, "load", interrupted)
    code, _, err = runs.call([*words, "--ckpt_path", "auto"])
    assert (code, err.splitlines()[-1][:18]) == (143, "stopped by SIGTERM")
    resumed(words)
    assert runs.outcome(run_dir) == whole


def test_an_error_while_stopped_work_is_cleaned_up_does_not_hide_the_signal(capsys):
    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            raise RuntimeError("a loader that has only begun has no length")

    assert guarded(work) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM.\n"


def test_the_handlers_of_the_process_are_what_they_were(handlers, stopped):
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.fixture
def handlers():
    """The handlers before a run: a process that was started in the background ignores SIGINT."""
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A job of Slurm; slurm("exit 1") makes its scontrol, whose arguments are in tmp_path/asked, end so."""

    def begin(end=""):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{end}\n')
        (tmp_path / "bin" / "scontrol").chmod(0o755)
        numbers = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "NNODES": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_ID": 77}
        for name, value in numbers.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        monkeypatch.setenv("SLURM_JOB_NAME", "train")
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    return begin


def test_in_a_slurm_job_the_requeue_signal_starts_it_again_and_the_same_command_goes_on(
    whole, tmp_path, slurm, monkeypatch
):
    slurm()
    words = [*runs.line(tmp_path / "run", **OPTIONS), *sending(number=signal.SIGUSR1, step=1)]
    code, _, err = runs.call(words)
    assert (code, err) == (
        138,
        "stopped by SIGUSR1 at step 2; Slurm starts the job again, and the same command goes on.\n",
    )
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert not list((tmp_path / "run").glob("hpc_ckpt*"))
    code, _, err = runs.call(words)
    assert (code, "holds an unfinished run" in err) == (2, True), "another job does not go on by itself"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    code, _, err = runs.call(words)
    assert code == 0, err
    assert runs.outcome(tmp_path / "run") == whole
    before = runs.contents(tmp_path / "run")
    code, _, err = runs.call(words)
    assert (code, err) == (0, f"note: '{tmp_path}/run' holds this run, which is finished; nothing is left to do.\n")
    code, _, err = runs.call([*words, "--model.lr", "0.01"])
    assert (code, "holds a finished run" in err) == (2, True), "of other options it is another run"
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    code, _, err = runs.call(words)
    assert (code, "holds a finished run" in err) == (2, True), "another job's run would be lost"
    assert runs.contents(tmp_path / "run") == before


def test_a_slurm_job_that_cannot_be_started_again_says_how_to_go_on(tmp_path, slurm, monkeypatch):
    slurm("echo Requeue is disabled >&2; exit 1")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "80")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    code, _, err = runs.call([*runs.line(tmp_path / "run", **OPTIONS), *sending(number=signal.SIGUSR1, step=0)])
    assert (code, err) == (
        138,
        f"stopped by SIGUSR1 at step 1; `scontrol requeue 80_3` failed: Requeue is disabled; {GO_ON}.\n",
    )


def test_devices_that_a_slurm_job_has_no_tasks_for_are_refused(tmp_path, slurm, monkeypatch):
    slurm()
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    code, _, err = runs.call(runs.line(tmp_path / "run", trainer__devices=2))
    assert (code, err) == (
        2,
        "error: trainer.devices: 2 for each of 1 nodes, but the job's number of tasks is 1; give it "
        "--ntasks-per-node=2 and start the command by srun, or change trainer.devices.\n",
    )
    assert not (tmp_path / "run").exists()


# ---- two processes


@pytest.mark.slow
def test_two_processes_leave_a_step_out_alike_and_a_signal_to_the_first_ends_both(tmp_path):
    words = runs.line(tmp_path / "run", **OPTIONS, trainer__devices=2, data__batch_size=2)
    words += ["--wandb.enabled", "false", *sending(number=signal.SIGTERM, step=3)]
    words += ["--skip_nonfinite", "1", *spoiling([2], "loss")]  # of the second process
    first, second = two(["-m", "ptune.fit", *words], tmp_path)
    assert (first.code, second.code) == (143, 1), first.err + second.err
    assert "note: step 2 is left out: its loss or gradient is not finite (1 of at most 1)." in first.err
    assert first.err.splitlines()[-1] == f"stopped by SIGTERM at step 4; {GO_ON}."
    assert second.err.splitlines()[-1] == (
        f"error: another process of this run has ended, and so does process 1 of 2; {GO_ON}."
    )
    start = folder.open_run(str(tmp_path / "run"), "auto")
    assert (start.path, start.step) == (str(tmp_path / "run" / "last.ckpt"), 4)


@pytest.mark.slow
def test_the_loss_of_a_process_that_the_first_has_started_ends_the_run(tmp_path):
    words = runs.line(tmp_path / "run", path=runs.data(train=400), trainer__max_epochs=200, trainer__devices=2)
    words += ["--every_n_steps", "1", "--wandb.enabled", "false"]
    run, began = Command(["-m", "ptune.fit", *words], tmp_path), time.monotonic()
    while not (tmp_path / "run" / "last.ckpt").exists():
        assert run.process.is_alive(), run.wait().err
        assert time.monotonic() - began < LIMIT
        time.sleep(0.1)
    child = subprocess.run(["pgrep", "-P", str(run.process.pid)], capture_output=True, text=True).stdout
    os.kill(int(child), signal.SIGKILL)
    began, end = time.monotonic(), run.wait()
    assert time.monotonic() - began < 30
    assert end.code == 1, end.err
    assert end.err.splitlines()[-1] == f"error: process 1 of this run was ended by SIGKILL; {GO_ON}."
    assert "Traceback" not in end.err
    assert folder.open_run(str(tmp_path / "run"), "auto").step > 0


# ---- run directories


def test_a_stop_before_the_first_checkpoint_can_be_gone_on_with(whole, stopped):
    run_dir, words = stopped
    (run_dir / "last.ckpt").unlink()
    (run_dir / "best.ckpt").unlink(missing_ok=True)
    resumed(words)
    assert runs.outcome(run_dir) == whole


def test_a_run_that_was_moved_goes_on_as_itself(whole, stopped, tmp_path):
    run_dir, _ = stopped
    shutil.move(run_dir, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", run_dir)
    (run_dir / "best.ckpt").write_bytes(b"of another run")  # it would be read if a path were kept
    resumed(runs.line(tmp_path / "elsewhere", **OPTIONS))
    assert runs.outcome(tmp_path / "elsewhere") == whole


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "flipped"])
def test_a_best_checkpoint_that_is_not_whole_is_said_and_the_run_ends_with_a_result(stopped, damage):
    run_dir, words = stopped
    spoil(run_dir / "best.ckpt", damage)
    code, _, err = runs.call([*words, "--ckpt_path", "auto"])
    assert code == 0, err
    assert f"note: {run_dir / 'best.ckpt'} is missing or damaged" in err
    assert json.loads((run_dir / "result.json").read_text())["best_epoch"] == EPOCHS


@pytest.mark.parametrize("damage", ["empty", "torn", "flipped"])
def test_a_last_checkpoint_that_is_not_whole_is_refused(stopped, damage):
    run_dir, words = stopped
    spoil(run_dir / "last.ckpt", damage)
    before = runs.contents(run_dir)
    code, _, err = runs.call([*words, "--ckpt_path", "auto"])
    assert code == 2
    assert err.startswith(f"error: ckpt_path: '{run_dir}/last.ckpt' is ")
    assert err.count("\n") == 1
    assert runs.contents(run_dir) == before


def spoil(file, damage: str) -> None:
    """Damage a file."""
    data = bytearray(file.read_bytes())
    match damage:
        case "missing":
            file.unlink()
            return
        case "empty":
            data = bytearray()
        case "torn":
            del data[len(data) // 2 :]
        case "flipped":
            data[len(data) // 3] ^= 1
    file.write_bytes(data)


def test_a_checkpoint_is_written_beside_its_target_not_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_, **__: pytest.fail("a temporary file elsewhere"))
    runs.fit(tmp_path / "run", trainer__max_epochs=1)
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_a_full_disk_keeps_the_checkpoint_before(stopped, monkeypatch):
    run_dir, words = stopped
    before = (run_dir / "last.ckpt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = runs.call([*words, "--ckpt_path", "auto"])
    assert code == 2
    assert err.splitlines()[-1] == (
        f"error: '{run_dir}' cannot be written (No space left on device); mend that, and go on with the same command "
        "and --ckpt_path auto."
    )
    assert (run_dir / "last.ckpt").read_bytes() == before


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_is_told_as_that(tmp_path):
    """Torch's own error, which hides the disk's, would be a traceback."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            WholeCheckpoints().save_checkpoint({f"{i}": torch.zeros(500) for i in range(20)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert runs.contents(tmp_path) == {"last.ckpt": b"before"}


def test_an_epoch_that_is_the_best_is_written_once_and_its_two_files_go_their_own_ways(tmp_path):
    run_dir = tmp_path / "run"
    runs.fit(run_dir, trainer__max_epochs=1)
    best, last = run_dir / "best.ckpt", run_dir / "last.ckpt"
    assert best.samefile(last)
    before = last.read_bytes()
    WholeCheckpoints().save_checkpoint({"another": torch.zeros(1)}, best)
    assert last.read_bytes() == before != best.read_bytes()


def changed(state):
    state["tensor"] += 1


def further(state):
    state["step"] += 1


def unknown(state):
    state["array"] = np.zeros(3)


def sparse(state):
    state["array"] = torch.zeros(3).to_sparse()


@pytest.mark.parametrize("change", [changed, further, unknown, sparse])
def test_a_state_that_may_have_changed_is_written_again(change, tmp_path):
    files, state = WholeCheckpoints(), {"tensor": torch.zeros(3), "step": 1, "loops": {"done": [1, None]}}
    files.save_checkpoint(state, tmp_path / "best.ckpt")
    change(state)
    for name in ("last.ckpt", "best.ckpt"):
        files.save_checkpoint(state, tmp_path / name)
        found = torch.load(tmp_path / name, weights_only=False)
        assert found["tensor"].equal(state["tensor"])
        assert found["step"] == state["step"]
    assert (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt") == (change not in (unknown, sparse))


def no_links(*_):
    raise OSError(95, "Operation not supported")


def test_without_hard_links_both_checkpoints_are_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    files, state = WholeCheckpoints(), {"tensor": torch.zeros(3)}
    for name in ("best.ckpt", "last.ckpt"):
        files.save_checkpoint(state, tmp_path / name)
    assert runs.contents(tmp_path).keys() == {"best.ckpt", "last.ckpt"}
    assert not (tmp_path / "best.ckpt").samefile(tmp_path / "last.ckpt")


def test_a_checkpoint_every_few_steps(tmp_path, monkeypatch):
    save, written = WholeCheckpoints.save_checkpoint, []

    def spy(self, checkpoint, path, storage_options=None):
        written.append((os.path.basename(path), checkpoint["global_step"]))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", spy)
    code, _, err = runs.call([*runs.line(tmp_path / "run", **OPTIONS), "--every_n_steps", "2"])
    assert code == 0, err
    assert {step for name, step in written if name == "last.ckpt"} == {2, 3, 4, 6}


# ---- one writer a directory


def test_a_directory_into_which_a_run_writes_is_refused(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with FileLock(run_dir / ".lock"):
        code, _, err = runs.call(runs.line(run_dir))
    assert (code, err) == (2, f"error: run_dir: another run writes into '{run_dir}'; wait for it, or choose another.\n")


@pytest.mark.parametrize("given", ["last", "auto", "other"])
def test_a_finished_directory_is_refused_whatever_checkpoint_is_given(stopped, tmp_path, given):
    run_dir, _ = stopped
    shutil.copytree(runs.finished(), tmp_path / "finished")
    before = runs.contents(tmp_path / "finished")
    path = run_dir / "last.ckpt" if given == "other" else given
    code, _, err = runs.call([*runs.line(tmp_path / "finished", **OPTIONS), "--ckpt_path", path])
    assert code == 2
    assert "holds a finished run; choose another --run_dir" in err
    assert runs.contents(tmp_path / "finished") == before


def test_a_checkpoint_of_another_run_is_refused_where_the_directory_holds_one(stopped, tmp_path):
    run_dir, words = stopped
    shutil.copytree(run_dir, tmp_path / "other")
    code, _, err = runs.call([*words, "--ckpt_path", tmp_path / "other" / "last.ckpt"])
    assert code == 2
    assert f"is of another run than '{run_dir}' holds" in err
