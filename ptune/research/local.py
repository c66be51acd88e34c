"""Worker processes of this machine: each has imported everything and works on one cell after the other."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, final

from ptune.research.attempt import End, Run, attempt, record
from ptune.research.cells import Cell


def work(cells: Iterable[Cell], run: Run, workers: int, cpus: int, gpus: float) -> Generator[Cell | End, None, None]:
    """Run the cells as `ptune.research.executors.work` says.

    A worker that dies, by a signal or for want of memory, fails its cell and is replaced. Where this process ends, the
    workers end, too: their runs write a checkpoint and stop.

    Args:
        cells: what is to be done, in this order.
        run: the command.
        workers: number of processes.
        cpus: number of torch's threads in each.
        gpus: GPUs of each, a fraction for one that workers share; with too few of them, several have the same.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: SpawnContext = multiprocessing.get_context(method)  # type: ignore[assignment]
    waiting, places = iter(cells), list(range(workers))
    idle: list[_Worker] = []
    busy: dict[_Worker, Cell] = {}
    try:
        while True:
            while len(busy) < workers and (cell := next(waiting, None)):
                worker = idle.pop() if idle else _Worker(context, places.pop(0), run, cpus, gpus)
                busy[worker] = cell
                worker.send(cell)
                yield cell
            if not busy:
                return
            handles: dict[Any, _Worker] = {
                handle: worker for worker in busy for handle in (worker.connection, worker.process.sentinel)
            }
            for worker in {handles[handle] for handle in wait(list(handles))}:
                cell, end = busy.pop(worker), worker.answer()
                if end:
                    idle.append(worker)
                else:
                    places.append(worker.place)
                    end = End(cell, worker.death())
                    record(cell, end.error)
                yield end
    finally:
        for worker in busy:
            worker.process.terminate()
        for worker in [*busy, *idle]:
            worker.end()


@final
class _Worker:
    """A process, and the pipe that cells go through and their ends come back."""

    def __init__(self, context: SpawnContext, place: int, run: Run, cpus: int, gpus: float) -> None:
        self.place = place
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, place, run, cpus, gpus))
        self.process.start()
        other.close()

    def send(self, cell: Cell) -> None:
        with contextlib.suppress(ConnectionError):  # it has died meanwhile, which `wait` tells next
            self.connection.send(cell)

    def answer(self) -> End | None:
        """How the cell ended; None where the process has died."""
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


def _serve(connection: Connection, place: int, run: Run, cpus: int, gpus: float) -> None:
    """Work on cells until there is no more; the life of a worker."""
    # Ctrl-C of a terminal reaches all of its processes, and the parent decides what becomes of the runs.
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:  # blocked, since a run sets handlers: the first signal would be the terminal's, and the parent's a second one
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    multiprocessing.set_start_method(None, force=True)  # of data.workers: not the one by which this process is started
    import torch

    torch.set_num_threads(cpus)
    if count := torch.cuda.device_count():  # which does not touch the devices yet
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(visible[i % count] for i in devices(place, gpus)))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):  # no more cells; or the parent has ended
        while True:
            connection.send(attempt(connection.recv(), run))


def devices(place: int, gpus: float) -> range:
    """Numbers of the GPUs of a worker, by its own number and how many each has: of 0.5, workers 0 and 1 have GPU 0."""
    if 0 < gpus < 1:
        first = place // int(1 / gpus)
        return range(first, first + 1)
    return range(int(place * gpus), int((place + 1) * gpus))


def _end_with_parent() -> None:
    """Where the parent has ended, however it did, stop the run as its signal would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
