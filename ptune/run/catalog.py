"""Which classes and options there are, read from the source without importing it.

Importing the methods takes seconds, because torch, transformers and lightning come with them. A typo, `--help` and tab
completion must not wait for that, so names, defaults and docstrings are taken from the syntax tree. A class is found
where it lies: every concrete subclass of `PromptTuner` below `ptune.methods` and of `TaskData` below `ptune.data`.
"""

import ast
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import final

GROUPS = {"model": ("ptune.methods", "PromptTuner"), "data": ("ptune.data", "TaskData")}
"""For each option that takes a class: the package its classes lie in, and their base class."""


@final
@dataclass(frozen=True)
class Option:
    """One argument of a class: its type and default as they are written in the source, and what it means."""

    name: str
    type: str
    default: str | None
    """None where the argument must be given."""
    help: str
    choices: tuple[str, ...] = ()
    """The only values it may have; empty where its type is open."""


@final
@dataclass(frozen=True)
class Entry:
    """A class that can be named on the command line."""

    name: str
    module: str
    summary: str
    """First line of its docstring."""
    options: dict[str, Option] = field(repr=False)
    """Its own arguments before those of its base classes."""


@cache
def classes(group: str) -> dict[str, Entry]:
    """The classes of `model` or `data` by name."""
    package, base = GROUPS[group]
    found = {}
    for module in modules(package):
        for node in _tree(module).body:
            if isinstance(node, ast.ClassDef) and _is_final(node) and base in _ancestors(module, node):
                found[node.name] = entry(module, node.name)
    return found


def reader(format: str) -> str:
    """Name of the data module that reads a task format; the attribute `format` of its class says so."""
    for name, found in classes("data").items():
        for item in _class(found.module, name).body:
            match item:
                case ast.AnnAssign(target=ast.Name(id="format"), value=ast.Constant(value=value)) if value == format:
                    return name
    raise KeyError(format)


def trains(name: str) -> bool:
    """Whether a method trains anything; the attribute `trains` of its class says so. One of the user's own may."""
    found = own("model", name)
    for item in _class(found.module, found.name).body if found else ():
        match item:
            case ast.AnnAssign(target=ast.Name(id="trains"), value=ast.Constant(value=value)):
                return bool(value)
    return True


def own(group: str, name: str) -> Entry | None:
    """The class of a name or dotted path; None for a class of the user's own."""
    found = classes(group).get(name.rpartition(".")[2])
    return found if found and name in (found.name, f"ptune.{found.name}", f"{found.module}.{found.name}") else None


def modules(package: str) -> list[str]:
    """Names of the modules of a package of ptune, in the order of the alphabet."""
    path = import_module(package).__path__
    return sorted(f"{package}.{info.name}" for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))


def commands() -> dict[str, str]:
    """What each command does, by its name: the first sentence of its docstring."""
    found = {}
    path = import_module("ptune").__path__
    for info in pkgutil.iter_modules(path):
        place = Path(path[0], info.name)
        file = place / "__main__.py" if info.ispkg else place.with_suffix(".py")
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        if "main" in functions and info.name != "__main__":
            first = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[info.name] = first.partition("`: ")[2].rstrip(".").capitalize()
    return found


def entry(module: str, name: str) -> Entry:
    """The class `name` of a module, with the arguments of its constructor and of those it passes `**` on to."""
    node = _class(module, name)
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    options: dict[str, Option] = {}
    for option in _options(module, node):
        own = options.setdefault(option.name, option)
        if not own.help:  # it is explained by the base class
            options[option.name] = replace(own, help=option.help)
    return Entry(name, module, summary, options)


def _options(module: str, node: ast.ClassDef) -> Iterator[Option]:
    """The class's own arguments, then those of its base classes, which may have the same names."""
    helps = _argument_docs(node)
    init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    passed_on = True
    if init is not None:
        passed_on = init.args.kwarg is not None
        arguments = [*init.args.posonlyargs, *init.args.args][1:]
        missing: list[ast.expr | None] = [None] * (len(arguments) - len(init.args.defaults))
        for argument, default in [
            *zip(arguments, [*missing, *init.args.defaults], strict=True),
            *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True),
        ]:
            yield _option(module, argument.arg, argument.annotation, default, helps.get(argument.arg, ""))
    elif _is_dataclass(node):
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                help_ = helps.get(item.target.id) or _attribute_doc(node, item)
                yield _option(module, item.target.id, item.annotation, item.value, help_)
    if passed_on:
        for base_module, base in _bases(module, node):
            yield from _options(base_module, base)


