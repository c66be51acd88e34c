"""Finished runs, read again."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from ptune.data.base import TaskData
from ptune.errors import InputError
from ptune.run import catalog, configs
from ptune.run.arguments import prepare
from ptune.run.cli import CLI
from ptune.run.command import root
from ptune.tuning.tuner import PromptTuner


def read(run_dir: Path, *options: str) -> tuple[PromptTuner, TaskData]:
    """Model, with what it was trained to, in eval mode, and data module (not set up) of a finished run.

    A run directory is data: of its configuration the sections of model and data are read, and their classes must be
    ptune's own, so that a directory of somebody else executes nothing.

    Args:
        run_dir: the directory.
        options: words of the command line, such as "--model.attention", "eager", that come after the run's own.

    Raises:
        InputError: the directory holds no finished run, the configuration names another class, or the backbone or the
            tensors are no longer what they were.
    """
    config, prompts = run_dir / "config.yaml", run_dir / "prompts.safetensors"
    if not config.is_file() or not prompts.is_file():
        missing = prompts.name if config.is_file() else config.name
        raise InputError(f"{run_dir}: there is no {missing}; give the directory of a finished run of ptune.fit.")
    found = configs.read(str(config))
    sections = {group: _own(config, group, found.get(group)) for group in catalog.GROUPS}
    try:
        cli = CLI.of(prepare([f"--config={yaml.safe_dump(sections)}", *options]))
    except ValueError as error:
        mistake = root(error)
        if mistake is None:
            raise
        raise mistake from error
    cli.model.load_prompts(prompts)
    return cli.model.eval(), cli.datamodule


def _own(config: Path, group: str, section: object) -> dict:
    """A section of a configuration whose class is one of ptune's."""
    if not isinstance(section, dict) or not isinstance(section.get("class_path"), str):
        raise InputError(f"{config}: {group} names no class; give the directory of a finished run of ptune.fit.")
    name = section["class_path"].rpartition(".")[2]
    entry = catalog.classes(group).get(name)
    if entry is None or section["class_path"] not in (name, f"ptune.{name}", f"{entry.module}.{name}"):
        raise InputError(f"{config}: {group} is {section['class_path']!r}, no class of ptune, so it is not executed.")
    for name in _nested(section.get("init_args")):
        raise InputError(f"{config}: {group} holds {name!r}, a class in an option, so it is not executed.")
    return section


def _nested(value: object) -> Iterator[str]:
    """Classes that options name: the parser would import them."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield str(value["class_path"])
        for item in value.values():
            yield from _nested(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nested(item)
