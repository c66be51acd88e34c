"""Finished runs, read again."""

from pathlib import Path

from ptune.data.base import TaskData
from ptune.errors import InputError
from ptune.run.cli import CLI
from ptune.run.command import root
from ptune.run.directory import config_of, words
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
    config_of(run_dir)
    prompts = run_dir / "prompts.safetensors"
    unfinished = f"{run_dir}: there is no {prompts.name}; give the directory of a finished run of ptune.fit."
    if not prompts.is_file() and not (run_dir / "evaluation.json").is_file():
        raise InputError(unfinished)
    try:
        cli = CLI.of(words(run_dir, list(options), trust))
    except ValueError as error:
        mistake = root(error)
        if mistake is None:
            raise
        raise mistake from error
    if prompts.is_file():
        cli.model.load_prompts(prompts)
    elif cli.model.trains:
        raise InputError(unfinished)
    cli.model.configure_model()
    return cli.model.eval(), cli.datamodule
