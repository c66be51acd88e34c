"""A command line whose configurations are adapted to what else it says: another method, changed fields of a task."""

import json
import os
from typing import Any

import yaml

from ptune.errors import note
from ptune.run import configs
from ptune.run.given import Given, class_of, flattened, written
from ptune.run.known import OptionError
from ptune.tasks import known, plain

SHARED = ("backbone", "pool", "head_dropout", "head_bias", "checkpointing", "attention", "backbone_dtype")
"""Options that mean the same in every method. Only these stay when a configuration's method is replaced by another.

A learning rate is not among them: 0.03 is right for a prefix and destroys a backbone that is fine-tuned.
"""


def of_one_method(args: list[str], given: list[Given]) -> list[str]:
    """The command line with the options in files cut to `SHARED` where they were written for another method.

    What is left out is told on stderr. Raises InputError for an option of the command line that stands before the class
    it is meant for.
    """
    names = [option for option in given if option.key == "model"]
    final_name = names[-1].value.rpartition(".")[2] if names else ""
    dropped: dict[int, list[Given]] = {}
    for option in given:
        owner = class_of("model", option, given).rpartition(".")[2]
        if not option.key.startswith("model.") or owner in ("", final_name) or option.key[6:] in SHARED:
            continue
        if option.file is None:
            raise OptionError(
                option.key, f"stands before --model {final_name}, and is read as {owner}'s; write it behind."
            )
        dropped.setdefault(option.word, []).append(option)
    args = list(args)
    for word, options in dropped.items():
        config = configs.read(options[0].file)  # type: ignore[arg-type]
        section = config["model"]
        arguments = section.get("init_args", section)
        for option in options:
            del arguments[option.key[6:]]
        replace(args, word, configs.dump(config))
        if os.environ.get("LOCAL_RANK", "0") == "0":  # Lightning starts its other processes by the same command line
            owner = class_of("model", options[0], given).rpartition(".")[2]
            left_out = ", ".join(f"{option.key[6:]} {written(option.value)}" for option in options)
            why = f"{options[0].file} sets it for {owner}"
            note(f"left out for {final_name}, because {why}: {left_out}.")
    return args


def whole_tasks(args: list[str]) -> list[str]:
    """The command line with the fields of a task of ptune in place of its name where some of them are changed.

    The parser would take a mapping of fields for a task of one's own. A mapping in a file that has the name of a task
    of ptune changes that task, too.
    """
    given = [option for option in flattened(args) if option.key.partition("task")[0] == "data."]
    changed = any(option.key.startswith("data.task.") or not isinstance(option.value, str) for option in given)
    changed |= any(option.value[:1] == "{" for option in given if isinstance(option.value, str))
    args = list(args)
    for option in given if changed else ():
        whole = _whole(option.value) if option.key == "data.task" else None
        if whole is None:
            continue
        if option.file is None:
            replace(args, option.word, json.dumps(whole))
        else:
            config = configs.read(option.file)
            config["data"].get("init_args", config["data"])["task"] = whole
            replace(args, option.word, configs.dump(config))
    return args


def replace(args: list[str], word: int, value: str, name: str = "") -> None:
    """Give the option at this word of a command line another value, and with `name` become another option."""
    own, equals, _ = args[word].partition("=")
    if equals:
        args[word] = f"{name or own}={value}"
    else:
        args[word : word + 2] = name or own, value


def _whole(value: Any) -> dict[str, Any] | None:
    """All fields of the task of ptune that a value names or changes; None for a task of one's own."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = configs.load(value)
        except yaml.YAMLError:  # the parser says what is wrong
            return None
    found = {"name": value} if isinstance(value, str) else value
    row = known(str(found.get("name"))) if isinstance(found, dict) else None
    return None if row is None else plain(row) | found | {"name": row.name}
