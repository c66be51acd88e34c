"""A run directory as data: the command line that its configuration stands for, of which nothing is executed.

Run directories are shared, so `ptune inspect`, `export` and `evaluate RUN` read one as they read a data file: of its
config.yaml the sections of model and data alone, and classes of ptune alone. What a user writes is something else: the
options and the `--config` of a command line may name classes of the user's own, which are imported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptune.errors import InputError, absent
from ptune.run import catalog, configs
from ptune.run.arguments import classes_in, prepare
from ptune.run.known import OptionError

REPEATED = ("precision", "max_epochs", "accumulate_grad_batches", "limit_val_batches", "limit_test_batches")
"""Options of the trainer that a measurement repeats; they are numbers and words."""
PREDICTIONS = "predictions"
"""The folder of what a run answered, a file a split; `ptune.run.predictions` writes it."""


def words(run_dir: str | Path, options: list[str], trust: bool = False) -> list[str]:
    """The command line of a run, with further `options` behind its own, checked as `prepare` does.

    Args:
        run_dir: the directory.
        options: words of the command line, such as "--model.attention", "eager".
        trust: let the configuration name classes that are not ptune's: their code is executed.

    Raises:
        InputError: the directory holds no configuration of a run, or one that names another class.
    """
    config = config_of(run_dir)
    found = configs.read(str(config))
    sections: dict[str, Any] = {group: _section(config, group, found.get(group), trust) for group in catalog.GROUPS}
    trainer = found.get("trainer")
    if isinstance(trainer, dict):
        sections["trainer"] = {name: trainer[name] for name in REPEATED if isinstance(trainer.get(name), int | str)}
    if isinstance(found.get("seed_everything"), int):
        sections["seed_everything"] = found["seed_everything"]
    try:
        return prepare([f"--config={configs.dump(sections)}", f"--run_dir={run_dir}", *options])
    except OptionError as error:
        if f"--{error.key}" in {word.partition("=")[0] for word in options}:
            raise
        raise InputError(f"{config}: {error}") from error  # such as an option of another version of ptune


def config_of(run_dir: str | Path) -> Path:
    """The configuration in a run directory; an InputError where there is none."""
    config, fix = Path(run_dir, "config.yaml"), "give the directory of a finished run of ptune.fit."
    if not Path(run_dir).exists():
        raise InputError(absent(run_dir, fix))
    if not config.is_file():
        reason = "is a file" if Path(run_dir).is_file() else f"there is no {config.name}"
        raise InputError(f"{run_dir}: {reason}; {fix}")
    return config


def _section(config: Path, group: str, section: Any, trust: bool) -> dict:
    """The section of the model or the data, whose class is one of ptune's."""
    if not isinstance(section, dict) or not isinstance(section.get("class_path"), str):
        raise InputError(f"{config}: {group} names no class; give the directory of a finished run of ptune.fit.")
    for name in () if trust else _foreign(group, section):
        raise InputError(
            f"{config}: {group} names {name!r}, no class of ptune, and a class is code, which reading a run directory "
            "does not execute; if you trust its author, add --trust."
        )
    return {name: section[name] for name in ("class_path", "init_args") if name in section}


def _foreign(group: str, section: dict) -> Iterator[str]:
    """The classes of a section that are not ptune's."""
    if catalog.own(group, section["class_path"]) is None:
        yield section["class_path"]
    yield from classes_in(section.get("init_args"))
