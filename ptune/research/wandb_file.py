"""A space as the file of a W&B sweep, whose agents run `python -m ptune.fit` with what W&B's server draws."""

import shlex
from pathlib import Path
from typing import Any

from ptune.errors import InputError, note
from ptune.research.cells import option
from ptune.research.dimensions import Choice, Dimension, Range
from ptune.research.space import Space
from ptune.run import configs
from ptune.tasks import all_tasks

METHODS = {"tpe": "bayes", "random": "random", "grid": "grid"}
"""W&B's names of samplers."""


def write(space: Space, source: Path, file: Path) -> None:
    """Write the sweep's file.

    Args:
        space: the space. W&B has no conditions, no values that bring options and no mean over seeds; it draws the seed
            of each run instead.
        source: the file of the space, whose name the sweep has.
        file: where to write.

    Raises:
        InputError: the space has what W&B cannot express, or the metric is not known.
    """
    from ptune.tuning.saving import write_whole  # it imports torch

    comment = f"# {source} for W&B:\n#   wandb sweep {shlex.quote(str(file))}\n#   wandb agent ENTITY/PROJECT/SWEEP\n"
    write_whole(file, (comment + configs.dump(sweep(space, source))).encode())


def sweep(space: Space, source: Path) -> dict[str, Any]:
    """W&B's configuration of a sweep.

    Raises:
        InputError: as `write`.
    """
    parameters = {option(each.name): _parameter(each) for each in space.dimensions}
    if space.seeds:
        note("W&B draws one seed a run, where a trial here averages all of them.")
        parameters["seed_everything"] = {"values": list(space.seeds)}
    (first, *_) = space.cells(0, space.point(lambda each: each.ends[0]))
    options = dict(zip(first.words[::2], first.words[1::2], strict=True))
    fixed = [word for name, value in options.items() if name[2:] not in parameters for word in (name, value)]
    found = {
        "name": source.stem,
        "project": options.get("--wandb.project", "ptune"),
        "method": METHODS[space.sampler],
        "metric": {"name": f"val/{_metric(space, options)}", "goal": space.direction},
        "parameters": parameters,
        "command": ["${env}", "python", "-m", "ptune.fit", *fixed, "${args}"],
    }
    if space.pruner == "asha":
        found["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": 4}
    elif space.pruner == "median":
        note("W&B has no pruning by the median, so the file has none.")
    return found


def _metric(space: Space, options: dict[str, str]) -> str:
    task = all_tasks().get(options.get("--data.task", ""))
    metric = space.metric or (task.monitored if task else "")
    if not metric:
        raise InputError(
            "--wandb: the metric is known when the data are read, and W&B asks for it now; add `metric: NAME`."
        )
    return metric


def _parameter(each: Dimension) -> dict[str, Any]:
    """A dimension in W&B's words."""
    start = f"--wandb: dimension {each.name!r} "
    if each.when:
        raise InputError(f"{start}has a condition, which W&B cannot express; write a space without it.")
    if option(each.name) in ("model", "data"):
        raise InputError(
            f"{start}decides which other options there are, which W&B cannot express; write a space for each."
        )
    if isinstance(each, Choice):
        if any(options != {each.name: value} for value, options in each.chosen.items()):
            raise InputError(f"{start}has values that bring options, which W&B cannot express; write a space for each.")
        return {"values": [_typed(value) for value in each.values]}
    return {"values": each.values} if each.step else _range(each)


def _range(each: Range) -> dict[str, Any]:
    low, high = each.ends
    if each.whole and not each.log:
        return {"distribution": "int_uniform", "min": low, "max": high}
    if each.whole:
        return {"distribution": "q_log_uniform_values", "min": low, "max": high, "q": 1}
    return {"distribution": "log_uniform_values" if each.log else "uniform", "min": float(low), "max": float(high)}


def _typed(text: str) -> Any:
    """A value as YAML has it: a number or a truth value; a list stays text, as it is written on the command line."""
    value = configs.meant(text)
    return value if isinstance(value, int | float) else text
