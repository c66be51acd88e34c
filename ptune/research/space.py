"""A space's file: dimensions to search over. Each point of it is the options of a trial."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, final

from ptune.errors import InputError, nearest
from ptune.research.axes import mapping
from ptune.research.cells import Cell, cell, gives, option
from ptune.research.dimensions import Dimension, dimension
from ptune.run import configs
from ptune.tasks import all_tasks

KEYS = ("options", "space", "seeds", "metric", "direction", "sampler", "sampler_seed", "pruner", "runs")
DIRECTIONS, SAMPLERS, PRUNERS = ("maximize", "minimize"), ("tpe", "random", "grid"), ("none", "median", "asha")

Point = dict[str, Any]
"""The values of the dimensions that are there: numbers, and texts of listed values."""


@final
@dataclass(frozen=True)
class Space:
    """What is searched over, and how; `read` makes one."""

    options: dict[str, Any]
    """Options of all trials."""
    dimensions: tuple[Dimension, ...]
    """Each stands behind those that it depends on."""
    seeds: tuple[int, ...]
    """Seeds whose runs a trial averages; () for a single run with the seed of the options."""
    metric: str | None
    """What is compared, on the split that chooses the checkpoint; None for the metric that the task monitors."""
    direction: str
    sampler: str
    sampler_seed: int
    pruner: str
    runs: Path
    """Directory below which the trials lie."""

    def point(self, choose: Callable[[Dimension], Any]) -> Point:
        """The point whose values are chosen one after the other, where the conditions of their dimensions hold."""
        found: Point = {}
        for each in self.dimensions:
            if _holds(each, found):
                found[each.name] = choose(each)
        return found

    def grid(self) -> list[Point]:
        """All points of a space whose dimensions all have `values`; the last dimension varies fastest."""
        found: list[Point] = [{}]
        for each in self.dimensions:
            values = [{each.name: value} for value in each.values or ()]
            found = [point | more for point in found for more in (values if _holds(each, point) else [{}])]
        return found

    @property
    def first_seed(self) -> str | None:
        """The seed of a trial's first run; None where that is no matter of the space."""
        return str(self.seeds[0]) if self.seeds else None

    def place(self, number: int) -> Path:
        """Directory of a trial."""
        return self.runs / f"trial-{number:04d}"

    def cells(self, number: int, point: Point) -> list[Cell]:
        """The runs of a trial.

        Raises:
            InputError: an option has a mistake, or two dimensions give the same one.
        """
        there = {each.name: each.options(point[each.name]) for each in self.dimensions if each.name in point}
        for name, other in permutations(there, 2):
            if gives(name, there[other]):
                raise InputError(f"{option(name)} is given by dimension {name!r} and by {other!r}; remove one.")
        chosen = [self.options, *there.values()]
        place, names = self.place(number), {"trial": str(number)}
        if not self.seeds:
            return [cell(names, chosen, place)]
        return [
            cell(names | {"seed": str(seed)}, [*chosen, {"seed": seed}], place / f"seed={seed}") for seed in self.seeds
        ]

    @property
    def digest(self) -> str:
        """Of what decides a trial's value. How points are drawn and trials pruned is no part of it, and may change."""
        parts = (sorted(self.options.items(), key=str), self.dimensions, self.seeds, self.metric, self.direction)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def shown(point: Point) -> str:
    """A point in words, with four digits of a number that has more."""
    return " ".join(f"{name}={f'{value:.4g}' if isinstance(value, float) else value}" for name, value in point.items())


def _holds(each: Dimension, point: Point) -> bool:
    return all(point.get(name) in values for name, values in each.when.items())


