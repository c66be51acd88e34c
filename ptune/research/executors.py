"""Where cells run: the options that grids and searches share, and the executor that they choose."""

import argparse
import os
from collections.abc import Iterable, Iterator

from ptune.research import local
from ptune.research.attempt import End, Run
from ptune.research.cells import Cell
from ptune.run.command import Arguments


def add_arguments(arguments: Arguments) -> None:
    """The options of `work`."""
    arguments.add_argument("--workers", type=_at_least_one, default=1, help="cells that run at the same time")


def work(cells: Iterable[Cell], run: Run, options: argparse.Namespace) -> Iterator[Cell | End]:
    """Run the cells, each from where an earlier start has left it: a cell when it begins, and how each ended.

    The next cell is asked for when there is room for it, so that a search can choose it by the ends until then.

    Args:
        cells: what is to be done, in this order.
        run: the command; a function of a module, by whose name other processes find it.
        options: those of `add_arguments`, parsed.
    """
    return local.work(cells, run, options.workers, max(1, (os.cpu_count() or 1) // options.workers))


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)
