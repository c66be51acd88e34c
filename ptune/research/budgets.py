"""Views of the same runs at equal steps and at equal time: what each had reached by then, from its history."""

from collections.abc import Sequence

from ptune.research.groups import Group
from ptune.research.records import Record, number
from ptune.research.summary import row, seeds, table
from ptune.research.tables import Cell, Table, amount, counted, measured, word

AFTER = (
    "A run that was made for more training has not ended its schedule of learning rates by then, which is to its "
    "disadvantage. A method that trains nothing has its only value."
)


def at_equal(groups: Sequence[Group], budget: str, title: str) -> Table | None:
    """The best validation of each run up to the least `budget` of all runs of its task; None without histories.

    Args:
        groups: the groups.
        budget: what is equal, `steps` or `seconds`, a key of a result.
        title: title of the table.
    """
    least: dict[str, float] = {}
    for group in groups:
        for run in group.runs:
            spent = run.cost(budget)
            if run.history and spent:
                least[group.task] = min(spent, least.get(group.task, spent))
    if not least:
        return None
    rows = []
    for group in groups:
        limit = least.get(group.task)
        found = [] if limit is None else [reached(run, budget, limit) for run in group.runs]
        known = [value for value in found if value is not None]
        size = Cell() if limit is None else (counted if budget == "steps" else amount)([limit])
        rows.append(row(group, [word(group.monitor), measured(known, 100), size, seeds(group)]))
    notes = [
        f"The best validation of each run up to the {budget} of the shortest run of its task; percentages, mean ± "
        "sample standard deviation over seeds.",
        AFTER,
    ]
    without = [
        group for group in groups if group.runs and not all(run.history or not run.cost("steps") for run in group.runs)
    ]
    if without:
        notes.append(f"Without a history: {', '.join(f'{group.task} {group.name}' for group in without)}.")
    return table(budget, title, groups, ["metric", "best until then", budget, "seeds"], rows, notes)


def reached(run: Record, budget: str, limit: float) -> float | None:
    """The best validation of a run within a limit; None where it has none so early, or no history."""
    monitor = run.result["monitor"]
    if not run.cost("steps"):
        return run.metric(run.splits[0], monitor)
    key = {"steps": "step", "seconds": "seconds"}[budget]
    found = [number(entry["metrics"].get(monitor)) for entry in run.history if (number(entry.get(key)) or 0.0) <= limit]
    return max((value for value in found if value is not None), default=None)
