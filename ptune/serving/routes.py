"""Several runs of one command line: their names, and which of them answers a row."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from ptune.errors import InputError, nearest

USUAL = ("prompts", "best", "last")
"""What files with trained tensors are called in a run directory, without their endings."""


def named(words: Sequence[str]) -> dict[str, str]:
    """Runs by their names, in their order.

    Args:
        words: runs, or NAME=RUN where the name is stated. Else a run has the name of its folder, and a file that is
            called otherwise than those of a run directory has its own.

    Raises:
        InputError: two runs have one name.
    """
    runs: dict[str, str] = {}
    for word in words:
        name, _, run = word.partition("=")
        if not run or "/" in name or Path(word).exists():
            name, run = _usual_name(word), word
        if name in runs:
            raise InputError(f"{run}: {runs[name]} is called {name!r}, too; give it another name, as NAME={run}.")
        runs[name] = run
    return runs


def _usual_name(run: str) -> str:
    path = Path(os.path.abspath(run))
    if path.is_file():
        return path.parent.name if path.stem in USUAL else path.stem
    return path.name


@final
class Routes:
    """Which of several runs answers a row.

    Args:
        tasks: the name of each run's task, by the run's name.
        column: a column of the rows that names the run, or its task where no other run has the same; without one, every
            run answers every row.
    """

    def __init__(self, tasks: Mapping[str, str], column: str | None) -> None:
        self.column, self.runs = column, list(tasks)
        self._of_value: dict[str, list[str]] = {}
        for name, task in tasks.items():
            self._of_value.setdefault(task, []).append(name)
        self._of_value |= {name: [name] for name in tasks}

    def check(self, rows: Sequence[Any]) -> None:
        """Raise an InputError where none of the first rows of a file has the column: its name has a mistake then."""
        tables = [row for row in rows if isinstance(row, Mapping)]
        if self.column and tables and not any(self.column in row for row in tables):
            columns = map(str, tables[0])
            raise InputError(f"--route {self.column}: the rows have no such column, {nearest(self.column, columns)}")

    def of(self, row: Any) -> list[str]:
        """The names of the runs that answer a row.

        Raises:
            InputError: it has no such column, or the column names no run, or a task of several runs.
        """
        if not self.column:
            return self.runs
        if not isinstance(row, Mapping) or self.column not in row:
            raise InputError(f"no column {self.column!r}, which says what run answers the row.")
        value = str(row[self.column])
        runs = self._of_value.get(value, [])
        if not runs:
            raise InputError(f"{self.column}: {value!r} is no run and no task of one, {nearest(value, self._of_value)}")
        if len(runs) > 1:
            raise InputError(f"{self.column}: {value!r} is the task of {' and '.join(runs)}; name the run.")
        return runs
