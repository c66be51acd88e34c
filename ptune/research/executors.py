"""Where cells run: the options that grids and searches share, and the executor that they choose."""

import argparse
import os
from collections.abc import Generator, Iterable

from ptune.errors import InputError
from ptune.research import local, on_ray, on_slurm
from ptune.research.attempt import End, Run
from ptune.research.cells import Cell
from ptune.run.command import Arguments

SEEN = ("local", "ray", "slurm")
"""Places of cells that see the files of this machine; a cluster at an address may not."""
PLACES = "local; ray for a Ray cluster of this machine; HOST:PORT, ray://HOST:PORT or auto for one that runs; slurm"


def add_arguments(arguments: Arguments) -> None:
    """The options of `work`."""
    arguments.add_argument("--on", default="local", type=_place, help=f"where cells run: {PLACES} (default: local)")
    arguments.add_argument(
        "--workers",
        type=at_least_one,
        help="cells at the same time (default: 1 locally, as many as there is room for on Ray; for Slurm to be given)",
    )
    arguments.add_argument(
        "--cpus", type=at_least_one, help="CPU cores of a cell (default: an equal share of what there is)"
    )
    arguments.add_argument(
        "--gpus",
        type=_share,
        help="GPUs of a cell, such as 0.5 for one that two share (default: 1 where there are any)",
    )
    what = "options of sbatch, such as partition=gpu time=120 (minutes of a job, which goes on in another one)"
    add_pairs(arguments, "--slurm", what)


def add_pairs(arguments: Arguments, name: str, what: str, metavar: str = "NAME=VALUE") -> None:
    """An option that takes pairs of a name and a value; given twice, it has those of both."""
    arguments.add_argument(name, action="extend", nargs="+", type=pair, default=[], metavar=metavar, help=what)


def work(cells: Iterable[Cell], run: Run, options: argparse.Namespace) -> Generator[Cell | End, None, None]:
    """Run the cells, each from where an earlier start has left it: a cell when it begins, and how each ended.

    The next cell is asked for when there is room for it, so that a search can choose it by the ends until then.

    Args:
        cells: what is to be done, in this order.
        run: the command; a function of a module, by whose name other processes find it.
        options: those of `add_arguments`, parsed.
    """
    if options.slurm and options.on != "slurm":
        raise InputError(f"--slurm is for --on slurm, but the cells run on {options.on!r}; leave one of them out.")
    if options.on == "slurm":
        if options.workers is None:
            raise InputError("--workers is missing: how many jobs may be in Slurm's queue at the same time?")
        return on_slurm.work(cells, run, options.workers, options.cpus or 1, options.gpus, dict(options.slurm))
    if options.on != "local":
        return on_ray.work(cells, run, options.workers, options.cpus, options.gpus, options.on)
    workers = options.workers or 1
    cpus = options.cpus or max(1, (os.cpu_count() or 1) // workers)
    return local.work(cells, run, workers, cpus, 1.0 if options.gpus is None else options.gpus)


def at_least_one(text: str) -> int:
    """A whole number from 1 on; the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """A name and its value."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE, e.g. task=cola")
    return name, value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 <= value <= 1 or (value.is_integer() and 1 < value < 10**6)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a share of one GPU, such as 0.5, or a whole number of GPUs")
    return value


def _place(text: str) -> str:
    if text not in (*SEEN, "auto") and ":" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no place for cells; give {PLACES}")
    return text
