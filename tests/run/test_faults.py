"""What clusters do to a run: signals, moves, torn files, two runs at once. Nothing is lost, and the exit code tells."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import runs
import torch
from filelock import FileLock
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

EPOCHS, STEPS = 2, 6
OPTIONS = {"trainer__max_epochs": EPOCHS, "model__prefix_dropout": 0.3, "model__lr": 0.05}


class Send(Callback):
    """Sends a signal to this process when training comes to a step, or to a validation."""

    def __init__(self, number: int, step: int = -1, validation: int = -1) -> None:
        self.number, self.step, self.validation, self.sent = number, step, validation, False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._send(trainer.global_step == self.step)

    def on_validation_start(self, trainer, pl_module):
        self._send(trainer.current_epoch == self.validation)

    def _send(self, now):
        if now and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)


def sending(**arguments) -> list[str]:
    """Options that add the callback."""
    words = [f"--trainer.callbacks+={__name__}.Send"]
    return words + [f"--trainer.callbacks.{name}={int(value)}" for name, value in arguments.items()]


def outcome(run_dir) -> dict:
    """What two equal runs share."""
    result = json.loads((run_dir / "result.json").read_text())
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))} for row in rows]
    prompts = {name: value.tolist() for name, value in load_file(run_dir / "prompts.safetensors").items()}
    return {key: result[key] for key in ("metrics", "best_epoch", "steps")} | {"rows": rows, "prompts": prompts}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The outcome of a run that nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    runs.fit(run_dir, **OPTIONS)
    return outcome(run_dir)


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
    ("number", "code", "step"), [(signal.SIGINT, 130, 1), *((signal.SIGTERM, 143, step) for step in range(STEPS))]
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
    assert outcome(tmp_path / "run") == whole


def test_a_signal_within_a_validation_costs_what_follows_the_last_checkpoint(whole, tmp_path):
    words = runs.line(tmp_path / "run", **OPTIONS)
    code, _, err = runs.call([*words, *sending(number=signal.SIGTERM, validation=1)])
    assert (code, err.splitlines()[-1][:27]) == (143, "stopped by SIGTERM at step ")
    resumed(words)
    assert outcome(tmp_path / "run") == whole


def test_the_handlers_of_the_process_are_what_they_were(stopped):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.slow
def test_a_signal_to_the_first_of_two_processes_ends_both(tmp_path):
    words = runs.line(tmp_path / "run", path=runs.data(train=400), trainer__max_epochs=200, trainer__devices=2)
    command = [sys.executable, "-m", "ptune.fit", *words, "--every_n_steps", "1", "--wandb.enabled", "false"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(runs.REPOSITORY)}
    run = subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "last.ckpt").exists():
            assert run.poll() is None, run.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        run.send_signal(signal.SIGTERM)
        out, _ = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 143, out
    assert "stopped by SIGTERM at step " in out
    children = subprocess.run(["pgrep", "-f", str(tmp_path / "run")], capture_output=True, text=True).stdout
    assert not children


# ---- run directories


def test_a_stop_before_the_first_checkpoint_can_be_gone_on_with(whole, stopped):
    run_dir, words = stopped
    (run_dir / "last.ckpt").unlink()
    (run_dir / "best.ckpt").unlink(missing_ok=True)
    resumed(words)
    assert outcome(run_dir) == whole


def test_a_run_that_was_moved_goes_on_as_itself(whole, stopped, tmp_path):
    run_dir, _ = stopped
    shutil.move(run_dir, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", run_dir)
    (run_dir / "best.ckpt").write_bytes(b"of another run")  # it would be read if a path were kept
    resumed(runs.line(tmp_path / "elsewhere", **OPTIONS))
    assert outcome(tmp_path / "elsewhere") == whole


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
    with pytest.raises(OSError, match="No space left"):
        runs.call([*words, "--ckpt_path", "auto"])
    assert (run_dir / "last.ckpt").read_bytes() == before


def test_a_checkpoint_every_few_steps(tmp_path):
    words = runs.line(tmp_path / "run", **OPTIONS)
    code, _, err = runs.call([*words, "--every_n_steps", "2", *sending(number=signal.SIGTERM, validation=0)])
    assert code == 143, err
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 2


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
    runs.fit(tmp_path / "finished", trainer__max_epochs=1)
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
