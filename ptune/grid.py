"""`python -m ptune.grid`: run every cell of a grid of methods, tasks, seeds and options; go on where it was stopped.

    python -m ptune.grid experiments/grids/quickstart.yaml --workers 2
    python -m ptune.grid experiments/grids/quickstart.yaml --dry-run
    python -m ptune.grid experiments/grids/lecture.yaml --set backbone=BACKBONE --only recipe=lora recipe=bitfit seed=11
    python -m ptune.grid experiments/grids/quickstart.yaml --on ray://HOST:PORT --gpus 0.5
    python -m ptune.grid experiments/grids/quickstart.yaml --on slurm --workers 20 --slurm partition=gpu time=120

A cell is one run in its own directory. Killed at any moment and started again by the same command, the grid goes on:
finished cells stay, an unfinished one goes on from its last checkpoint. A cell that fails is recorded and does not stop
the others; the exit code is then 1.
"""

import os
import sys
from contextlib import closing
from pathlib import Path
from statistics import mean

from ptune import evaluate, fit
from ptune.research import executors
from ptune.research.axes import read
from ptune.research.cells import Cell, command, is_done
from ptune.research.checks import check
from ptune.research.display import Display, duration
from ptune.run.command import Arguments, Stopped, guarded, place

PURPOSE = "Run every cell of a grid; started again, it goes on where it was stopped."


def run(args: list[str]) -> int:
    """Cells, workers, the display; the number of cells that failed."""
    options = _arguments().parse_args(args)
    cells = read(options.file, options.runs, dict(options.set), options.only)
    done = [cell for cell in cells if is_done(cell)]
    left = [cell for cell in cells if cell not in done]
    if options.dry_run:
        if options.on in executors.SEEN:
            check(options.file, left, options.on != "slurm")
        print(_plan(cells, done, options.workers or 1))
        return 0
    with Display(len(cells), len(done)) as display, closing(executors.work(left, run_cell, options)) as events:
        try:
            for event in events:
                display.show(event)
        except Stopped as stop:
            how = f"with {display.done} of {len(cells)} cells done; the same command goes on"
            raise Stopped(stop.number, how) from stop
    for end in display.failed:
        print(f"failed: {end.cell.name}: {end.error}", file=sys.stderr)
    shared = os.path.commonpath([cell.run_dir for cell in cells])
    print(f"{display.done} of {len(cells)} cells are done; their runs lie in {shared}")
    return len(display.failed)


def run_cell(words: list[str]) -> object:
    """The command of a cell."""
    return (evaluate if command(words) == "evaluate" else fit).main(words)


def _arguments() -> Arguments:
    arguments = Arguments("python -m ptune.grid", description=PURPOSE)
    arguments.add_argument("file", type=place, help="YAML file with axes of values; ptune/research/axes.py explains it")
    executors.add_pairs(arguments, "--set", "options of all cells")
    executors.add_pairs(arguments, "--only", "the cells with these values", "AXIS=VALUE")
    arguments.add_argument("--runs", type=place, help="directory of the runs, in place of the file's")
    executors.add_arguments(arguments)
    arguments.add_argument("--dry-run", action="store_true", help="list the cells, their commands and what they cost")
    return arguments


def _plan(cells: list[Cell], done: list[Cell], workers: int) -> str:
    """The cells and their commands, and what is left by the seconds of the finished ones."""
    taken = {cell.run_dir: _seconds(cell) for cell in done}
    lines = [f"{'done' if cell.run_dir in taken else 'to do':<7}{cell.name}\n       {cell.line}" for cell in cells]
    left = [cell for cell in cells if cell.run_dir not in taken]
    cost = ""
    if taken and left:
        cost = f", about {duration(sum(_expected(cell, done, taken) for cell in left) / workers)}"
    return "\n".join([*lines, f"{len(cells)} cells, {len(done)} done, {len(left)} to do{cost}"])


def _expected(cell: Cell, done: list[Cell], taken: dict[Path, float]) -> float:
    """Seconds of a cell: the mean of the finished ones that share most values with it."""
    shared = {other.run_dir: len(set(cell.values.items()) & set(other.values.items())) for other in done}
    most = max(shared.values())
    return mean(taken[run_dir] for run_dir, count in shared.items() if count == most)


def _seconds(cell: Cell) -> float:
    result = cell.result or {}
    return result["seconds"] + result["evaluation_seconds"]


def main(args: list[str] | None = None) -> int:
    """Run the grid; the exit code: 0, 1 where a cell failed, or 2 for a mistake in the input, told in one sentence."""
    failed: list[int] = []
    code = guarded(lambda: failed.append(run(sys.argv[1:] if args is None else args)))
    return code or int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
