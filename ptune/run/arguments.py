"""The words of a command line, checked before anything heavy is imported.

torch, transformers and lightning take four seconds to import. What can be known without them is answered at once: an
option, a class or a task that does not exist, a value that is none of a closed list, an option that a link decides. The
parser behind this (`ptune.run.options`) checks types, and imports the classes that are named.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ptune.errors import InputError, nearest
from ptune.run import catalog, configs
from ptune.run.adapted import of_one_method, replace, whole_tasks
from ptune.run.given import Given, check_path, class_of, flattened, written
from ptune.run.known import OWN, OptionError, fixed
from ptune.tasks import task as find_task
from ptune.tasks.spec import TaskSpec

LINKED = {
    "model.head": "the task decides it (--data.task)",
    "data.slots": "the method decides it (--model)",
    "data.backbone": "it is the model's (--model.backbone)",
}
"""Options that a link would overwrite without a word, and what decides them."""

GROUPED = {"trainer": "trainer.max_epochs 3", "wandb": "wandb.enabled false"}
"""Options that are the names of others, and one of those as it is written."""

TAKE_CLASSES = ("accelerator", "strategy", "logger", "callbacks", "plugins", "profiler")
"""Options of the trainer that may be objects: the class is Lightning's or the user's own, and is imported. Of ptune's
own methods and data modules no option is one."""

PATHS = ("config", "run_dir", "ckpt_path", "model.backbone", "data.path")
"""Options that name files or folders."""
TEXTS: dict[Any, str] = {str: "str", str | int: "str | int"}
TASK_TEXTS = {f"task.{field.name}": TEXTS[field.type] for field in fields(TaskSpec) if field.type in TEXTS}
"""Fields of a task that are a text, or a name that may be a whole number."""
KINDS = {"bool": ((bool,), "true or false"), "int": ((int,), "a whole number (int)")}
KINDS |= {"float": ((int, float), "a number (float)")}
"""Types of plain values by their names: what YAML makes of them, and how a sentence calls them."""


def prepare(args: list[str]) -> list[str]:
    """The command line without the options of a method that is not the one to run, with tasks and texts in full.

    Raises:
        InputError: a mistake that can be seen without importing the class it concerns.
    """
    given = list(flattened(args))
    for group in catalog.GROUPS:
        _check_class(group, given)
    for option in given:
        _check(option, given)
    return whole_tasks(of_one_method(_whole_texts(args, given), given))


def _whole_texts(args: list[str], given: list[Given]) -> list[str]:
    """The command line with each text that is other YAML, such as the template 'Question: [MASK]', as a configuration.

    The parser takes the options of a class for YAML, and does not return to the text where an option takes one.
    """
    args = list(args)
    for option in given:
        group, _, name = option.key.partition(".")
        options = _options(group, class_of(group, option, given)) if group in catalog.GROUPS and name else None
        if option.file is not None or not options:
            continue
        kind = options[name].type if name in options else TASK_TEXTS.get(name, "") if group == "data" else ""
        if _is_text(option.value, kind.split(" | ")):
            value: Any = option.value
            for part in reversed(name.split(".")):
                value = {part: value}
            section = {"class_path": class_of(group, option, given), "init_args": value}
            replace(args, option.word, configs.dump({group: section}), "--config")
    return args


def _is_text(text: str, kinds: list[str]) -> bool:
    """Whether an option of these types takes a text as it is, though it is also YAML of a type that the option has not.

    That may be a list or a mapping, a comment (`### {text} [MASK]`), which is null, or a number.
    """
    value = configs.meant(text)
    if value is None:
        return "str" in kinds and text.lstrip().startswith("#")
    if not isinstance(value, list | dict):
        return {"str"} <= {*kinds} <= {"str", "None"} and not isinstance(value, str)
    others = ("list", "tuple", "Sequence") if isinstance(value, list) else ("dict", "Mapping", "TaskSpec")
    return "str" in kinds and not any(kind.startswith(others) for kind in kinds)


def _check_class(group: str, given: list[Given]) -> None:
    names = [option for option in given if option.key == group]
    for option in names:
        if not isinstance(option.value, str):
            raise OptionError(group, f"{option.value!r}: is no class; {_all(group)}")
        elsewhere = re.fullmatch(r"\w+(\.\w+)+", option.value.removeprefix("ptune."))  # a class of the user's own
        if option.value and catalog.own(group, option.value) is None and not elsewhere:
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
    if option.key in GROUPED and option.file is None and not _has_options(option.value):
        raise OptionError(group, f"{option.value!r}: has options of its own, such as --{GROUPED[group]}.")
    if group == "seed_everything":
        _check_seed(option.value)
    if option.key in PATHS and option.value is not None:
        check_path(f"option --{option.key}", option.value)
    options = _options(group, class_of(group, option, given)) if name else None
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
    value = str(option.value) if option.file is None else written(option.value)
    if choices and not rest and value not in (*choices, "null", "~", ""):
        raise OptionError(option.key, f"{value!r}: {nearest(value, dict.fromkeys(choices))}")


def _has_options(text: str) -> bool:
    """Whether a word is a mapping of options, or names a file, which the parser reads."""
    return isinstance(configs.meant(text), dict) or os.path.isfile(text)


def _check_type(option: Given, found: catalog.Option) -> None:
    """Raise OptionError for a number or a truth value that is none in YAML 1.2, and for null where it means nothing.

    The parser takes null for any option, and reads 1:30 as 90, 010 as 8, 1_000 as 1000 and yes as true, as YAML 1.1.
    """
    value = option.value
    if isinstance(value, str):
        value = configs.meant(value)
    literals = re.findall(r"'(\w+)'", found.type)
    names = set(re.findall(r"\w+", found.type)) - {"Literal", *literals}
    types = [KINDS[name] for name in KINDS if name in names]
    if value is None and found.type and not ({"None", "Optional", "Any"} & names or found.default == "null"):
        if option.value is None or types or found.choices:
            default = "" if found.default is None else f"; leave it out for its default, {found.default or repr('')}"
            raise OptionError(option.key, f"'null': must be {_words(types, literals) or 'given a value'}{default}.")
        return
    plain = bool(types) and names <= {*KINDS, "None", "Optional", "Union"} and value is not None
    if plain and value not in literals and type(value) not in {kind for kinds, _ in types for kind in kinds}:
        raise OptionError(option.key, f"{option.value!r}: must be {_words(types, literals)}.")


def _words(types: list[tuple[tuple[type, ...], str]], literals: list[str]) -> str:
    return " or ".join([*(word for _, word in types), *(literals if types else [])])


def classes_in(value: Any) -> Iterator[str]:
    """The classes that a value names, which the parser would import; it reads texts as YAML."""
    if isinstance(value, str):
        value = configs.loaded(value)
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
    if not rest and isinstance(option.value, str) and not isinstance(configs.loaded(option.value), dict):
        find_task(option.value)


def _check_seed(value: Any) -> None:
    digits = str(value)
    if isinstance(value, bool) or not digits.isdecimal() or not digits.isascii() or int(digits[:20]) >= 2**32:
        raise OptionError("seed_everything", f"{value!r}: must be a whole number (int) from 0 to {2**32 - 1}.")


def _options(group: str, name: str) -> dict[str, catalog.Option] | None:
    """The options of a group; None where they are those of a class of the user's own."""
    if group in catalog.GROUPS:
        found = catalog.own(group, name)
        return None if found is None else found.options
    return fixed()[group].options if group in fixed() else None


def _all(group: str) -> str:
    return f"choose one of: {', '.join(catalog.classes(group))}."
