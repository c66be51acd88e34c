"""Tasks by name: `task("rte")`; `python -m ptune.tasks` lists them. Every file here with rows called TASKS is found."""

from dataclasses import fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ptune.errors import InputError, nearest
from ptune.tasks.spec import HeadSpec, Prepare, TaskSpec, Unresolved

__all__ = [
    "HeadSpec", "TaskSpec", "all_tasks", "known", "listed", "plain", "prepare_name", "prepare_of", "spec_of", "task",
]  # fmt: skip

HUB = "hub:"
"""How the name of a task begins whose rows are those of a dataset of the hub."""
FAMILY = 6
"""Tasks whose names begin alike (`lama/...`) are listed as one family from this number on."""


@cache
def all_tasks() -> dict[str, TaskSpec]:
    """Every task by its name."""
    files = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__) if info.name != "__main__"]
    return {row.name: row for file in files for row in vars(file).get("TASKS", ())}


def listed() -> dict[str, list[TaskSpec]]:
    """The tasks under the names that stand for them in a list: a task's own, or `lama/*` for a family."""
    families: dict[str, list[TaskSpec]] = {}
    for row in all_tasks().values():
        families.setdefault(f"{row.name.split('/')[0]}/*" if "/" in row.name else row.name, []).append(row)
    names = {}
    for family, rows in families.items():
        names |= {family: rows} if len(rows) >= FAMILY else {row.name: [row] for row in rows}
    return names


def known(name: str) -> TaskSpec | None:
    """The task called `name`, or that of a dataset of the hub, hub:OWNER/NAME[/CONFIGURATION]; None without any."""
    if name.startswith(HUB):
        owner, _, configuration = name.removeprefix(HUB).partition("/")
        place, _, configuration = configuration.partition("/")
        hub = (f"{owner}/{place}" if place else owner, *filter(None, [configuration]))
        return TaskSpec("/".join(hub), hub=hub)
    return all_tasks().get(name)


def task(name: str) -> TaskSpec:
    """The task called `name`, or that of a dataset of the hub, hub:OWNER/NAME[/CONFIGURATION].

    Raises:
        InputError: there is none of that name; it names the nearest one.
    """
    tasks, found = all_tasks(), known(name)
    if found is None:
        family = [other for other in tasks if "/" in name and other.startswith(f"{name.split('/')[0]}/")]
        raise InputError(f"no task {name!r}, {nearest(name, family or listed())}")
    return found


def plain(row: TaskSpec) -> dict[str, Any]:
    """The fields of a task as a YAML mapping holds them: lists, mappings, and the name of its function."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    words = {label: word if isinstance(word, str) else list(word) for label, word in row.verbalizer.items()}
    return values | {"verbalizer": words, "prepare": row.prepare and prepare_name(row.prepare)}


def spec_of(values: dict[str, Any]) -> TaskSpec:
    """The task whose fields `plain` wrote.

    Raises:
        InputError: a field that is none.
    """
    known = {field.name for field in fields(TaskSpec)}
    unknown = next((name for name in values if name not in known), None)
    if unknown is not None:
        raise InputError(f"data.task.{unknown}: a task has no such field; the file is of another version of ptune.")
    fixed: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in values.items()}
    prepare = fixed.pop("prepare", None)
    return TaskSpec(**fixed, prepare=None if prepare is None else prepare_of(prepare))


def prepare_name(function: Prepare) -> str:
    """The name that a configuration has for a function of rows: that of the first task whose function it is."""
    return next((row.name for row in all_tasks().values() if row.prepare is function), str(function))


def prepare_of(name: object) -> Prepare:
    """The function that a configuration names: that of a task of ptune; any other is not imported and never called."""
    if isinstance(name, Prepare):  # the parser asks again for what it has found
        return name
    row = all_tasks().get(str(name))
    return row.prepare if row and row.prepare else Unresolved(name)
