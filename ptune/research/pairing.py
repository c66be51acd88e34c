"""Comparisons of rows of results with a reference, paired by the rows of data that the runs of both have answered."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np
import torch
from numpy import ndarray

from ptune.errors import InputError
from ptune.heads import head_class
from ptune.heads.metrics import resampled
from ptune.research import answers
from ptune.research.comparison import Comparison, SeedPair
from ptune.research.groups import Group
from ptune.research.records import Record
from ptune.research.statistics import RESAMPLES, difference, mcnemar, weights

EQUAL = 1e-5
"""Values of a metric that differ by less are equal to float error."""
AT_ONCE = 2_000_000
"""Largest number of weights, resamples times rows, that are in memory at a time."""


def compared(groups: Sequence[Group], references: Mapping[str, Group]) -> list[Comparison]:
    """Every row with a finished run against the reference of its task."""
    found = []
    for task, reference in references.items():
        others = [group for group in groups if group.task == task and group.runs and group is not reference]
        found += _of_task(others, reference)
    return found


def _of_task(groups: Sequence[Group], reference: Group) -> list[Comparison]:
    """The comparisons of one task; each run is read and resampled once."""
    measured: dict[tuple[str, str], _Measured] = {}
    found = []
    for group in groups:
        split = group.runs[0].splits[-1]
        comparison = Comparison(group, reference, split)
        try:
            for run in (*reference.runs, *group.runs):
                if (run.place, split) not in measured:
                    measured[run.place, split] = _Measured(run, split)
            own, others = ([measured[run.place, split] for run in each.runs] for each in (group, reference))
            answers.check_same([each.answers for each in (*others, *own)])
            found.append(_compare(comparison, own, others))
        except InputError as error:
            found.append(replace(comparison, why=str(error)))
    return found


@final
class _Measured:
    """The answers of a run and what is measured of them, the resamples when they are needed."""

    def __init__(self, run: Record, split: str) -> None:
        if split not in run.predictions:
            raise InputError("no predictions")
        self.run, self.answers = run, answers.read(run.predictions[split])
        self.metric = run.result["monitor"]
        if self.metric not in self.answers.head.metrics:
            raise InputError(f"{self.answers.file} is of other metrics than {self.metric}.")
        one = torch.ones(1, len(self.answers.rows), dtype=torch.float64)
        self.value = float(resampled(self.answers.head, self.metric, self.answers.table, one)[0])
        told = run.metric(split, self.metric)
        if told is None or abs(told - self.value) > EQUAL:
            raise InputError(f"{self.answers.file} gives {self.value:.4f}, not the result's {told}.")
        right = head_class(self.answers.head.kind).right(self.answers.table)
        self.right = None if right is None else np.array(right)
        self.resampled: ndarray | None = None

    @property
    def counts_right(self) -> bool:
        """Whether the metric is the share of rows that are right."""
        return self.right is not None and abs(self.value - self.right.mean()) < EQUAL


def _compare(comparison: Comparison, own: list[_Measured], others: list[_Measured]) -> Comparison:
    first = others[0].answers
    if {each.metric for each in own} != {each.metric for each in others}:
        raise InputError(f"measured by {own[0].metric} and by {others[0].metric}")
    units = head_class(first.head.kind).units(first.table).numpy()
    _resample([each for each in (*own, *others) if each.resampled is None], units)
    found = difference(
        np.array([each.value for each in own]),
        np.array([each.value for each in others]),
        np.stack([each.resampled for each in (*own, *others)]),  # type: ignore[arg-type]
        int(units.max()) + 1,
    )
    if not all(each.counts_right for each in (*own, *others)):
        return replace(comparison, rows=len(first.rows), difference=found)
    pairs = tuple(_pair(one, other) for one in own for other in others if one.run.seed == other.run.seed)
    exact = len(own) == len(others) == 1
    if exact:
        found = replace(found, p=_pair(*own, *others).p)
    return replace(comparison, rows=len(first.rows), difference=found, exact=exact, pairs=pairs)


def _pair(own: _Measured, other: _Measured) -> SeedPair:
    first, second = (int((a.right & ~b.right).sum()) for a, b in ((own, other), (other, own)))  # type: ignore[operator]
    return SeedPair(own.run.seed, first, second, mcnemar(first, second))


def _resample(runs: Sequence[_Measured], units: ndarray) -> None:
    """Measure the runs on resamples of the rows, which are the same ones for every run of a task."""
    size = max(1, AT_ONCE // len(units))
    found: list[list[ndarray]] = [[] for _ in runs]
    for start in range(0, RESAMPLES if runs else 0, size):
        drawn = torch.from_numpy(weights(units, min(size, RESAMPLES - start), seed=start)).double()
        for run, values in zip(runs, found, strict=True):
            values.append(resampled(run.answers.head, run.metric, run.answers.table, drawn).numpy())
    for run, values in zip(runs, found, strict=True):
        run.resampled = np.concatenate(values)
