"""Configuration files: YAML 1.2 scalars, no duplicate keys, nothing that grows when it is read.

YAML 1.1, which PyYAML implements, reads `no` as false, `1:30` as 90 and `1e-3` as text, and keeps the last of two equal
keys. In a configuration each of these is a silent mistake. jsonargparse reads option values by the same function.
"""

import os
import re
from pathlib import Path
from typing import Any, final

import yaml

from ptune.errors import InputError, absent

SIZE, NODES, DEPTH = 2**20, 100_000, 100
"""Limits of one file: bytes, nodes with every alias expanded, and nesting. A config.yaml has 3 kB, 150 nodes, 6 deep.
"""

TAG = "tag:yaml.org,2002:"
SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
    "merge": "<<",
}
"""What a plain word may mean, by the name of its YAML tag; every other word is text."""


@final
class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars above, which refuses two equal keys."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  # its own, not those of YAML 1.1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key in (
            key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != f"{TAG}merge"
        ):
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} occurs twice", problem_mark=node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        """Decimal: YAML 1.1 reads 010 as 8."""
        return int(node.value)


@final
class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which puts into quotes what a word means in YAML 1.2 alone, such as the label 08 or 1e3."""


for _name, _form in SCALARS.items():
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"^(?:{_form})$"), None)
_Loader.add_constructor(f"{TAG}int", _Loader.construct_yaml_int)


def load(text: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError for what is no YAML, grows beyond the limits or repeats a key."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node)
        value = loader.construct_document(node)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; nesting beyond Python's stack
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()
    # `{a, b}` and `a:` are text with braces or a colon, such as a template's columns, not mappings to null.
    if isinstance(value, dict) and value and all(item is None for item in value.values()):
        inside = text.strip(" {}").replace(" ", "").split(",")
        if text.strip() == f"{next(iter(value))}:" or set(inside) == set(value):
            return text
    return value


def dump(value: Any, **form: Any) -> str:
    """The YAML that `load` reads as this value: plain types, in their order; `form` are further options of PyYAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **form)


def loaded(text: str) -> Any:
    """The value of a text that is YAML of several parts; any other text stays as it is."""
    try:
        return load(text) if text.lstrip()[:1] in ("{", "[") or ":" in text else text
    except yaml.YAMLError:
        return text


def meant(text: str) -> Any:
    """The value that a word of a command line means; a text that is no YAML, such as `{a} [MASK]`, stays as it is."""
    try:
        return load(text)
    except yaml.YAMLError:
        return text


def _measure(root: yaml.Node) -> None:
    """Raise YAMLError where the tree with its aliases expanded exceeds the limits; a recursive alias does."""
    count, stack = 0, [(root, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > NODES or depth > DEPTH:
            what = f"{NODES:,} values" if count > NODES else f"{DEPTH} levels"
            raise yaml.MarkedYAMLError(
                problem=f"more than {what} when aliases are expanded", problem_mark=node.start_mark
            )
        if isinstance(node, yaml.MappingNode):
            stack += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            stack += [(part, depth + 1) for part in node.value]


def read(config: str, option: str = "--config ", example: str = "a run's config.yaml") -> dict[str, Any]:
    """The options in a configuration: the path of a YAML file, or the YAML itself where it has several lines.

    Args:
        config: the path or the YAML.
        option: what stands before the path in an error; "" for a file that is no value of an option.
        example: a file of this kind that exists, for an error.

    Raises:
        InputError: the file cannot be read, is not YAML, or holds no options.
    """
    if not config:
        raise InputError(f"{option}is given no file; give a YAML file, such as {example}.")
    inline, path = "\n" in config, Path(os.path.expanduser(config))  # a shell leaves the ~ of --config=~/x as it is
    named = option.strip() if inline else f"{option}{path}"
    try:
        found = load(config if inline else _text(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{named}: not UTF-8 at byte {error.start}; save it as UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte
        fix = f"give a YAML file, such as {example}."
        if path.exists():
            raise InputError(f"{named}: {'is a folder' if path.is_dir() else 'cannot be read'}; {fix}") from error
        raise InputError(f"{option}{absent(path, fix)}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{named}: not YAML ({_reason(error)}).") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{named}: holds no names with values, as {example} does.")
    return found


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(SIZE + 1)
    if len(data) > SIZE:
        raise yaml.YAMLError(f"it has more than {SIZE:,} bytes")
    return data.decode("utf-8-sig")


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())
