"""What is shown of cells while they run: a line for each that ends, and on a terminal a bar below."""

import sys
import time
from types import TracebackType
from typing import Self, final

from tqdm import tqdm

from ptune.research.attempt import End
from ptune.research.cells import Cell

UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@final
class Display:
    """Counts cells that are done, running and failed, and says what time the rest will take.

    Args:
        total: number of cells.
        done: how many of them are done already.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self.failed: list[End] = []
        self.running = 0
        self._left, self._start = total - done, time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit="cell", disable=None, dynamic_ncols=True)  # None: on terminals

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.close()

    def show(self, event: Cell | End) -> None:
        """A cell that begins, or how one has ended."""
        if isinstance(event, Cell):
            self.running += 1
        else:
            self.running -= 1
            self._ended(event)
            self._bar.update()
        self._bar.set_postfix(running=self.running, failed=len(self.failed))

    def _ended(self, end: End) -> None:
        if end.error:
            self.failed.append(end)
        else:
            self.done += 1
        word, finished = "failed" if end.error else "done", self.done + len(self.failed)
        rest = self.total - finished
        seconds = (time.monotonic() - self._start) / (self._left - rest) * rest
        tqdm.write(
            f"{word:<7}{end.cell.name}   [{self.done} of {self.total} done, {len(self.failed)} failed, "
            f"{self.running} running{f', about {duration(seconds)} left' if rest else ''}]"
        )
        sys.stdout.flush()  # a log file is read while the grid runs


def duration(seconds: float) -> str:
    """A time in hours from two hours on, in minutes from two minutes on, else in seconds."""
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= 2 * size or size == 1)
    return f"{seconds / size:.{int(unit == 'h')}f} {unit}"
