"""Finished runs, read again."""

from pathlib import Path

from ptune.data.base import TaskData
from ptune.errors import InputError
from ptune.run.cli import CLI
from ptune.run.command import root
from ptune.run.directory import words
from ptune.tuning.tuner import PromptTuner


def read(run_dir: Path, *options: str, trust: bool = False) -> tuple[PromptTuner, TaskData]:
    """Model, with what it was trained to, in eval mode, and data module (not set up) of a finished run.

    A run directory is data (`ptune.run.directory`), so that a directory of somebody else executes nothing.

    Args:
        run_dir: the directory.
        options: words of the command line, such as "--model.attention", "eager", that come after the run's own.
        trust: let the configuration name classes that are not ptune's: their code is executed.

    Raises:
        InputError: the directory holds no finished run, the configuration names another class, or the backbone or the
            tensors are no longer what they were.
    """
    config, prompts = run_dir / "config.yaml", run_dir / "prompts.safetensors"
    if not config.is_file() or not prompts.is_file():
        missing = prompts.name if config.is_file() else config.name
        raise InputError(f"{run_dir}: there is no {missing}; give the directory of a finished run of ptune.fit.")
    try:
        cli = CLI.of(words(run_dir, list(options), trust))
    except ValueError as error:
        mistake = root(error)
        if mistake is None:
            raise
        raise mistake from error
    cli.model.load_prompts(prompts)
    return cli.model.eval(), cli.datamodule