def _option(module: str, name: str, annotation: ast.expr | None, default: ast.expr | None, help_: str) -> Option:
    type_ = "" if annotation is None else ast.unparse(annotation)
    value = None if default is None else _shown(module, default)
    return Option(name, type_, value, help_, tuple(_choices(module, annotation) or ()))


def _shown(module: str, default: ast.expr) -> str:
    """A default as it would be written on the command line."""
    if isinstance(default, ast.Name):
        for home in (module, _imports(module).get(default.id, "")):
            for node in _tree(home).body if home and _file(home) else ():
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == default.id:
                    return _shown(home, node.value)
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return ast.unparse(default)
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _choices(module: str, annotation: ast.expr | None) -> list[str] | None:
    """The values of a type made of literals alone; None for any other type."""
    match annotation:
        case ast.Constant(value=None):
            return []
        case ast.Subscript(value=ast.Name(id="Literal"), slice=part):
            values = part.elts if isinstance(part, ast.Tuple) else [part]
            return [str(value.value) for value in values if isinstance(value, ast.Constant)]
        case ast.BinOp(left=left, right=right):
            parts = [left, right]
        case ast.Subscript(value=ast.Name(id="Union" | "Optional"), slice=part):
            parts = part.elts if isinstance(part, ast.Tuple) else [part]
        case ast.Name(id=name):
            for statement in _tree(module).body:
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                    return _choices(module, statement.value)
            home = _imports(module).get(name)
            return _choices(home, annotation) if home and home != module and _file(home) else None
        case _:
            return None
    found = [_choices(module, part) for part in parts]
    return None if None in found else [value for values in found for value in values or ()]


# Docstrings.


def _argument_docs(node: ast.ClassDef) -> dict[str, str]:
    """The lines of the docstring's `Args:` by argument."""
    text = (ast.get_docstring(node) or "").partition("Args:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if match := re.match(r" {4}(\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif line.startswith("        ") and name:
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return found


def _attribute_doc(node: ast.ClassDef, item: ast.AnnAssign) -> str:
    """The string below a dataclass field."""
    following = node.body[node.body.index(item) + 1 :][:1]
    match following:
        case [ast.Expr(value=ast.Constant(value=str(text)))]:
            return " ".join(text.split())
    return ""


# Modules, classes and their bases.


def _class(module: str, name: str) -> ast.ClassDef:
    return next(node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)


def _bases(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """The base classes that are defined in ptune."""
    own = {item.name for item in _tree(module).body if isinstance(item, ast.ClassDef)}
    for base in node.bases:
        if isinstance(base, ast.Name):
            home = module if base.id in own else _imports(module).get(base.id, "")
            if home.startswith("ptune."):
                yield home, _class(home, base.id)


def _ancestors(module: str, node: ast.ClassDef) -> set[str]:
    found = set()
    for home, base in _bases(module, node):
        found |= {base.name} | _ancestors(home, base)
    return found


def _is_final(node: ast.ClassDef) -> bool:
    return any(isinstance(item, ast.Name) and item.id == "final" for item in node.decorator_list)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(item) for item in node.decorator_list)


@cache
def _imports(module: str) -> dict[str, str]:
    """The module that each imported name comes from."""
    found = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
    return found


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None, module
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _file(module: str) -> Path | None:
    """The source of a module; its packages are imported only where they are ptune's own, whose are empty or light."""
    if module.startswith(("ptune.methods.", "ptune.data.")):
        package, _, name = module.rpartition(".")
        places = [Path(place) for place in import_module(package).__path__]
    else:
        top, *inner, name = module.split(".") if "." in module else (module, "")
        spec = find_spec(top)
        places = [Path(place, *inner) for place in (spec.submodule_search_locations or () if spec else ())]
    for place in places:
        for file in (place / f"{name}.py", place / name / "__init__.py"):
            if file.is_file():
                return file
    return None
