"""A grid's file: axes of values, whose combinations are cells. A cell is one command line of `ptune fit`."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, final

import yaml

from ptune.errors import InputError, nearest
from ptune.run import catalog, configs
from ptune.run.arguments import OWN, prepare
from ptune.tasks import all_tasks

KEYS = ("runs", "options", "axes", "exclude")
SHORT = {
    "method": "model",
    "task": "data.task",
    "backbone": "model.backbone",
    "seed": "seed_everything",
    "config": "config",
}
"""What the short names of axes stand for; any other axis is an option, or a name whose values give options."""


@final
@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    values: dict[str, str]
    """The name of its value on each axis."""
    words: tuple[str, ...] = field(repr=False)
    """The words of its command line, but for the run directory."""
    run_dir: Path
    digest: str
    """Of the words and of the files that they name with `--config`."""

    @property
    def name(self) -> str:
        """Its values in the order of the axes."""
        return " ".join(self.values.values())

    @property
    def command(self) -> str:
        """The command line that is the same run."""
        quoted = " ".join(word if re.fullmatch(r"[\w./:=+-]+", word) else f"'{word}'" for word in self.words)
        return f"ptune fit {quoted} --run_dir {self.run_dir}"


def read(file: Path, place: Path | None = None) -> list[Cell]:
    """The cells of a grid's file, in the order of its axes, the last of which varies fastest.

        options:                       # of all cells
          model.backbone: roberta-base
        axes:
          method:
            FineTuning: {lr: 2e-5}     # options that come with a value; without a dot they are of the method
            PTuningV2: {config: experiments/p_tuning_v2/rte.yaml}
          task: [rte, sst2]
          seed: [1, 2, 3]
        exclude:
          - {method: FineTuning, task: sst2}
        runs: runs/mine                # where the run directories lie; runs/<name of the file> by default

    A path in it is read from the working directory, as on the command line.

    Args:
        file: the YAML file.
        place: directory of the runs, in place of the file's.

    Raises:
        InputError: it is no such file, or the options of a cell have a mistake; the sentence names the cell.
    """
    grid = configs.read(str(file))
    for key in grid:
        if key not in KEYS:
            raise InputError(f"{file}: {key!r} is no part of a grid, {nearest(str(key), KEYS)}")
    axes = {str(name): _axis(file, str(name), values) for name, values in _mapping(file, grid, "axes").items()}
    if not axes:
        raise InputError(f"{file}: axes must name at least one axis and its values, e.g. seed: [1, 2, 3].")
    common = _mapping(file, grid, "options")
    excluded = [_exclusion(file, axes, each) for each in grid.get("exclude") or []]
    root = place or Path(grid.get("runs") or Path("runs", file.stem))
    cells = []
    for names in product(*(values for values in axes.values())):
        values = dict(zip(axes, names, strict=True))
        if not any(all(values[axis] in wanted for axis, wanted in each.items()) for each in excluded):
            options = [common, *({SHORT.get(axis, axis): name} | axes[axis][name] for axis, name in values.items())]
            cells.append(_cell(file, values, options, root))
    if not cells:
        raise InputError(f"{file}: exclude leaves no cell; remove one of its lines.")
    return cells


def _mapping(file: Path, grid: dict, key: str) -> dict:
    value = grid.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key} must be a mapping of names to values, not {type(value).__name__}.")
    return value


def _axis(file: Path, axis: str, values: Any) -> dict[str, dict[str, Any]]:
    """The values of an axis by name, with the options that come with each."""
    if isinstance(values, list):
        values = {_text(value): None for value in values}
    if not isinstance(values, dict) or not values:
        raise InputError(f"{file}: axis {axis!r} must have a list of values, or a mapping of values to options.")
    found = {}
    for name, options in values.items():
        if options is not None and not isinstance(options, dict):
            raise InputError(f"{file}: axis {axis!r}: the options of {name!r} must be a mapping, e.g. {{lr: 1e-3}}.")
        found[_text(name)] = {str(key): value for key, value in (options or {}).items()}
    return found


def _exclusion(file: Path, axes: dict[str, dict], each: Any) -> dict[str, set[str]]:
    """An entry of `exclude`: for each axis in it, the values that it is about."""
    if not isinstance(each, dict):
        raise InputError(f"{file}: exclude must list mappings of axes to values, e.g. {{method: FineTuning}}.")
    found = {}
    for axis, values in each.items():
        if axis not in axes:
            raise InputError(f"{file}: exclude names {axis!r}, which is no axis, {nearest(str(axis), axes)}")
        found[axis] = {_text(value) for value in (values if isinstance(values, list) else [values])}
        for value in found[axis] - axes[axis].keys():
            raise InputError(f"{file}: exclude: {value!r} is no {axis} of the grid, {nearest(value, axes[axis])}")
    return found


def _cell(file: Path, values: dict[str, str], options: list[dict[str, Any]], root: Path) -> Cell:
    """The cell whose options stand in the order of the axes: of two that are equal, the later one holds."""
    chosen: dict[str, Any] = {}
    configurations: list[str] = []
    for each in options:
        for name, value in each.items():
            if name == "config":
                configurations += map(str, value if isinstance(value, list) else [value])
            elif name not in values or name in SHORT or "." in name:  # an axis of the user's own is but a name
                chosen[name if "." in name or name in OWN else f"model.{name}"] = value
    task = all_tasks().get(str(chosen.get("data.task")))
    if "data" not in chosen and task is not None:
        chosen["data"] = catalog.reader(task.format)
    first = [name for name in ("model", "data") if name in chosen]  # options of a class stand behind it
    words = [word for path in configurations for word in ("--config", path)]
    for name in [*first, *(name for name in chosen if name not in first)]:
        words += [f"--{name}", _text(chosen[name])]
    place = root.joinpath(*(re.sub(r"[^\w.=-]+", "-", value).strip("-.") for value in _parts(values)))
    try:
        prepare(words)
    except InputError as error:
        raise InputError(f"{file}, cell {' '.join(values.values())}: {error}") from error
    return Cell(values, tuple(words), place, _digest(words, configurations))


def _parts(values: dict[str, str]) -> Iterator[str]:
    """The parts of a run directory below the grid's."""
    for axis, value in values.items():
        yield value if axis in ("method", "task", "backbone") else f"{axis.rpartition('.')[2]}={value}"


def _digest(words: list[str], configurations: list[str]) -> str:
    texts = [Path(path).read_text(encoding="utf-8") for path in configurations]
    return hashlib.sha256(json.dumps([words, texts]).encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
