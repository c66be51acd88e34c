"""The table of a report over tasks: how far each configuration is from the reference in the mean, and how it ranks."""

from collections.abc import Mapping, Sequence
from statistics import mean

from scipy.stats import rankdata

from ptune.research.comparison import Comparison
from ptune.research.groups import Group
from ptune.research.statistics import together
from ptune.research.summary import keys
from ptune.research.tables import Cell, Table
from ptune.research.verdicts import INTERVALS, interval_cells, p_cell, points


def over_tasks(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> Table | None:
    """A row a configuration: mean gap to the reference, average rank, wins; None for fewer than two tasks."""
    tasks = list(dict.fromkeys(group.task for group in groups if group.runs))
    configurations = list(dict.fromkeys(group.configuration for group in groups if group.runs))
    values = {(group.task, group.configuration): _value(group) for group in groups if group.runs}
    complete = [each for each in configurations if all((task, each) in values for task in tasks)]
    if len(tasks) < 2:
        return None
    ranks: dict[tuple, list[float]] = {each: [] for each in complete}
    for task in tasks:
        order = rankdata([-values[task, each] for each in complete]) if complete else []
        for each, rank in zip(complete, order, strict=True):
            ranks[each].append(float(rank))
    best = {task: max(value for (of, _), value in values.items() if of == task) for task in tasks}
    rows, names = [], list(groups[0].values)
    for each in configurations:
        (first, *_) = (group for group in groups if group.configuration == each)
        own = [task for task in tasks if (task, each) in values]
        wins = sum(values[task, each] == best[task] for task in own)
        rank = Cell(f"{mean(ranks[each]):.2f}", mean(ranks[each])) if each in ranks else Cell()
        counts = [Cell(f"{len(own)} of {len(tasks)}", float(len(own))), rank, Cell(str(wins), float(wins))]
        about = [cell for name, cell in zip(names, keys(first), strict=True) if name not in first.of_task]
        rows.append((*about, *counts, *_gap(each, values, comparisons)))
    own_names = [name for name in names if name not in groups[0].of_task]
    columns = [*own_names, "tasks", "average rank", "wins"]
    notes = [
        "By the metric that chose, on the last split of each task. Ranks are among the rows that have every task, wins "
        "are tasks where no other row is better."
    ]
    if comparisons:
        columns += ["mean gap", "from", "to", "p"]
        notes += [
            f"The mean gap is to {comparisons[0].reference.name}, in points, over the tasks that both have, with its "
            f"{INTERVALS} for these very tasks; without predictions of all of them there is no interval."
        ]
    return Table("tasks", "Over tasks", tuple(columns), len(own_names), tuple(rows), tuple(notes))


def _gap(each: tuple, values: Mapping[tuple, float], comparisons: Sequence[Comparison]) -> list[Cell]:
    """Mean difference from the reference, the ends of its interval and p."""
    own = [found for found in comparisons if found.group.configuration == each]
    if not own:
        return [Cell()] * 4 if comparisons else []
    tested = [found.difference for found in own if found.difference]
    if len(tested) == len(own):
        found = together(tested)
        return [*interval_cells(found), p_cell(found.p)]
    gaps = [values[found.group.task, each] - _value(found.reference) for found in own]
    return [points(mean(gaps)), Cell(), Cell(), Cell()]


def _value(group: Group) -> float:
    """The mean over seeds of the metric that chose, on the last split."""
    return mean(run.metric(run.splits[-1], group.monitor) or 0.0 for run in group.runs)
