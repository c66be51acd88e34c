"""`Columns`: a row as published becomes a checked one, which has the columns that the model and its loss need."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, final

from ptune.data import open_task
from ptune.errors import InputError
from ptune.tasks.spec import TaskSpec


@final
class MissingColumn(InputError):
    """A column that a row does not have.

    Args:
        name: the column.
        row: the row, whose columns the sentence names.
    """

    def __init__(self, name: str, row: Mapping[str, Any]) -> None:
        self.name = name
        super().__init__(f"no column {name!r}; the row has {', '.join(map(repr, row)) or 'no column at all'}.")


class Columns(ABC):
    """The first step of `TaskData`: a row's columns, read as the task says and checked."""

    task: TaskSpec

    def checked(self, row: dict, labelled: bool = True) -> dict:
        """The parsed columns of a row as published, of which `items` makes an item.

        Where it is not `labelled`, its answer is not read and need not be there.

        Raises:
            InputError: a mistake in the row; the caller adds its place.
        """
        prepared = self.prepared(row)
        try:
            return self.parse(prepared if labelled else self.unanswered(prepared))
        except MissingColumn as error:  # its own columns, without stand-ins
            raise MissingColumn(error.name, row) from error

    def unanswered(self, row: dict) -> dict:
        """`row` with stand-ins in the columns that only a loss or a metric reads, so that `parse` takes it."""
        return row | {self.task.label: self.task.labels[0] if self.task.labels else 0}

    @abstractmethod
    def parse(self, row: dict) -> dict:
        """The checked columns of `row` that `encode` needs; the caller adds the place to an InputError.

        All rows have the same columns, of texts, numbers or lists of them, as Arrow holds them.
        """

    def prepared(self, row: dict) -> dict:
        """The row with the columns that the task's function makes; an InputError where it lacks what that reads."""
        if self.task.prepare is None:
            return row
        try:
            return self.task.prepare(row)
        except KeyError as error:
            raise MissingColumn(str(error.args[0]), row) from error
        except (TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"a column does not have the form that task {self.task.name!r} expects ({error})."
            ) from error

    def column(self, row: dict, name: str) -> Any:
        """The value of column `name`, which must be there."""
        if name not in row:
            raise MissingColumn(name, row)
        return row[name]

    def string(self, row: dict, name: str, empty: bool = False) -> str:
        """The text in column `name`; an empty one or NaN is an error unless `empty`."""
        value = self.column(row, name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            value = ""
        if not isinstance(value, str | int | float):
            raise InputError(f"column {name!r} must be text, not {type(value).__name__}.")
        if not str(value).strip() and not empty:
            raise InputError(f"column {name!r} is empty; fill it or remove the row.")
        return str(value)

    def code(self, value: Any) -> int:
        """The integer code of a class label given as a name or a code.

        Labels that are numbers are compared as such: 1 is the label 1.0, as pandas writes whole numbers next to a gap.
        Codes are not accepted where a label's own name is a number: "1" would then have two meanings.
        """
        labels, name = self.task.labels, open_task.label_name(value)
        if name in labels:
            return labels.index(name)
        if _has_numbers(labels):
            same = [code for code, label in enumerate(labels) if open_task.same_number(name, label)]
            if len(same) == 1:
                return same[0]
        else:
            number = str(int(value)) if isinstance(value, bool) else name
            if number in [str(code) for code in range(len(labels))]:
                return int(number)
        raise InputError(
            f"column {self.task.label!r}: label {name!r} is none of {list(labels)} nor their code, counted from 0; "
            "correct it, or list the labels as the column has them by --data.task.labels."
        )

    def missing(self, value: Any) -> bool:
        """Whether a label is not published: null, NaN, GLUE's -1, or as a file of texts has them, nothing or -1.

        A text -1 is an answer where the task predicts a number, and where it is one of the labels.
        """
        if not isinstance(value, str):
            return value in (None, -1) or (isinstance(value, float) and math.isnan(value))
        labels, hidden = self.task.labels, open_task.same_number(value.strip(), "-1")
        return not value.strip() or bool(hidden and labels and not any(open_task.same_number("-1", x) for x in labels))

    def row_settings(self) -> dict[str, Any]:
        """Values that `parse` depends on beside the task; they are part of the checked rows' key in the cache."""
        return {}


@lru_cache(maxsize=8)  # asked for every label that is no name, of which a tagging corpus has a million
def _has_numbers(labels: tuple[str, ...]) -> bool:
    return any(map(open_task.NUMBER.fullmatch, labels))
