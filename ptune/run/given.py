"""The options that a command line and its configuration files give, one by one."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from ptune.errors import InputError
from ptune.run import catalog, configs
from ptune.run.known import OptionError

PATH_BYTES, NAME_BYTES = 4000, 255
"""Longest path, with room for what is put behind it, and longest part of one on all common file systems."""


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


def flattened(args: list[str]) -> Iterator[Given]:
    """The options of a command line and of its configurations, one by one in their order."""
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
        _check_form(name, section)
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


def _check_form(name: str, section: Any) -> None:
    """Raise OptionError for options of a class that stand where the parser does not find them."""
    group, _, option = name.partition(".")
    options = {option: section} if option and group in catalog.GROUPS else {}
    if group in catalog.GROUPS and isinstance(section, dict) and "class_path" in section and "init_args" not in section:
        options = {key: value for key, value in section.items() if key != "class_path"}
    if options:
        shown = ", ".join(f"{key}: {written(value)}" for key, value in options.items())
        raise OptionError(name, f"stands in a file as {group}: {{class_path: NAME, init_args: {{{shown}}}}}.")


def class_of(group: str, option: Given, given: list[Given]) -> str:
    """The class that `option` is an option of: the last one named for its group up to its word."""
    names = [other.value for other in given if other.key == group and other.word <= option.word]
    return names[-1] if names and isinstance(names[-1], str) else ""


def method(args: list[str]) -> str:
    """Name of the method that a checked command line runs, of the command line itself or of a file; "" without one."""
    return next((str(option.value) for option in reversed(list(flattened(args))) if option.key == "model"), "")


def written(value: Any) -> str:
    """A value of a file as it would be written on the command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def check_path(what: str, value: Any) -> None:
    """Raise InputError for what no system takes as a path: to ask it, as everyone does further on, is an OSError.

    Args:
        what: how the sentence begins, such as "option --run_dir".
        value: a path, a list of paths, or the YAML of such a list.
    """
    value = configs.loaded(value) if isinstance(value, str) else value
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
