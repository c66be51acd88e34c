"""`python -m ptune.sweep`: search for the best options of a method; go on where it was stopped.

    python -m ptune.sweep experiments/spaces/p_tuning_v2.yaml --trials 20 --workers 2
    python -m ptune.sweep experiments/spaces/lora.yaml --trials 20 --set task=cola data.path=DIR --runs runs/cola/lora

A trial is one run in its own directory, or one for each of several seeds. Killed at any moment and started again by the
same command, the search goes on; started twice at the same time, it shares its trials out. A trial that fails is
recorded and does not stop the others.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ptune import evaluate, fit
from ptune.errors import InputError, require
from ptune.research import executors
from ptune.research.cells import Cell, command
from ptune.research.space import Space, read
from ptune.run.command import Arguments, guarded, place

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

PURPOSE = "Search for the best options of a method; started again, it goes on where it was stopped."


def run(args: list[str]) -> int:
    """Space, trials, their runs, the table and the recipe; 1 where no trial has a value."""
    options = _arguments().parse_args(args)
    for name, file in (("recipe", options.recipe), ("wandb", options.wandb)):
        if file and not file.absolute().parent.is_dir():
            raise InputError(f"--{name} {file}: there is no folder {file.parent}; make it first.")
        if file and file.resolve() == options.file.resolve():
            raise InputError(f"--{name} {file}: is the file of the space, which would be lost; give another file.")
    space = read(options.file, options.runs, dict(options.set))
    if options.wandb:
        from ptune.research import wandb_file

        wandb_file.write(space, options.file, options.wandb)
        print(f"{options.wandb} is written; next: wandb sweep {shlex.quote(str(options.wandb))}")
        return 0
    count = _count(space, options)
    require("optuna", "sweep")
    from ptune.research import outcome
    from ptune.research.pruning import Reporting
    from ptune.research.storage import Store
    from ptune.research.study import Trials

    journal = str((space.runs / "journal.log").absolute())
    store = Store(options.storage or journal, space.runs.name, space.direction, space.pruner)
    run_cell = run_trial if space.pruner == "none" else Reporting(run_trial, store, space.metric, space.first_seed)
    with Trials(space, store, count) as trials:
        with closing(executors.work(trials.cells(), run_cell, options)) as events:
            for event in events:
                if not isinstance(event, Cell) and (ended := trials.take(event)):
                    print(outcome.line(ended, trials), flush=True)
        print(outcome.table(trials))
        for sentence in outcome.failures(trials):
            print(sentence, file=sys.stderr)
        if trials.best is None:
            return 1
        recipe = options.recipe or space.runs / "best.yaml"
        line = shlex.join(["python", "-m", "ptune.sweep", *args])
        outcome.write_recipe(trials, recipe, re.sub(r"(?<=://)[^/]*@", "", line))  # without a password
        print(f"best: trial {trials.best.number}; next: python -m ptune.fit --config {shlex.quote(str(recipe))}")
    return 0


def run_trial(words: list[str], callbacks: Sequence["Callback"] = ()) -> object:
    """The command of a trial's run, with further callbacks of training."""
    return evaluate.main(words) if command(words) == "evaluate" else fit.main(words, callbacks)


def _count(space: Space, options: argparse.Namespace) -> int:
    """Number of trials; of a grid, no more than its points."""
    points = len(space.grid()) if space.sampler == "grid" else options.trials
    if points is None:
        raise InputError(f"--trials is missing: say how many points the sampler, {space.sampler}, draws.")
    return min(points, options.trials or points)


def _arguments() -> Arguments:
    arguments = Arguments("python -m ptune.sweep", description=PURPOSE)
    arguments.add_argument("file", type=place, help="YAML file of dimensions; ptune/research/space.py explains it")
    what = "number of trials in all; needed unless the sampler is grid, which by default tries all points"
    arguments.add_argument("--trials", type=executors.at_least_one, help=what)
    executors.add_pairs(arguments, "--set", "options of all trials")
    arguments.add_argument("--runs", type=place, help="directory of the trials, in place of the file's")
    executors.add_arguments(arguments)
    arguments.add_argument("--storage", help="file or database URL of the trials (default: journal.log in --runs)")
    arguments.add_argument("--recipe", type=place, help="YAML file of the best trial (default: best.yaml in --runs)")
    arguments.add_argument("--wandb", type=place, help="write the space as this file of a W&B sweep, and run nothing")
    return arguments


def main(args: list[str] | None = None) -> int:
    """Search; the exit code: 0, 1 where no trial has a value, or 2 for a mistake in the input, told in one sentence."""
    codes: list[int] = []
    words = sys.argv[1:] if args is None else args
    return guarded(lambda: codes.append(run(words))) or int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
