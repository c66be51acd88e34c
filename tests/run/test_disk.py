"""A disk that is full, read-only or gone in the middle of the work is one sentence that says how to go on."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import runs
from lightning.pytorch.callbacks import Callback

from ptune.errors import InputError
from ptune.run.disk import told


class Remove(Callback):
    """Removes the run directory behind the first step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        shutil.rmtree(trainer.default_root_dir)
        Path(trainer.default_root_dir).write_text("in the way")


def test_a_run_directory_that_is_removed_while_it_is_written(tmp_path):
    words = runs.line(tmp_path / "run", trainer__max_epochs=1)
    code, _, err = runs.call([*words, f"--trainer.callbacks={__name__}.Remove"])
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"error: '{tmp_path}/run' cannot be written (")
    assert last.endswith("); mend that, and go on with the same command and --ckpt_path auto.")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG])
def test_an_error_of_the_disk_is_told_wherever_it_comes_from(number, tmp_path):
    with (
        pytest.raises(InputError, match=r"'.*' cannot be written \(.*\); choose another."),
        told(tmp_path, "choose another."),
    ):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    "error", [ConnectionError("x"), FileNotFoundError(2, "x", "/elsewhere/x"), PermissionError("x")]
)
def test_any_other_error_is_raised_as_it_is(error, tmp_path):
    with pytest.raises(type(error)), told(tmp_path, "choose another."):
        raise error


@pytest.mark.parametrize("command", ["inspect", "evaluate"])
def test_a_command_that_cannot_write_what_it_found(command, tmp_path, monkeypatch):
    from importlib import import_module

    from matplotlib.figure import Figure

    from ptune.run import result

    runs.fit(tmp_path / "run", trainer__max_epochs=1)

    def full(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Figure, "savefig", full)
    monkeypatch.setattr(result, "write_whole", full)
    code, _, err = runs.call([tmp_path / "run"], import_module(f"ptune.{command}").main)
    assert code == 2
    assert "cannot be written (Read-only file system); " in err.splitlines()[-1]
