"""What a report is made of, before it is written in some format: a few tables with their notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import final

from ptune.research.groups import Group


@final
@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str = "-"
    """As it is read, rounded: `83.4 ± 0.3`, `failed: ...`; `-` where there is nothing."""
    value: float | str | None = None
    """The number behind it (a metric as a fraction), or its word; None where there is none. Rows are sorted by it."""
    deviation: float | None = None
    """Sample standard deviation over seeds; None for fewer than two."""
    count: int | None = None
    """Number of runs behind the number; None where it is of no run."""


@final
@dataclass(frozen=True)
class Table:
    """A table of a report."""

    name: str
    """One word by which the command line selects it: `results`, `cost`."""
    title: str
    columns: tuple[str, ...]
    keys: int
    """How many columns, the first ones, say what a row is about."""
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Footnotes in whole sentences: units, rules, tests, failures."""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.title


@final
@dataclass(frozen=True)
class Report:
    """All that a report says, in the order of reading."""

    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """What holds for the whole report, such as files that were left out."""
    groups: tuple[Group, ...]
    """The runs behind the rows, for pictures."""


def word(text: str) -> Cell:
    """A cell that holds a word."""
    return Cell(text, text)


def measured(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> Cell:
    """A cell with mean ± sample standard deviation; without ± for one value, `-` for none.

    Args:
        values: one number a run.
        scale: what the text multiplies them by: 100 for percent.
        digits: decimals of the text.
    """
    if not values:
        return Cell(count=0)
    mean = sum(values) / len(values)
    text = f"{scale * mean:,.{digits}f}"
    if len(values) == 1:
        return Cell(text, mean, count=1)
    return Cell(f"{text} ± {scale * stdev(values):,.{digits}f}", mean, stdev(values), len(values))


def amount(values: Sequence[float]) -> Cell:
    """A cell with mean ± deviation of an amount such as seconds, with a decimal where it is small."""
    return measured(values, 1, 0 if values and sum(values) / len(values) >= 10 else 1)


def counted(values: Sequence[float], form: str = ",.0f") -> Cell:
    """A cell with a count that is mostly the same for all runs, or with the smallest and largest one.

    Args:
        values: one number a run.
        form: format of the text.
    """
    if not values:
        return Cell(count=0)
    ends = dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values)))
    deviation = stdev(values) if len(values) > 1 else None
    return Cell("–".join(ends), sum(values) / len(values), deviation, len(values))