def read(file: Path, place: Path | None = None, options: dict[str, str] | None = None) -> Space:
    """The space of a file.

        options:                        # of all trials, as in a grid
          task: rte
          data.holdout: 0.1             # trials are compared on a part of the training split; validation stays unseen
        space:
          method:                       # values, with options that come with one
            FineTuning: {weight_decay: 0.01}
            PTuningV2:
          model.lr: {low: 1.0e-5, high: 1.0e-1, log: true}
          model.length: {low: 4, high: 64, step: 4, when: {method: PTuningV2}}      # for that method alone
          model.layers: {values: [all, 'last:4'], when: {method: PTuningV2}}
          data.batch_size: [16, 32]
        seeds: [1, 2, 3]                # a trial is the mean of these; if left out, one run
        metric: accuracy                # if left out, the metric that the task monitors
        direction: maximize             # or minimize, which is what `loss` has by default
        sampler: tpe                    # or random, or grid: every point of lists and steps
        sampler_seed: 0                 # the default
        pruner: none                    # or median, or asha, which stop runs that fall behind
        runs: runs/mine                 # where the trials lie; runs/<name of the file> by default

    A range has whole numbers where its option does, and with `int: true`. A path is read from the working directory.

    Args:
        file: the YAML file.
        place: directory of the trials, in place of the file's.
        options: further options of all trials, in place of the file's.

    Raises:
        InputError: it is no such file, or has a mistake; each listed value and each end of a range is tried.
    """
    found = configs.read(str(file), "", "experiments/spaces/p_tuning_v2.yaml")
    for key in found:
        if key not in KEYS:
            raise InputError(f"{file}: {key!r} is no part of a space, {nearest(str(key), KEYS)}")
    dimensions: dict[str, Dimension] = {}
    for name, value in mapping(file, found, "space").items():
        dimensions[str(name)] = dimension(f"{file}: dimension {str(name)!r}", str(name), value, dimensions)
    if not dimensions:
        raise InputError(f"{file}: space must name at least one dimension, e.g. model.lr: {{low: 1e-4, high: 1e-1}}.")
    metric, runs = (_text(file, found, key) for key in ("metric", "runs"))
    space = Space(
        options=mapping(file, found, "options") | (options or {}),
        dimensions=tuple(dimensions.values()),
        seeds=_seeds(file, found.get("seeds")),
        metric=metric,
        direction=_one_of(file, found, "direction", DIRECTIONS, "minimize" if metric == "loss" else "maximize"),
        sampler=_one_of(file, found, "sampler", SAMPLERS, "tpe"),
        sampler_seed=_whole(file, "sampler_seed", found.get("sampler_seed", 0)),
        pruner=_one_of(file, found, "pruner", PRUNERS, "none"),
        runs=place or Path(runs or Path("runs", file.stem)).expanduser(),
    )
    try:
        _check(space)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return space


def _text(file: Path, found: dict, key: str) -> str | None:
    value = found.get(key)
    if not isinstance(value, str | None):
        raise InputError(f"{file}: {key} must be a word, not {value!r}.")
    return value


def _one_of(file: Path, found: dict, key: str, choices: tuple[str, ...], default: str) -> str:
    value = found.get(key, default)
    if value not in choices:
        raise InputError(f"{file}: {key} {value!r}: {nearest(str(value), choices)}")
    return value


def _seeds(file: Path, seeds: Any) -> tuple[int, ...]:
    if not isinstance(seeds, list | None) or seeds == []:
        raise InputError(f"{file}: seeds must be a list of whole numbers, e.g. [1, 2, 3], not {seeds!r}.")
    found = [_whole(file, "seeds", seed) for seed in seeds or ()]
    if len(set(found)) < len(found):
        raise InputError(f"{file}: seeds {found} has a seed twice; name each once.")
    return tuple(found)


def _whole(file: Path, key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**32:
        raise InputError(f"{file}: {key}: {value!r} must be a whole number from 0 to {2**32 - 1}.")
    return value


def _check(space: Space) -> None:
    """Try every listed value and both ends of each range, beside the first values of the other dimensions.

    Raises:
        InputError: an option has a mistake, or the seeds, the sampler or the metric do not go with the space.
    """
    fixed, varied = (set(map(option, names)) for names in (space.options, [each.name for each in space.dimensions]))
    if space.seeds and "seed_everything" in fixed | varied:
        raise InputError("seeds are those that a trial averages, so the seed cannot be an option, too; remove one.")
    for name in fixed & varied:
        raise InputError(f"{name} is an option of all trials and a dimension; remove one of both.")
    for each in space.dimensions:
        if space.sampler == "grid" and each.values is None:
            raise InputError(f"dimension {each.name!r}: a grid needs a list of values, or a range with a step.")
        for value in each.ends:
            point = _beside(space, each, value)
            try:
                (run, *_) = space.cells(0, point)
            except InputError as error:
                raise InputError(f"point {shown(point)}: {error}") from error
            _check_metric(space.metric, run)


def _beside(space: Space, wanted: Dimension, value: Any) -> Point:
    """A point with a value of one dimension, whose conditions hold; the other dimensions have their first values."""
    chosen = {wanted.name: value}
    for each in reversed(space.dimensions):
        if each.name in chosen:
            chosen |= {name: values[0] for name, values in each.when.items()}
    return space.point(lambda each: chosen.get(each.name, each.ends[0]))


def _check_metric(metric: str | None, run: Cell) -> None:
    pairs = dict(zip(run.words[::2], run.words[1::2], strict=True))
    task = all_tasks().get(pairs.get("--data.task", ""))
    if metric and task and task.metrics and metric not in (*task.metrics, "loss"):
        raise InputError(f"metric {metric!r} is none of task {task.name!r}; {nearest(metric, (*task.metrics, 'loss'))}")
