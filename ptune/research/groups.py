"""Groups of runs that differ in nothing but the seed: the rows of a report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

from ptune.errors import InputError, nearest
from ptune.research.records import Record

USUAL = ("task", "method")
NOT_CHOICES = (*USUAL, "seed", "run_dir")
"""Options that every row names, that it is averaged over, or that say where the run lies."""
ORDER = ("ManualPrompt", "LinearProbe", "PromptTuning", "PTuning", "PTuningV2", "BitFit", "LoRA", "FineTuning")
"""The lecture's order of methods, from what trains nothing to what trains everything; others stand before the last."""


@final
@dataclass(frozen=True)
class Group:
    """The runs of one row: those that are equal in its columns."""

    values: Mapping[str, str]
    """What they have in common, by column; empty for an option that tells no runs of this method apart."""
    runs: tuple[Record, ...] = ()
    """The finished ones, by seed."""
    open: tuple[Record, ...] = ()
    """Those that failed, were pruned, or are not finished."""
    missing: tuple[int, ...] = ()
    """Seeds that other rows have in a grid that this one has cells in, and no run of this one."""
    of_task: frozenset[str] = frozenset({"task"})
    """The columns that belong to the task, such as the place of its data."""

    @property
    def task(self) -> str:
        """The task that its runs are measured on."""
        return self.values["task"]

    @property
    def configuration(self) -> tuple[str, ...]:
        """Its values but for those of the task: what is compared over tasks."""
        return tuple(value for column, value in self.values.items() if column not in self.of_task)

    @property
    def name(self) -> str:
        """Its values but for the task's in one line, as `PTuningV2, length 20`; without options that are not set."""
        options = ((column, value) for column, value in self.values.items() if column not in USUAL)
        others = (f"{column} {value}" for column, value in options if value not in ("", "none"))
        return ", ".join([*filter(None, [self.values.get("method")]), *others])

    @property
    def monitor(self) -> str:
        """The metric that chose its checkpoints; empty without a finished run."""
        return self.runs[0].result["monitor"] if self.runs else ""


def grouped(records: Sequence[Record], by: Sequence[str] = ()) -> tuple[Group, ...]:
    """The groups, by task and in the lecture's order of methods.

    Only the seeds that other rows of the same grid have are missing from one: nothing says of any other run that it was
    to be made.

    Args:
        records: the runs.
        by: the columns of a group. `task` is always the first one, since metrics of tasks are not averaged. By default
            they are task, method and each option in which finished runs of one task and method differ; a method whose
            own runs are equal in such an option has no value in its column.

    Raises:
        InputError: a column of `by` is no option of any run.
    """
    known = {name for record in records for name in record.options} - {"seed"}
    for name in by:
        if name not in known:
            raise InputError(f"--by {name}: no option of these runs; {nearest(name, known)}")
    apart = {} if by else _apart(records)
    names = tuple(dict.fromkeys(("task", *by) if by else (*USUAL, *chain.from_iterable(apart.values()))))

    def key(record: Record) -> tuple[str, ...]:
        own = names if by else (*USUAL, *apart.get(record.method, ()))
        return tuple(shown(record.options.get(name)) if name in own else "" for name in names)

    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.state == "done":
            found.setdefault(key(record), []).append(record)
    for record in records:
        if record.state != "done":
            told = [name in record.options for name in names]
            found.setdefault(_fitting(key(record), told, list(found)), []).append(record)
    fixed = _of_task(names, list(found))
    seeds: dict[str, set[int]] = {}
    for record in records:
        if record.grid and record.seed is not None:
            seeds.setdefault(record.grid, set()).add(record.seed)
    return tuple(
        _group(dict(zip(names, each, strict=True)), found[each], seeds, fixed)
        for each in sorted(found, key=lambda each: [_place(*pair) for pair in zip(names, each, strict=True)])
    )


def differing(records: Sequence[Record]) -> list[str]:
    """The options in which runs differ, in their order, but for the seed; a path to the same data is no difference."""
    data = {json.dumps(record.result.get("data_fingerprint")) for record in records}
    same = (*NOT_CHOICES, "path") if len(data) == 1 and data != {"null"} else NOT_CHOICES
    seen: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.options.items():
            if name not in same:
                seen.setdefault(name, set()).add(shown(value))
    return [name for name, values in seen.items() if len(values) > 1]


def _apart(records: Sequence[Record]) -> dict[str, list[str]]:
    """By method, the options in which its finished runs of one task differ."""
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.state == "done":
            cells.setdefault((record.method, record.task), []).append(record)
    found: dict[str, dict[str, None]] = {}
    for (method, _), runs in cells.items():
        found.setdefault(method, {}).update(dict.fromkeys(differing(runs)))
    return {method: list(names) for method, names in found.items()}


def _of_task(names: Sequence[str], keys: list[tuple[str, ...]]) -> frozenset[str]:
    """The columns that belong to the task: its own, and options with one value for each task."""
    tasks = {key[0] for key in keys}
    pairs = {name: {(key[0], key[i]) for key in keys} for i, name in enumerate(names) if name not in USUAL}
    return frozenset(
        {"task"}
        | {name for name, found in pairs.items() if len(found) == len(tasks) == len({value for _, value in found})}
    )


def _group(values: dict[str, str], runs: list[Record], seeds: dict[str, set[int]], of_task: frozenset[str]) -> Group:
    """The group of these runs; `seeds` are those of each grid."""
    runs = sorted(runs, key=lambda run: (run.seed is None, run.seed or 0, run.place))
    done = tuple(run for run in runs if run.state == "done")
    left = tuple(run for run in runs if run.state != "done")
    # Nothing depends on the seed of what is not trained.
    drawn = not done or any(run.cost("steps") != 0 for run in done)
    wanted = {seed for run in runs for seed in seeds.get(run.grid, ())} if drawn else set()
    return Group(values, done, left, tuple(sorted(wanted - {run.seed for run in runs})), of_task)


def _fitting(own: tuple[str, ...], told: list[bool], keys: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The key of a run that is not finished and may not have said all its options: of the one group that it fits."""
    fitting = [key for key in keys if all(a == b for a, b, known in zip(key, own, told, strict=True) if known)]
    return fitting[0] if len(fitting) == 1 else own


def _place(column: str, value: str) -> tuple[float, str]:
    """Where a row stands: methods in the lecture's order, numbers by size, other values by name."""
    if column == "method":
        return (ORDER.index(value) if value in ORDER else len(ORDER) - 1.5), value
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def shown(value: Any) -> str:
    """An option's value as a table shows it: `none` where it is null or empty, words of a list with commas."""
    if value in (None, "", []):
        return "none"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)
