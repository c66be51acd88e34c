"""A grid's file: axes of values, whose combinations are cells."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

from ptune.errors import InputError, nearest
from ptune.research.cells import Cell, cell, gives, guess, is_option, option, text
from ptune.run import configs

KEYS = ("runs", "options", "axes", "exclude")
LONGEST_NAME = 120
"""Bytes of a folder's name, of which file systems take 255: a template may have more."""


def read(
    file: Path,
    place: Path | None = None,
    given: dict[str, str] | None = None,
    only: Iterable[tuple[str, str]] = (),
) -> list[Cell]:
    """The cells of a grid's file, in the order of its axes, the last of which varies fastest.

        options:                       # of all cells
          model.backbone: roberta-base
        axes:
          method:
            FineTuning: {lr: 2e-5}     # options that come with a value; without a dot they are of the method
            PTuningV2: {config: experiments/p_tuning_v2/rte.yaml}
          task: [rte, sst2]
          model.weight_decay: [0, 0.1]
          size:                        # no option: a name of your own, all of whose values give options
            small: {data.shots: 16}
            large: {data.shots: 256}
          seed: [1, 2, 3]
        exclude:
          - {method: FineTuning, task: sst2}
        runs: runs/mine                # where the run directories lie; runs/<name of the file> by default

    A path in it is read from the working directory, as on the command line.

    Args:
        file: the YAML file.
        place: directory of the runs, in place of the file's.
        given: options of all cells beside the file's, which they win over.
        only: pairs of an axis and one of its values: the cells that have such a value on each axis named here.

    Raises:
        InputError: it is no such file, `only` names what the grid has not, or the options of a cell have a mistake; the
            sentence names the cell.
    """
    grid = configs.read(str(file), "", "experiments/grids/quickstart.yaml")
    for key in grid:
        if key not in KEYS:
            raise InputError(f"{file}: {key!r} is no part of a grid, {nearest(str(key), KEYS)}")
    axes = {
        str(name): choices(f"{file}: axis {str(name)!r}", str(name), values)
        for name, values in mapping(file, grid, "axes").items()
    }
    if not axes:
        raise InputError(f"{file}: axes must name at least one axis and its values, e.g. seed: [1, 2, 3].")
    _check_apart(file, axes)
    common, given = mapping(file, grid, "options"), given or {}
    for axis in axes:
        if gives(axis, given):
            raise InputError(
                f"--set {option(axis)}: {axis} is an axis of {file}; leave it out, or exclude values there."
            )
    excluded = [_exclusion(file, axes, each) for each in _listed(file, grid.get("exclude"))]
    wanted = _chosen(f"{file}: --only", axes, _lists(axes, only))
    root = place or _root(file, grid.get("runs"))
    cells: dict[Path, Cell] = {}
    for names in product(*axes.values()):
        values = dict(zip(axes, names, strict=True))
        if not _matches(values, wanted) or any(_matches(values, each) for each in excluded):
            continue
        try:
            found = cell(
                values, [common, *(axes[axis][name] for axis, name in values.items()), given], root / place_of(values)
            )
        except InputError as error:
            raise InputError(f"{file}, cell {' '.join(names)}: {error}") from error
        other = cells.setdefault(found.run_dir, found)
        if other is not found:
            raise InputError(
                f"{file}: cells {other.name!r} and {found.name!r} would share the directory {found.run_dir}; give "
                "their values names that differ in letters or digits."
            )
    if not cells:
        raise InputError(f"{file}: no cell is left; remove a line of exclude, or name other values with --only.")
    return list(cells.values())


