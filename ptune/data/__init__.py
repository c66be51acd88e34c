"""Data modules, one file a task format: each final subclass of `TaskData` in this package is found where it lies."""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptune.data.base import TaskData


def modules() -> dict[str, type["TaskData"]]:
    """The data module of each task format, by the format's name; imports every file of this package."""
    from ptune.data.base import TaskData

    files = [import_module(info.name) for info in iter_modules(__path__, f"{__name__}.")]
    return {
        value.format: value
        for file in files
        for value in vars(file).values()
        if isinstance(value, type) and issubclass(value, TaskData) and "__final__" in vars(value)
    }
