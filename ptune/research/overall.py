"""The tables of a report over tasks: scores side by side, how far each configuration is from the reference, ranks."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from scipy.stats import rankdata

from ptune.research.comparison import Comparison
from ptune.research.groups import Group
from ptune.research.statistics import together
from ptune.research.summary import keys, share
from ptune.research.tables import Cell, Table, measured
from ptune.research.verdicts import INTERVALS, interval_cells, p_cell, points


def over_tasks(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> Table | None:
    """A row a configuration: mean gap to the reference, average rank, wins; None for fewer than two tasks."""
    tasks, found = _tasks(groups), dict(_by_task(groups))
    if len(tasks) < 2:
        return None
    values = {(task, each): _value(group) for each, own in found.items() for task, group in own.items()}
    complete = [each for each, own in found.items() if len(own) == len(tasks)]
    ranks: dict[tuple, list[float]] = {each: [] for each in complete}
    for task in tasks:
        order = rankdata([-values[task, each] for each in complete]) if complete else []
        for each, rank in zip(complete, order, strict=True):
            ranks[each].append(float(rank))
    best = {task: max(value for (of, _), value in values.items() if of == task) for task in tasks}
    rows = []
    for each, own in found.items():
        wins = sum(values[task, each] == best[task] for task in own)
        rank = Cell(f"{mean(ranks[each]):.2f}", mean(ranks[each])) if each in ranks else Cell()
        counts = [Cell(f"{len(own)} of {len(tasks)}", float(len(own))), rank, Cell(str(wins), float(wins))]
        rows.append((*_about(own), *counts, *_gap(each, values, comparisons)))
    names = _names(groups)
    columns = [*names, "tasks", "average rank", "wins"]
    notes = [
        "By the metric that chose, on the last split of each task. Ranks are among the rows that have every task, wins "
        "are tasks where no other row is better."
    ]
    if comparisons:
        columns += ["mean gap", "from", "to", "p"]
        notes += [
            f"The mean gap is to {comparisons[0].reference.name}, in points, over the tasks that both have, with its "
            f"{INTERVALS} for these very tasks; without predictions of all of them there is no interval. P is not "
            "corrected for the number of rows."
        ]
    return Table("tasks", "Over tasks", tuple(columns), len(names), tuple(rows), tuple(notes))


def side_by_side(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> Table | None:
    """A row a configuration, a column a task; None for fewer than two tasks."""
    tasks, found = _tasks(groups), dict(_by_task(groups))
    if len(tasks) < 2:
        return None
    values = {(task, each): _value(group) for each, own in found.items() for task, group in own.items()}
    monitors = {task: next(own[task].monitor for own in found.values() if task in own) for task in tasks}
    rows = []
    for each, own in found.items():
        shares = [x for group in own.values() for run in group.runs if (x := share(run)) is not None]
        scores = [measured(_values(own[task]), 100) if task in own else Cell() for task in tasks]
        whole = len(own) == len(tasks)
        over = mean(values[task, each] for task in tasks) if whole else None
        cells = [
            Cell(f"{mean(shares):.3g}", mean(shares)) if shares else Cell(),
            *scores,
            Cell() if over is None else Cell(f"{100 * over:.1f}", over),
        ]
        if comparisons:
            gap, low, high, _ = _gap(each, values, comparisons)
            cells.append(gap if low.value is None else Cell(f"{gap.text} ({low.text} to {high.text})", gap.value))
        rows.append((*_about(own), *cells))
    names = _names(groups)
    columns = [*names, "trained, %", *(f"{task}, {monitors[task]}" for task in tasks), "mean"]
    notes = ["Percentages on the last split of each task, mean ± sample standard deviation over seeds."]
    if comparisons:
        columns.append("mean gap")
        notes.append(f"The mean gap is to {comparisons[0].reference.name}, in points, with its {INTERVALS}, as below.")
    return Table("scores", "Tasks side by side", tuple(columns), len(names), tuple(rows), tuple(notes))


def _tasks(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.task for group in groups if group.runs))


def _by_task(groups: Sequence[Group]) -> Iterator[tuple[tuple[str, ...], dict[str, Group]]]:
    """The configurations with a finished run, and their groups by task."""
    finished = [group for group in groups if group.runs]
    for each in dict.fromkeys(group.configuration for group in finished):
        yield each, {group.task: group for group in finished if group.configuration == each}


def _names(groups: Sequence[Group]) -> list[str]:
    """The columns that say what a configuration is."""
    return [name for name in groups[0].values if name not in groups[0].of_task]


def _about(own: Mapping[str, Group]) -> list[Cell]:
    """The cells of those columns."""
    (first, *_) = own.values()
    return [cell for name, cell in zip(first.values, keys(first), strict=True) if name not in first.of_task]


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
    return mean(_values(group))


def _values(group: Group) -> list[float]:
    return [run.metric(run.splits[-1], group.monitor) or 0.0 for run in group.runs]