def _check_apart(file: Path, axes: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Refuse an axis whose option the value of another one gives, too: one would hold, and runs be called by both."""
    for axis, other in permutations(axes, 2):
        for value, options in axes[other].items():
            if gives(axis, options):
                raise InputError(
                    f"{file}: {option(axis)} is given by axis {axis!r} and by {value!r} of axis {other!r}; remove one."
                )


def mapping(file: Path, grid: dict, key: str) -> dict:
    """The mapping below a key of a grid's or a space's file; {} where there is none."""
    value = grid.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key} must be a mapping of names to values, not {type(value).__name__}.")
    return {str(name): item for name, item in value.items()}


def _root(file: Path, runs: Any) -> Path:
    if not isinstance(runs, str | None):
        raise InputError(f"{file}: runs must be the path of a directory, not {runs!r}.")
    return Path(runs or Path("runs", file.stem)).expanduser()


def choices(start: str, name: str, values: Any) -> dict[str, dict[str, Any]]:
    """The values of an axis by name, with the options that each stands for: of its own, and those that come with it.

    Args:
        start: the beginning of a sentence about the axis.
        name: its name: an option, or where all values give options, a name of the user's own.
        values: a list of values, or a mapping of values to options.

    Raises:
        InputError: they are neither, or stand for no option.
    """
    if isinstance(values, list):
        values = {text(value): None for value in values}
    if not isinstance(values, dict) or not values:
        raise InputError(f"{start} must have a list of one value or more, or a mapping of values to options.")
    found: dict[str, dict[str, Any]] = {}
    for value, options in values.items():
        if options is not None and not isinstance(options, dict):
            raise InputError(f"{start}: the options of {value!r} must be a mapping, e.g. {{lr: 1e-3}}.")
        own = {name: text(value)} if is_option(name) else {}
        found[text(value)] = own | {str(key): option for key, option in (options or {}).items()}
    if not any(found.values()):
        raise InputError(f"{start} is no option, and its values give none: {guess(name)}")
    return found


def _listed(file: Path, exclude: Any) -> list:
    if not isinstance(exclude, list | None):
        raise InputError(f"{file}: exclude must be a list of mappings of axes to values, not {exclude!r}.")
    return exclude or []


def _exclusion(file: Path, axes: dict[str, dict], each: Any) -> dict[str, set[str]]:
    """An entry of `exclude`: for each axis in it, the values that it is about."""
    if not isinstance(each, dict) or not each:
        raise InputError(f"{file}: exclude must list mappings of axes to values, e.g. {{method: FineTuning}}.")
    return _chosen(f"{file}: exclude", axes, each)


def _chosen(start: str, axes: dict[str, dict], each: dict) -> dict[str, set[str]]:
    """Values of axes by name; `start` begins the sentence about a value or an axis that the grid has not."""
    found = {}
    for axis, values in each.items():
        if axis not in axes:
            raise InputError(f"{start} names {axis!r}, which is no axis, {nearest(str(axis), axes)}")
        found[axis] = {text(value) for value in (values if isinstance(values, list) else [values])}
        for value in found[axis] - axes[axis].keys():
            raise InputError(f"{start}: {value!r} is no {axis} of the grid, {nearest(value, axes[axis])}")
    return found


def _lists(axes: dict[str, dict], pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each name. Where no value of an axis is called so, `1e-3` is the 0.001 that YAML makes of it."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        named = value if value in axes.get(name, ()) else text(configs.meant(value))
        found.setdefault(name, []).append(named if named in axes.get(name, ()) else value)
    return found


def _matches(values: dict[str, str], wanted: dict[str, set[str]]) -> bool:
    """Whether a cell has one of the wanted values on each axis that is named."""
    return all(values[axis] in names for axis, names in wanted.items())


def place_of(values: dict[str, str]) -> Path:
    """The run directory of a cell below the grid's, without letters that a file system may not take."""
    return Path(*map(_folder, _parts(values)))


def _folder(part: str) -> str:
    name = re.sub(r"[^\w.=-]+", "-", part).strip("-.")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    start = name.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(part.encode()).hexdigest()[:8]}"


def _parts(values: dict[str, str]) -> Iterator[str]:
    for axis, value in values.items():
        yield value if axis in ("method", "task", "backbone") else f"{axis.rpartition('.')[2]}={value}"
