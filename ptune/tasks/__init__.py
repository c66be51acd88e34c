"""Tasks by name: `task("rte")`; `python -m ptune.tasks` lists them. Every file here with rows called TASKS is found."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ptune.errors import InputError, nearest
from ptune.tasks.spec import HeadSpec, TaskSpec

__all__ = ["HeadSpec", "TaskSpec", "all_tasks", "listed", "task"]

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


def task(name: str) -> TaskSpec:
    """The task called `name`.

    Raises:
        InputError: there is none of that name; it names the nearest one.
    """
    tasks = all_tasks()
    if name not in tasks:
        family = [other for other in tasks if "/" in name and other.startswith(f"{name.split('/')[0]}/")]
        raise InputError(f"no task {name!r}, {nearest(name, family or listed())}")
    return tasks[name]
