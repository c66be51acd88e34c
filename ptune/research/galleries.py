"""Which pictures a report shows of its groups of runs, and the numbers that go into them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import mean

from ptune.errors import InputError
from ptune.research.groups import USUAL, Group
from ptune.research.page import Gallery
from ptune.research.pictures.costs import Point, costs
from ptune.research.pictures.curves import Curve, curves
from ptune.research.pictures.drawing import Picture, file
from ptune.research.prefixes import prefix_norms
from ptune.research.records import Record, number

MOST = 20
"""Greatest number of rows in a picture; a search has hundreds, of which the best are of interest."""
COSTS = {
    "trained_parameters": "trained parameters",
    "seconds_to_best": "seconds of training to the best checkpoint",
    "peak_memory_mib": "peak memory, MiB",
}
"""The costs that quality is shown against, by their keys in a result."""


def galleries(groups: Sequence[Group]) -> list[Gallery]:
    """The sections of pictures that these groups have numbers for; a configuration looks alike in all of them."""
    groups = [group for group in groups if group.runs]
    sections = [
        Gallery(
            "Quality against cost",
            "Quality is that of the last split, on which methods are compared. A marker is the mean over seeds, its "
            "bar reaches from the lowest to the highest seed. Filled markers and the dotted line are the Pareto front: "
            "no other row is as good for the same cost or less. The mean over tasks is that of the rows that have all.",
            tuple(quality_against_cost(groups)),
        ),
        Gallery(
            "Learning curves",
            "Lines are means over seeds, drawn where every run of a row has been validated; bands reach from the "
            "lowest to the highest seed.",
            tuple(learning(groups)),
        ),
        Gallery(
            "Options",
            "Quality is that of the split that chooses checkpoints, for each value of an option, all else equal. Lines "
            "are means over seeds; the values stand at equal distances, and bands reach from the lowest to the highest "
            "seed.",
            tuple(options(groups)),
        ),
        Gallery(
            "Norms of trained prefixes",
            "Norms of the keys and values of each prompted layer, over all heads, as a mean over the prefix's vectors, "
            "where all layers are of one size; bands reach from the lowest to the highest seed.",
            tuple(norms(groups)),
        ),
    ]
    return [section for section in sections if section.pictures]


def picture(groups: Sequence[Group]) -> str:
    """A file of quality against trained parameters: one picture a task, after that of their mean if there are several.

    Raises:
        InputError: no task has two rows.
    """
    pictures = list(quality_against_cost([group for group in groups if group.runs], ["trained_parameters"]))
    if not pictures:
        raise InputError(
            "An .svg compares rows by their trained parameters, but no task has two finished rows; use .md."
        )
    return file(pictures)


def quality_against_cost(groups: Sequence[Group], keys: Iterable[str] = COSTS) -> Iterator[Picture]:
    """For each task with two rows or more, its metric against each of these costs that two of them know.

    The metric is that of the last split, on which methods are compared. Where there are several tasks, their mean comes
    first, a value a seed.
    """
    looks, keys = _looks(groups), tuple(keys)
    tasks = _by_task(groups, -1)
    if len(tasks) > 1:
        for key in keys:
            points = [point for name in looks if (point := _over_tasks(name, [*tasks.values()], key, looks[name]))]
            if len(points) > 1:
                yield costs(f"mean over {len(tasks)} tasks", "mean of their metrics, %", COSTS[key], points)
    for title, rows in _best(groups, -1).items():
        for key in keys:
            points = [
                Point(row.name, mean(spent), quality(row, -1), looks[row.name])
                for row in rows
                if (spent := [value for run in row.runs if (value := run.cost(key)) is not None])
            ]
            if len(points) > 1:
                yield costs(title, _quantity(rows[0], -1), COSTS[key], points)


def _over_tasks(name: str, tasks: Sequence[Sequence[Group]], key: str, look: int) -> Point | None:
    """The mean over tasks of a configuration that has all of them and their costs."""
    rows = [row for task in tasks for row in task if row.name == name]
    spent = [value for row in rows for run in row.runs if (value := run.cost(key)) is not None]
    if len(rows) < len(tasks) or not spent:
        return None
    seeds = zip(*(quality(row, -1) for row in rows), strict=False)  # of the number of seeds that every task has
    return Point(name, mean(spent), tuple(map(mean, seeds)), look)


def learning(groups: Sequence[Group]) -> Iterator[Picture]:
    """For each task, its metric by epoch, or by step where an epoch was validated more than once."""
    looks = _looks(groups)
    for title, rows in _best(groups, 0).items():
        epochs = [[entry.get("epoch") for entry in run.history] for row in rows for run in row.runs]
        over = "step" if any(len(set(each)) < len(each) for each in epochs) else "epoch"
        found = [Curve(row.name, points, looks[row.name]) for row in rows if (points := _history(row, over))]
        if found:
            yield curves(title, _quantity(rows[0], 0), over, found)


def _history(row: Group, over: str) -> dict[float, tuple[float, ...]]:
    """By epoch or step, the metric in percent of every run of a row, where all have one."""

    def course(run: Record) -> dict[float | None, float | None]:
        return {number(entry.get(over)): number(entry["metrics"].get(row.monitor)) for entry in run.history}

    courses = [course(run) for run in row.runs]
    found = {x: [values.get(x) for values in courses] for x in courses[0] if x is not None}
    return {x: tuple(100 * v for v in values if v is not None) for x, values in found.items() if None not in values}


def options(groups: Sequence[Group]) -> Iterator[Picture]:
    """For each task and option of which a method has two values or more, the metric against the option.

    The metric is that of the split that chooses checkpoints: an option is not chosen on what methods are compared on.
    """
    for task, rows in _by_task(groups, 0).items():
        for option in [name for name in rows[0].values if name not in USUAL]:
            lines: dict[str, list[Group]] = {}
            for row in rows:
                if row.values[option]:
                    lines.setdefault(_without(row, option), []).append(row)
            lines = {name: line for name, line in lines.items() if len(line) > 1}
            names = list(dict.fromkeys(row.values[option] for line in lines.values() for row in line))
            found = [
                Curve(name, {names.index(row.values[option]): quality(row, 0) for row in line}, i)
                for i, (name, line) in enumerate(lines.items())
            ]
            found = sorted(found, key=lambda curve: -max(map(mean, curve.points.values())))[:MOST]
            if found:
                yield curves(task, _quantity(rows[0], 0), option, found, names)


def _without(row: Group, option: str) -> str:
    """The name of a row without one of its options."""
    return Group({name: value for name, value in row.values.items() if name != option}).name


def norms(groups: Sequence[Group]) -> Iterator[Picture]:
    """For each row with prefixes, the norms of keys and values by layer."""
    for row in chain.from_iterable(_best(groups, 0).values()):
        places = [Path(run.place, "prompts.safetensors") for run in row.runs]
        found = [layers for place in places if place.is_file() and (layers := prefix_norms(place))]
        if found:
            shared = [layer for layer in found[0] if all(layer in layers for layers in found)]
            kinds = [
                Curve(kind, {layer: tuple(layers[layer][i] for layers in found) for layer in shared}, i)
                for i, kind in enumerate(("keys", "values"))
            ]
            yield curves(f"{row.task}: {row.name}", "mean norm of a vector", "layer", kinds)


def quality(row: Group, split: int) -> tuple[float, ...]:
    """The metric that chose the checkpoints, of every run in percent, on its first (0) or last (-1) split."""
    values = (run.metric(run.splits[split], row.monitor) for run in row.runs)
    return tuple(100 * value for value in values if value is not None)


def _quantity(row: Group, split: int) -> str:
    return f"{row.monitor} on {row.runs[0].splits[split]}, %"


def _by_task(groups: Sequence[Group], split: int) -> dict[str, list[Group]]:
    """The rows of each task that have the metric."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        if quality(group, split):
            found.setdefault(group.task, []).append(group)
    return found


def _best(groups: Sequence[Group], split: int) -> dict[str, list[Group]]:
    """The rows of each task by the title of its pictures, at most the MOST best ones, in their order."""
    found = {}
    for task, rows in _by_task(groups, split).items():
        best = sorted(rows, key=lambda row: -mean(quality(row, split)))[:MOST]
        title = task if len(best) == len(rows) else f"{task}, the best {MOST} of {len(rows)} rows"
        found[title] = [row for row in rows if row in best]
    return found


def _looks(groups: Sequence[Group]) -> dict[str, int]:
    """Numbers of colour, dashes and marker for each configuration."""
    return {name: i for i, name in enumerate(dict.fromkeys(group.name for group in groups))}
