"""`python -m ptune.grid`: run every cell of a grid of methods, tasks, seeds and options; go on where it was stopped.

    python -m ptune.grid experiments/grids/quickstart.yaml --workers 2
    python -m ptune.grid experiments/grids/quickstart.yaml --dry-run

A cell is one run in its own directory. Killed at any moment and started again by the same command, the grid goes on:
finished cells stay, an unfinished one goes on from its last checkpoint. A cell that fails is recorded and does not stop
the others; the exit code is then 1.
"""

import os
import sys
import time
from pathlib import Path
from statistics import mean

from ptune import evaluate, fit
from ptune.research import executors
from ptune.research.axes import read
from ptune.research.cells import Cell, command, is_done
from ptune.run.command import Arguments, guarded

PURPOSE = "Run every cell of a grid; started again, it goes on where it was stopped."
UNITS = ((3600, "h"), (60, "min"), (1, "s"))


def run(args: list[str]) -> int:
    """Cells, workers, the display; the number of cells that failed."""
    options = _arguments().parse_args(args)
    cells = read(options.file, options.runs)
    done = [cell for cell in cells if is_done(cell)]
    left = [cell for cell in cells if cell not in done]
    if options.dry_run:
        print(_plan(cells, done, options.workers or 1))
        return 0
    start, failed, running, finished = time.monotonic(), [], [], 0
    for event in executors.work(left, run_cell, options):
        if isinstance(event, Cell):
            running.append(event)
            continue
        running.remove(event.cell)
        finished += 1
        if event.error:
            failed.append(event)
        else:
            done.append(event.cell)
        rest = (time.monotonic() - start) / finished * (len(left) - finished)
        word = "failed" if event.error else "done"
        print(
            f"{word:<7}{event.cell.name}   [{len(done)} of {len(cells)} done, {len(failed)} failed, "
            f"{len(running)} running{f', about {_duration(rest)} left' if rest else ''}]",
            flush=True,
        )
    for end in failed:
        print(f"failed: {end.cell.name}: {end.error}", file=sys.stderr)
    place = os.path.commonpath([cell.run_dir for cell in cells])
    print(f"{len(done)} of {len(cells)} cells are done; their runs lie in {place}")
    return len(failed)


def run_cell(words: list[str]) -> object:
    """The command of a cell."""
    return (evaluate if command(words) == "evaluate" else fit).main(words)


def _arguments() -> Arguments:
    arguments = Arguments("python -m ptune.grid", description=PURPOSE)
    arguments.add_argument("file", type=Path, help="YAML file with axes of values; ptune/research/axes.py explains it")
    arguments.add_argument("--runs", type=Path, help="directory of the runs, in place of the file's")
    executors.add_arguments(arguments)
    arguments.add_argument("--dry-run", action="store_true", help="list the cells, their commands and what they cost")
    return arguments


def _plan(cells: list[Cell], done: list[Cell], workers: int) -> str:
    """The cells and their commands, and what is left by the seconds of the finished ones."""
    taken = {cell.name: _seconds(cell) for cell in done}
    lines = [f"{'done' if cell.name in taken else 'to do':<7}{cell.name}\n       {cell.line}" for cell in cells]
    left = [cell for cell in cells if cell.name not in taken]
    cost = ""
    if taken and left:
        cost = f", about {_duration(sum(_expected(cell, done, taken) for cell in left) / workers)}"
    return "\n".join([*lines, f"{len(cells)} cells, {len(done)} done, {len(left)} to do{cost}"])


def _expected(cell: Cell, done: list[Cell], taken: dict[str, float]) -> float:
    """Seconds of a cell: the mean of the finished ones that share most values with it."""
    shared = {other.name: len(set(cell.values.items()) & set(other.values.items())) for other in done}
    most = max(shared.values())
    return mean(taken[name] for name, count in shared.items() if count == most)


def _seconds(cell: Cell) -> float:
    result = cell.result or {}
    return result["seconds"] + result["evaluation_seconds"]


def _duration(seconds: float) -> str:
    """A time in the largest unit that it has two of."""
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= 2 * size or size == 1)
    return f"{seconds / size:.{int(unit == 'h')}f} {unit}"


def main(args: list[str] | None = None) -> int:
    """Run the grid; the exit code: 0, 1 where a cell failed, or 2 for a mistake in the input, told in one sentence."""
    failed: list[int] = []
    code = guarded(lambda: failed.append(run(sys.argv[1:] if args is None else args)))
    return code or int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
