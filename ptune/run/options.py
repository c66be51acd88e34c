"""The parser: whatever jsonargparse finds wrong becomes one sentence that names the option and the fix.

What jsonargparse says is read from its English, since its errors have no structure: the patterns are those of 4.53.
"""

import re
from functools import cache
from typing import final

import docstring_parser
import jsonargparse
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from ptune.errors import InputError, nearest
from ptune.run import catalog, configs
from ptune.run.arguments import KINDS
from ptune.run.command import root
from ptune.run.known import OptionError

# It reads the docstrings of the same classes for every command line, of which a worker of a grid reads many.
docstring_parser.parse_from_object = cache(docstring_parser.parse_from_object)
jsonargparse.set_loader("yaml", configs.load, (yaml.YAMLError,))
jsonargparse.set_dumper("yaml", configs.dump)
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


def _words(kind: str, value: str) -> str:
    """How a sentence calls a plain type or the words of a Literal; "" for any other type. `value` is what was given."""
    if kind in ("list", "tuple"):
        return "a list" if value[:1] in ("[", "{") else f"a list, such as '[{value}]'"
    if kind == "dict":
        return "a mapping, such as '{no: bad, yes: good}'"
    if kind == "str":
        return "text (in quotes if YAML reads a number, true, false or null)"
    return " or ".join(re.findall(r"'(\w+)'", kind)) if kind.startswith("Literal[") else KINDS.get(kind, ("", ""))[1]


def _unfound(found: str) -> str:
    """Why no class can be imported by the path that was given, such as my_module.MyMethod; "" for another mistake."""
    raised = re.search(r"Problem with given class_path '[\w.]+':\s+(.+)", found)
    if raised:
        return f"cannot be imported ({raised[1].rstrip('.')})."
    other = re.search(r"Import path does not correspond to a subclass of (\w+)", found)
    if other:
        return f"is no subclass of {other[1]}."
    if "Expected a dot import path string" in found:  # methods and data modules without a dot are checked before
        return "is no class of Lightning's; one of your own is named by its path, such as my_module.MyClass."
    return ""


def refused_class(error: BaseException) -> tuple[str, BaseException]:
    """The class that jsonargparse could not build and what its constructor said; the class is "" for another error."""
    name = ""
    while True:
        found = re.search(r"class_path[ =]'([\w.]+)'", str(error))
        name = found[1] if found else name
        if error.__cause__ is None:
            return name, error
        error = error.__cause__


@final
class Parser(LightningArgumentParser):
    """Lightning's parser with errors of one sentence, raised as InputError."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise the InputError that a constructor raised, if one did; else one that says what the parser found."""
        inner = root(ex)
        outer = re.match(r'(?:Problem with )?[Pp]arser key "([\w.]+)"', message)
        if isinstance(inner, OptionError) and outer:
            raise OptionError(f"{outer[1]}.{inner.key}", inner.reason) from ex
        if inner is not None:
            raise inner from ex
        unknown = re.search(
            r"(?:Option|Key) '([\w.]+)' is not accepted|[Uu]nrecognized arguments?: --([\w.-]+)", message
        )
        if unknown:
            raise OptionError(unknown[1] or unknown[2]) from ex
        grouped = re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        if grouped:
            raise OptionError(f"{grouped[1]}.{grouped[2]}") from ex
        missing = re.search(r"arguments are required: ([\w.]+)", message)
        if missing:
            name, fix = missing[1], "give it a value."
            if name in catalog.GROUPS:
                fix = f"choose one of: {', '.join(catalog.classes(name))}."
            elif name.startswith("data."):
                fix = "python -m ptune.tasks lists the tasks."
            raise OptionError(name, f"is missing; {fix}") from ex
        if not outer:
            raise InputError(" ".join(message.split())) from ex
        raise self._of_value(outer[1], message[outer.end() + 1 :]) from ex

    def _of_value(self, key: str, found: str) -> OptionError:
        """The error of a value that does not have its option's type."""
        lines = [line for line in (line.strip(" -") for line in found.splitlines()) if line]
        value = re.search(r"(?:Given|Got) value: (.*)", found)
        nested = re.search(r"^ *- option --([\w.]+) (.*)", found, re.MULTILINE)  # found by one type of a union
        if nested:
            return OptionError(f"{key}.{nested[1]}", "" if nested[2].startswith("does not") else nested[2])
        if value and (reason := _unfound(found)):
            return OptionError(key, f"{value[1]!r}: {reason}")
        if key in catalog.GROUPS and value:
            return OptionError(key, f"{value[1]!r}: {nearest(value[1], catalog.classes(key))}")
        expected = [line for line in lines if line.startswith(("Expected", "Literal"))]
        said = dict.fromkeys(re.sub(r"\. Got value: .*|<class '|'>|typing\.", "", line) for line in expected)
        for null in ("Expected a NoneType", "Expected NoneType"):
            said.pop(null, None)  # null is no option that a user would miss
        kinds = [line.removeprefix("Expected ").removeprefix("a ") for line in said]
        words = [_words(kind, value[1] if value else "") for kind in kinds]
        reason = f"must be {' or '.join(words)}" if words and all(words) else "; ".join(said)
        return OptionError(key, f"{value[1]!r}: {reason or lines[-1]}." if value else ": " + " ".join(lines))
