"""Finished runs, read again, and the frame of the commands that read them."""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ptune.data.base import TaskData
from ptune.errors import InputError
from ptune.run.cli import CLI, guarded
from ptune.run.options import root
from ptune.tuning.tuner import PromptTuner


class Reader(CLI):
    """Data and model of a command line. There is no trainer, so that no directory is made."""

    def instantiate_trainer(self, **kwargs: Any) -> None:  # type: ignore[override]
        """None."""


class Arguments(argparse.ArgumentParser):
    """Argparse with errors of one sentence, raised as InputError."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        raise InputError(f"{message}; {self.format_usage().strip()}")


def read(run_dir: Path, *options: str) -> tuple[PromptTuner, TaskData]:
    """Model, with what it was trained to, in eval mode, and data module (not set up) of a finished run.

    `options` of the command line, such as "--model.attention", "eager", come after the run's own.

    Raises InputError for a directory that holds none, and for a backbone or tensors that are no longer what they were.
    """
    config, prompts = run_dir / "config.yaml", run_dir / "prompts.safetensors"
    if not config.is_file() or not prompts.is_file():
        missing = prompts.name if config.is_file() else config.name
        raise InputError(f"{run_dir}: there is no {missing}; give the directory of a finished run of ptune.fit.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LightningCLI's args parameter")  # this process has a command line, too
        try:
            cli = Reader.of(["--config", str(config), *options])
        except ValueError as error:
            raise root(error) or error from error
    model: PromptTuner = cli.model
    model.load_prompts(prompts)
    return model.eval(), cli.datamodule


def command(main: Callable[[], str]) -> int:
    """Print what `main` returns; a mistake in the input becomes one sentence on stderr and exit code 2."""
    return guarded(lambda _: print(main()), None)
