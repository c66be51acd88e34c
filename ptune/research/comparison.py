"""What a comparison of a row of results with a reference is, and which row is the reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ptune.errors import InputError, nearest
from ptune.research.groups import Group
from ptune.research.statistics import Difference, holm


@final
@dataclass(frozen=True)
class SeedPair:
    """One run of each side with the same seed, row by row."""

    seed: int | None
    own: int
    """Rows that only the method answers right."""
    reference: int
    """Rows that only the reference answers right."""
    p: float
    """Of McNemar's test, not corrected."""


@final
@dataclass(frozen=True)
class Comparison:
    """A row of results against the reference's of its task."""

    group: Group
    reference: Group
    split: str = ""
    """The split that is compared: the last one, which has chosen nothing where there are several."""
    rows: int = 0
    difference: Difference | None = None
    """Of the means over seeds of the metric that chose; None where nothing is compared."""
    exact: bool = False
    """Whether its p-value is McNemar's: of one run each, by a metric that is the share of right rows."""
    pairs: tuple[SeedPair, ...] = ()
    """The pairs of one seed; () where the metric is not the share of right rows."""
    why: str = ""
    """Why nothing is compared."""


def reference_of(groups: Sequence[Group], against: Sequence[str]) -> dict[str, Group]:
    """The reference of each task.

    Args:
        groups: all groups.
        against: words `column=value`; a word without `=` is a value of `method`.

    Raises:
        InputError: a column or value does not exist, or several rows of a task have the values.
    """
    wanted: dict[str, str] = {}
    for word in against:
        column, equal, value = word.partition("=")
        wanted |= {column: value} if equal else {"method": word}
    for column, value in wanted.items():
        if column not in groups[0].values:
            raise InputError(f"--against {column}={value}: no column {column!r}; {nearest(column, groups[0].values)}")
        known = {group.values[column] for group in groups} - {""}
        if value not in known:
            raise InputError(f"--against {column}={value}: no row has it; {nearest(value, known)}")
    found: dict[str, Group] = {}
    for group in groups:
        if all(group.values[column] == value for column, value in wanted.items()) and group.runs:
            if group.task in found:
                other = found[group.task]
                column = next(name for name in group.values if group.values[name] != other.values[name])
                raise InputError(
                    f"--against {' '.join(against)}: {group.task} has two such rows, {other.name!r} and "
                    f"{group.name!r}; add a value of {column}, such as {column}={group.values[column]}."
                )
            found[group.task] = group
    if not found:
        raise InputError(f"--against {' '.join(against)}: no row of these values has a finished run; choose another.")
    return found


def corrected(comparisons: Sequence[Comparison]) -> list[float]:
    """For each comparison its p-value with Holm's correction over all of them; NaN where nothing is tested."""
    values = [each.difference.p if each.difference else math.nan for each in comparisons]
    tested = [i for i, value in enumerate(values) if not math.isnan(value)]
    found = [math.nan] * len(values)
    for place, value in zip(tested, holm([values[i] for i in tested]), strict=True):
        found[place] = value
    return found
