"""Worker processes of this machine: each has imported everything and works on one cell after the other."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import final

from filelock import FileLock, Timeout

from ptune.errors import InputError, first_line
from ptune.research.cells import Cell

Run = Callable[[list[str]], int]
"""A command: it takes its words and returns its exit code."""
CELL, FAILED, OUTPUT = "cell.json", "failed.json", "output.txt"
"""Files of a cell beside its run: what it is, why it failed, what it printed."""
LOCK = ".cell.lock"
"""Locked by the worker of a cell. Where a grid was killed, its workers end a moment later, and another start waits."""
PATIENCE = 60
"""Seconds of that wait."""


@final
@dataclass(frozen=True)
class End:
    """How a cell ended."""

    cell: Cell
    error: str
    """The sentence of its failure; empty where there is a result."""


def is_done(cell: Cell) -> bool:
    """Whether a cell has its result.

    Raises:
        InputError: its directory holds a run with other options.
    """
    kept = cell.run_dir / CELL
    if not kept.exists():
        if (cell.run_dir / "config.yaml").exists():
            raise InputError(f"{cell.run_dir} holds a run that is not of a grid; choose another --runs.")
        return False
    found = json.loads(kept.read_text(encoding="utf-8"))
    if found["digest"] != cell.digest:
        raise InputError(
            f"{cell.run_dir} holds a run of cell {cell.name!r} with other options ({' '.join(found['words'])}); choose "
            "another --runs, or remove it."
        )
    return (cell.run_dir / "result.json").exists()


def work(cells: list[Cell], run: Run, workers: int, threads: int) -> Iterator[Cell | End]:
    """Run the cells, each from where an earlier start has left it: a cell when it begins, and how each ended.

    A worker that dies, by a signal or for want of memory, fails its cell and is replaced. Where this process ends, the
    workers end, too: their runs write a checkpoint and stop.

    Args:
        cells: what is to be done, in this order.
        run: the command; a function of a module, so that a new process finds it.
        workers: number of processes.
        threads: number of torch's threads in each.
    """
    waiting, busy = deque(cells), {}
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: SpawnContext = multiprocessing.get_context(method)  # type: ignore[assignment]
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = _Worker(context, run, threads)
                busy[worker] = waiting.popleft()
                worker.send(busy[worker])
                yield busy[worker]
            handles = {handle: worker for worker in busy for handle in (worker.connection, worker.process.sentinel)}
            for worker in {handles[handle] for handle in wait(list(handles))}:
                error = worker.answer()
                yield End(busy.pop(worker), error if error is not None else worker.death())
                if error is not None and waiting:
                    busy[worker] = waiting.popleft()
                    worker.send(busy[worker])
                    yield busy[worker]
                else:
                    worker.end()
    finally:
        for worker in busy:
            worker.process.terminate()
        for worker in busy:
            worker.process.join()


@final
class _Worker:
    """A process, and the pipe that cells go through and sentences come back."""

    def __init__(self, context: SpawnContext, run: Run, threads: int) -> None:
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, run, threads), daemon=True)
        self.process.start()
        other.close()

    def send(self, cell: Cell) -> None:
        self.connection.send(cell)

    def answer(self) -> str | None:
        """The sentence of the cell's failure, empty if it has its result; None where the process has died."""
        try:
            return self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            return None

    def death(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"its process ended by {why}; start the grid again to go on with it."

    def end(self) -> None:
        self.connection.close()  # the worker reads the end of the pipe
        self.process.join()


def _serve(connection: Connection, run: Run, threads: int) -> None:
    """Work on cells until there is no more; the life of a worker."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        connection.send(_done(cell, run))


def _end_with_parent() -> None:
    """Where the parent has ended, however it did, stop the run as its signal would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _done(cell: Cell, run: Run) -> str:
    """Run a cell; the sentence of its failure, which is also kept in its directory."""
    cell.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cell.run_dir / LOCK, timeout=PATIENCE):
            return "" if is_done(cell) else _run(cell, run)
    except Timeout:
        return f"{cell.run_dir} is another grid's work; start this one again when that has ended."


def _run(cell: Cell, run: Run) -> str:
    kept = {"values": cell.values, "words": cell.words, "digest": cell.digest}
    (cell.run_dir / CELL).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    errors = io.StringIO()
    with (
        (cell.run_dir / OUTPUT).open("a", encoding="utf-8", buffering=1) as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = run([*cell.words, "--run_dir", str(cell.run_dir), "--ckpt_path", "auto"])
            error = "" if code == 0 else (errors.getvalue().splitlines() or [f"exit code {code}"])[-1]
        except Exception as mistake:  # an error of ptune's own, or of a library: the next cell may be well
            traceback.print_exc(file=errors)
            error = f"{type(mistake).__name__}: {first_line(mistake)}; its traceback is in {cell.run_dir / OUTPUT}."
        output.write(errors.getvalue())
    failed = cell.run_dir / FAILED
    failed.unlink(missing_ok=True)
    if error:
        record = {"error": error, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        failed.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return error
