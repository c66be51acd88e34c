"""The words of a command line, checked before anything heavy is imported.

torch, transformers and lightning take four seconds to import. What can be known without them is answered at once: an
option, a class or a task that does not exist, a value that is none of a closed list, an option that a link decides. The
parser behind this (`ptune.run.options`) checks types, and imports the classes that are named.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, final

import yaml

from ptune.errors import InputError, nearest, note
from ptune.run import catalog, configs
from ptune.tasks import known, plain
from ptune.tasks import task as find_task
from ptune.tasks.spec import TaskSpec

OWN = ("config", "print_config", "help", "seed_everything", "run_dir", "ckpt_path", "allow_change")
OWN += ("every_n_steps", "every_minutes", "skip_nonfinite", "worker_timeout", "predictions")
OWN += ("model", "data", "trainer", "wandb")
"""Options of no class."""

LINKED = {
    "model.head": "the task decides it (--data.task)",
    "data.slots": "the method decides it (--model)",
    "data.backbone": "it is the model's (--model.backbone)",
}
"""Options that a link would overwrite without a word, and what decides them."""

TAKE_CLASSES = ("accelerator", "strategy", "logger", "callbacks", "plugins", "profiler")
"""Options of the trainer that may be objects: the class is Lightning's or the user's own, and is imported. Of ptune's
own methods and data modules no option is one."""

PATHS = ("config", "run_dir", "ckpt_path", "model.backbone", "data.path")
"""Options that name files or folders."""
PATH_BYTES, NAME_BYTES = 4000, 255
"""Longest path, with room for what is put behind it, and longest part of one on all common file systems."""

KINDS = {"bool": ((bool,), "true or false"), "int": ((int,), "a whole number (int)")}
KINDS |= {"float": ((int, float), "a number (float)")}
"""Types of plain values by their names: what YAML makes of them, and how a sentence calls them."""

SHARED = ("backbone", "pool", "head_dropout", "head_bias", "checkpointing", "attention", "backbone_dtype")
"""Options that mean the same in every method. Only these stay when a configuration's method is replaced by another.

