"""A recipe: the YAML of a command line, with nothing but what it sets."""

from pathlib import Path
from typing import Any

from ptune.run import catalog, configs
from ptune.run.arguments import prepare
from ptune.run.given import flattened


def overrides(words: list[str]) -> dict[str, Any]:
    """The options of a command line and of its configurations, nested as a configuration has them.

    Raises:
        InputError: an option has a mistake.
    """
    found: dict[str, Any] = {}
    for option in flattened(prepare(words)):
        group, *path = option.key.split(".")
        value = configs.meant(option.value) if option.file is None else option.value
        if group in catalog.GROUPS and not path:
            found.setdefault(group, {})["class_path"] = value
        elif path:
            place = found.setdefault(group, {})
            for name in (["init_args"] if group in catalog.GROUPS else []) + path[:-1]:
                place = place.setdefault(name, {})
            place[path[-1]] = value
        elif value is not None:
            found[group] = value
    return found


def write(file: Path, words: list[str], header: list[str]) -> None:
    """Write a recipe that `--config` reads, below lines of comment.

    Raises:
        InputError: an option has a mistake.
    """
    from ptune.tuning.saving import write_whole  # it imports torch

    comment = "".join(f"# {line}\n" for line in header)
    write_whole(file, (comment + configs.dump(overrides(words))).encode())
