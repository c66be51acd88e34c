"""Tasks by name: `task("rte")`; `python -m ptune.tasks` lists them."""

from ptune.errors import InputError, nearest
from ptune.tasks import glue, lama, others, superglue, toy
from ptune.tasks.spec import HeadSpec, TaskSpec

__all__ = ["HeadSpec", "TaskSpec", "all_tasks", "task"]


def all_tasks() -> dict[str, TaskSpec]:
    """Every task by its name."""
    return {row.name: row for row in (*toy.TASKS, *glue.TASKS, *superglue.TASKS, *others.TASKS, *lama.TASKS)}


def task(name: str) -> TaskSpec:
    """The task called `name`; an InputError names the nearest one where there is none."""
    tasks = all_tasks()
    if name not in tasks:
        raise InputError(f"no task {name!r}, {nearest(name, tasks)}")
    return tasks[name]