A learning rate is not among them: 0.03 is right for a prefix and destroys a backbone that is fine-tuned.
"""


@final
class OptionError(InputError):
    """A wrong option. The parser of a nested class knows only the end of its key; outer ones put theirs before it."""

    def __init__(self, key: str, reason: str = "") -> None:
        self.key, self.reason = key.replace("init_args.", "").replace(".class_path", ""), reason
        super().__init__(f"option --{self.key} {reason or f'does not exist{_near(self.key)}'}")


@final
@dataclass(frozen=True)
class Given:
    """An option as it is given, by the command line or by a configuration file."""

    key: str
    """Dotted, without `init_args`; the class of `model` or `data` has the key `model` or `data`."""
    value: Any
    """Text from the command line, what YAML makes of it in a file."""
    word: int
    """Number of the word on the command line that gives it."""
    file: str | None = None
    """The configuration file it stands in."""


def prepare(args: list[str]) -> list[str]:
    """The command line without the options of a method that is not the one to run, with a changed task in full.

    Raises:
        InputError: a mistake that can be seen without importing the class it concerns.
    """
    given = list(_given(args))
    for group in catalog.GROUPS:
        _check_class(group, given)
    for option in given:
        _check(option, given)
    return _whole_tasks(_of_one_method(args, given))


def method(args: list[str]) -> str:
    """Name of the method that a checked command line runs, of the command line itself or of a file; "" without one."""
    return next((str(option.value) for option in reversed(list(_given(args))) if option.key == "model"), "")


# From words to options.


def _given(args: list[str]) -> Iterator[Given]:
    place = 0
    while place < len(args):
        word, at = args[place], place
        place += 1
        if not word.startswith("-") or word == "-":
            raise InputError(f"{word!r} belongs to no option; an option is written --name value.")
        name, equals, value = word.partition("=")
        if not equals:
            value = ""
            if place < len(args) and not args[place].startswith("--"):
                value = args[place]
                place += 1
        name = {"-c": "--config", "-h": "--help"}.get(name, name)
        if not name.startswith("--"):
            raise InputError(f"option {name} does not exist; options are written with two dashes, such as --run_dir.")
        whole = name[2:].removesuffix("+").replace("init_args.", "")
        key = whole.removesuffix(".class_path")
        if key == "config":
            if value and "\n" not in value:
                check_path("option --config", value)
            yield from _of_config(value, at)
        elif key != whole and key not in catalog.GROUPS:
            yield Given(key, {"class_path": value}, at)
        else:
            yield Given(key, value, at)


def _of_config(path: str, word: int) -> Iterator[Given]:
    for name, section in configs.read(path).items():
        if name in ("trainer", "wandb") and not isinstance(section, dict):
            raise OptionError(name, f"{section!r}: must be a mapping of options, such as `{name}: {{...}}`.")
        if name not in catalog.GROUPS:
            yield Given(name, None if isinstance(section, dict) else section, word, path)
            if isinstance(section, dict):
                yield from (Given(f"{name}.{key}", value, word, path) for key, value in section.items())
        elif isinstance(section, str):
            yield Given(name, section, word, path)
        elif isinstance(section, dict):
            arguments = section.get("init_args", {key: value for key, value in section.items() if key != "class_path"})
            if "class_path" in section:
                yield Given(name, section["class_path"], word, path)
            if not isinstance(arguments or {}, dict):
                raise OptionError(f"{name}.init_args", f"{arguments!r}: must be a mapping of options.")
            for key, value in (arguments or {}).items():
                yield Given(f"{name}.{key}", value, word, path)
                if key == "task" and isinstance(value, dict):
                    yield from (Given(f"{name}.task.{field}", item, word, path) for field, item in value.items())
        elif section is not None:
            raise OptionError(name, f"{section!r}: is neither a class nor a class with its options.")


# What is wrong with them.


def _check_class(group: str, given: list[Given]) -> None:
    names = [option for option in given if option.key == group]
    for option in names:
        if not isinstance(option.value, str):
            raise OptionError(group, f"{option.value!r}: is no class; {_all(group)}")
        if option.value and catalog.own(group, option.value) is None and "." not in option.value.removeprefix("ptune."):
            raise OptionError(group, f"{option.value!r}: {nearest(option.value, catalog.classes(group))}")
    first = next((option for option in given if option.key.startswith(f"{group}.")), None)
    if first is not None and not any(option.word <= first.word for option in names):
        raise OptionError(group, f"is missing before --{first.key}; {_all(group)}")


def _check(option: Given, given: list[Given]) -> None:
    for linked, why in LINKED.items():
        if option.key == linked or option.key.startswith(f"{linked}."):
            raise InputError(f"option --{linked} cannot be set: {why}.")
    group, _, name = option.key.partition(".")
    if group not in OWN:
        raise OptionError(option.key)
    if group == "seed_everything":
        _check_seed(option.value)
    if option.key in PATHS and option.value is not None:
        check_path(f"option --{option.key}", option.value)
    options = _options(group, _class_of(group, option, given)) if name else None
    if options is None or name.startswith("help"):
        return
    first, _, rest = name.partition(".")
    if first not in options:
        raise OptionError(option.key)
    if group != "trainer" or first not in TAKE_CLASSES:
        for named in classes_in(option.value):
            raise OptionError(option.key, f"takes no class, but {named!r} is given as one; give a plain value.")
    if first == "task" and group == "data":
        _check_task(option, rest)
    if not rest:
        _check_type(option, options[first])
    choices = options[first].choices
    value = str(option.value) if option.file is None else _written(option.value)
    if choices and not rest and value not in (*choices, "null", "~", ""):
        raise OptionError(option.key, f"{value!r}: {nearest(value, dict.fromkeys(choices))}")


def _check_type(option: Given, found: catalog.Option) -> None:
    """Raise OptionError for a number or a truth value that is none in YAML 1.2, and for null where it means nothing.

    The parser takes null for any option, and reads 1:30 as 90, 010 as 8, 1_000 as 1000 and yes as true, as YAML 1.1.
    """
    value = option.value
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            value = configs.load(value)
    names = set(re.findall(r"\w+", found.type))
    types = [KINDS[name] for name in KINDS if name in names]
    if value is None and found.type and not ({"None", "Optional", "Any"} & names or found.default == "null"):
        if option.value is None or types or found.choices:
            raise OptionError(option.key, f"'null': must be {_words(types) or 'given a value'}.")
        return
    plain = bool(types) and names <= {*KINDS, "None", "Optional", "Union"} and value is not None
    if plain and type(value) not in {kind for kinds, _ in types for kind in kinds}:
        raise OptionError(option.key, f"{option.value!r}: must be {_words(types)}.")


def _words(types: list[tuple[tuple[type, ...], str]]) -> str:
    return " or ".join(word for _, word in types)


def classes_in(value: Any) -> Iterator[str]:
    """The classes that a value names, which the parser would import; it reads texts as YAML."""
    if isinstance(value, str):
        value = _loaded(value)
    if isinstance(value, dict):
        if "class_path" in value:
            yield str(value["class_path"])
        for item in value.values():
            yield from classes_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from classes_in(item)


def _check_task(option: Given, rest: str) -> None:
    if rest and rest.partition(".")[0] not in {field.name for field in fields(TaskSpec)}:
        raise OptionError(option.key)
    if not rest and isinstance(option.value, str) and not isinstance(_loaded(option.value), dict):
        find_task(option.value)


def _loaded(text: str) -> Any:
    """The value of a text that is YAML of several parts; any other text stays as it is."""
    try:
        return configs.load(text) if text.lstrip()[:1] in ("{", "[") or ":" in text else text
    except yaml.YAMLError:
        return text


def check_path(what: str, value: Any) -> None:
    """Raise InputError for what no system takes as a path: to ask it, as everyone does further on, is an OSError.

    Args:
        what: how the sentence begins, such as "option --run_dir".
        value: a path, a list of paths, or the YAML of such a list.
    """
    value = _loaded(value) if isinstance(value, str) else value
    for path in value if isinstance(value, list) else [value]:
        name = str(path).encode(errors="surrogatepass")
        if not name:
            raise InputError(f"{what} '': is empty; give a path, or leave the option out.")
        if b"\0" in name:
            raise InputError(f"{what} {path!r}: no path has a null byte; leave it out.")
        if len(name) > PATH_BYTES or max(map(len, name.split(b"/"))) > NAME_BYTES:
            raise InputError(
                f"{what} {path!r}: a path has at most {PATH_BYTES} bytes, {NAME_BYTES} a part; choose a shorter one."
            )
        if name[:1] == b"~" and os.path.expanduser(str(path)) == path:
            raise InputError(f"{what} {path!r}: there is no such home folder; write the whole path.")


def _check_seed(value: Any) -> None:
    digits = str(value)
    if isinstance(value, bool) or not digits.isdecimal() or not digits.isascii() or int(digits[:20]) >= 2**32:
        raise OptionError("seed_everything", f"{value!r}: must be a whole number (int) from 0 to {2**32 - 1}.")


def _written(value: Any) -> str:
    """A value of a file as it would be written on the command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _class_of(group: str, option: Given, given: list[Given]) -> str:
    """The class that `option` is an option of: the last one named for its group up to its word."""
    names = [other.value for other in given if other.key == group and other.word <= option.word]
    return names[-1] if names and isinstance(names[-1], str) else ""


