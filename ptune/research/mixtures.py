"""What the runs behind one mean, or of one task, do not have in common: it is said, not silently averaged."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ptune.research.groups import Group, differing, shown
from ptune.research.records import Record

OF_A_RUN: Mapping[str, Callable[[Record], Any]] = {
    "data": lambda run: run.result.get("data_fingerprint"),
    "numbers of rows": lambda run: run.result.get("rows"),
    "weights of the backbone": lambda run: run.result.get("fingerprint"),
    "devices": lambda run: run.result.get("device"),
    "precisions": lambda run: run.result.get("precision"),
    "metrics that chose": lambda run: run.result.get("monitor"),
}
"""What the runs of one row should have in common."""
LENGTH = 60
"""Letters of a value that a note shows."""


def mixtures(groups: Sequence[Group]) -> list[str]:
    """A sentence for each thing that differs among the runs of a row, or among the rows of a task."""
    notes = [note for group in groups for note in _of_group(group)]
    for task in dict.fromkeys(group.task for group in groups):
        rows = [group.runs for group in groups if group.task == task]
        for name in ("numbers of rows", "devices", "metrics that chose"):
            values = _values(OF_A_RUN[name], [run for runs in rows for run in runs])
            if len(values) > 1 and all(len(_values(OF_A_RUN[name], runs)) < 2 for runs in rows):
                notes.append(f"{task}: rows of the table differ in {name}: {_listed(values)}.")
    return notes


def _of_group(group: Group) -> Iterable[str]:
    start = f"{group.task}, {group.name}: the mean is over runs"
    for name in differing(group.runs):
        values = dict.fromkeys(shown(run.options.get(name)) for run in group.runs)
        yield f"{start} that differ in {name}: {_listed(values)}."
    for name, of in OF_A_RUN.items():
        values = _values(of, group.runs)
        if len(values) > 1:
            yield f"{start} of different {name}: {_listed(values)}."
    twice = [str(seed) for seed, count in Counter(run.seed for run in group.runs).items() if count > 1]
    if twice:
        yield f"{start} of which several have seed {', '.join(twice)}."


def _values(of: Callable[[Record], Any], runs: Sequence[Record]) -> list[str]:
    """What runs say, without repetitions; those that say nothing do not count."""
    found = [value if isinstance(value, str) else json.dumps(value) for run in runs if (value := of(run)) is not None]
    return list(dict.fromkeys(found))


def _listed(values: Iterable[str]) -> str:
    return ", ".join(value if len(value) <= LENGTH else f"{value[: LENGTH - 3]}..." for value in values)