def _options(group: str, name: str) -> dict[str, catalog.Option] | None:
    """The options of a group; None where they are those of a class of the user's own."""
    if group in catalog.GROUPS:
        found = catalog.own(group, name)
        return None if found is None else found.options
    return _fixed()[group].options if group in _fixed() else None


@cache
def _fixed() -> dict[str, catalog.Entry]:
    """The groups that belong to one class."""
    return {
        "trainer": catalog.entry("lightning.pytorch.trainer.trainer", "Trainer"),
        "wandb": catalog.entry("ptune.run.loggers", "Wandb"),
    }


@cache
def known_options() -> dict[str, str]:
    """Dotted names of the options of trainer, methods, data modules and ptune itself, and whose they are."""
    owners: dict[str, list[str]] = {name: ["ptune.fit"] for name in OWN}
    for group in catalog.GROUPS:
        for entry in catalog.classes(group).values():
            for name in entry.options:
                owners.setdefault(f"{group}.{name}", []).append(entry.name)
    for group, entry in _fixed().items():
        owners |= {f"{group}.{name}": [entry.name] for name in entry.options}
    owners |= {f"data.task.{field.name}": ["TaskSpec"] for field in fields(TaskSpec)}
    return {name: ", ".join(names) for name, names in owners.items()}


def _near(option: str) -> str:
    options = known_options()
    if option in options:
        return f" here; it belongs to {options[option]}."
    near = [
        match for name in (option, option.split(".")[0]) for match in get_close_matches(name, options, n=1, cutoff=0.6)
    ]
    return f"; did you mean --{near[0]}?" if near else "; --help lists them all."


def _all(group: str) -> str:
    return f"choose one of: {', '.join(catalog.classes(group))}."


# The options of a method stay with the method.


def _of_one_method(args: list[str], given: list[Given]) -> list[str]:
    """The command line with the options in files cut to `SHARED` where they were written for another method.

    What is left out is told on stderr. Raises InputError for an option of the command line that stands before the class
    it is meant for.
    """
    names = [option for option in given if option.key == "model"]
    final_name = names[-1].value.rpartition(".")[2] if names else ""
    dropped: dict[int, list[Given]] = {}
    for option in given:
        owner = _class_of("model", option, given).rpartition(".")[2]
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
        equals = args[word].startswith("--config=")
        args[word if equals else word + 1] = "--config=" * equals + yaml.safe_dump(config, sort_keys=False)
        if os.environ.get("LOCAL_RANK", "0") == "0":  # Lightning starts its other processes by the same command line
            owner = _class_of("model", options[0], given).rpartition(".")[2]
            left_out = ", ".join(f"{option.key[6:]} {_written(option.value)}" for option in options)
            why = f"{options[0].file} sets it for {owner}"
            note(f"left out for {final_name}, because {why}: {left_out}.")
    return args


# A field of a task is changed, the others stay.


def _whole_tasks(args: list[str]) -> list[str]:
    """The command line with the fields of a task of ptune in place of its name where some of them are changed.

    The parser would take a mapping of fields for a task of one's own. A mapping in a file that has the name of a task
    of ptune changes that task, too.
    """
    given = [option for option in _given(args) if option.key.partition("task")[0] == "data."]
    changed = any(option.key.startswith("data.task.") or not isinstance(option.value, str) for option in given)
    changed |= any(option.value[:1] == "{" for option in given if isinstance(option.value, str))
    args = list(args)
    for option in given if changed else ():
        whole = _whole(option.value) if option.key == "data.task" else None
        if whole is None:
            continue
        word = args[option.word]
        if option.file is None:
            equals, text = "=" in word, json.dumps(whole)
            args[option.word if equals else option.word + 1] = f"{word.partition('=')[0]}={text}" if equals else text
        else:
            config = configs.read(option.file)
            config["data"].get("init_args", config["data"])["task"] = whole
            equals = word.startswith(("--config=", "-c="))
            args[option.word if equals else option.word + 1] = "--config=" * equals + yaml.safe_dump(
                config, sort_keys=False
            )
    return args


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
