"""Cells as tasks of Ray, on this machine or on a cluster, whose results come back to where the grid was started.

A node that dies gives its cells to the others. Where a node sees the run directories (a shared file system), a cell
goes on there from its last checkpoint. Where it does not, it works in a folder of its own, begins anew, and what the
run leaves, but for checkpoints, is sent back; the `run_dir` in its `config.yaml` is then that folder. ptune must be
importable on the nodes, in the driver's version: installed there, or in a checkout on the shared file system.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from ptune.errors import InputError, first_line, require
from ptune.research.attempt import LOCK, End, Run, attempt, begin, record
from ptune.research.cells import CELL, FAILED, Cell

RETRIES = 5
"""How often a cell is begun again because its node or process has died. A failure of its run is no reason to."""
TOKEN = ".driver"
"""A file with a word that only its writer knows: a node that reads it there sees the driver's directory."""
REACH = 10
"""Seconds after which a cluster's address is taken for one where nobody is."""
STOP = 60
"""Seconds that stopped runs have for their checkpoints."""


def work(
    cells: Iterable[Cell], run: Run, workers: int | None, cpus: int | None, gpus: float | None, address: str
) -> Generator[Cell | End, None, None]:
    """Run the cells as `ptune.research.executors.work` says.

    Args:
        cells: what is to be done, in this order.
        run: the command.
        workers: tasks at the same time; None for as many as the cluster has room for.
        cpus: CPU cores of a cell, and torch's threads; None for an equal share of the cluster.
        gpus: GPUs of a cell, a fraction for one that cells share; None for one where there are any.
        address: "ray" for a cluster of this machine alone, or what `ray.init` takes: `auto`, HOST:PORT, ray://HOST:PORT.

    Raises:
        InputError: Ray is not installed, or does not answer at the address.
    """
    with _connected(address) as ray:
        cpus, gpus = _share(ray, workers, cpus, gpus)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": RETRIES, "retry_exceptions": False}
        task, token = ray.remote(**options)(away), secrets.token_hex(8)
        waiting, running = iter(cells), {}  # by futures: a signal does not interrupt `ray.wait` in good order
        try:
            while True:
                while len(running) < (workers or _room(ray, cpus, gpus)) and (cell := next(waiting, None)):
                    begin(cell)
                    (cell.run_dir / TOKEN).write_text(token)
                    reference = task.remote(cell, _inline(cell), run, cpus, os.getcwd(), token)
                    running[reference.future()] = cell, reference
                    yield cell
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield _end(ray, done, running.pop(done)[0])
        finally:
            for _, reference in running.values():
                ray.cancel(reference)  # as SIGINT does: the run writes a checkpoint and stops
            wait(running, timeout=STOP)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster; a connection that is there already is used and stays."""
    ray: Any = require("ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "ray":
        options |= {"address": "local", "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody has asked to report anything
    try:
        if ":" in address:  # Ray itself tries for minutes
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host, int(port)), timeout=REACH).close()
        before = signal.getsignal(signal.SIGTERM)
        ray.init(**options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own handler ends this process with exit code 15
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"--on {address}: no Ray cluster answers there ({first_line(error)}); `ray start --head` starts one, and "
            "--on ray needs none."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _share(ray: Any, workers: int | None, cpus: int | None, gpus: float | None) -> tuple[int, float]:
    """Cores and GPUs of a cell."""
    total = ray.cluster_resources()
    if gpus is None:
        gpus = 1 if total.get("GPU") else 0
    if cpus is None:
        at_once = workers or (total["GPU"] / gpus if gpus else total.get("CPU", 1))
        largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        cpus = max(1, int(min(total.get("CPU", 0) / max(1, at_once), largest)))
    return cpus, gpus


def _room(ray: Any, cpus: int, gpus: float) -> int:
    """How many cells the cluster, as it is now, runs at the same time."""
    total = ray.cluster_resources()
    room = [total.get("CPU", 0) / cpus] + ([total.get("GPU", 0) / gpus] if gpus else [])
    return max(1, int(min(room)))


def away(
    cell: Cell, inline: tuple[str, ...], run: Run, threads: int, folder: str, token: str
) -> tuple[End, dict[str, bytes]]:
    """Run a cell on a node; how it ended, and what it has left, if that does not lie in the driver's directory.

    Args:
        cell: the cell; its paths are read from the driver's working directory, where the node has such a folder.
        inline: the words of the cell with the configuration files' content in place of their names.
        run: the command.
        threads: number of torch's threads.
        folder: the driver's working directory.
        token: what `TOKEN` holds in the driver's run directory.
    """
    import torch

    torch.set_num_threads(threads)
    with suppress(OSError):
        os.chdir(folder)
    with suppress(OSError):
        if Path(folder, cell.run_dir, TOKEN).read_text() == token:
            return attempt(cell, run), {}
    with TemporaryDirectory(prefix="ptune-") as place:
        end = attempt(replace(cell, words=inline, run_dir=Path(place)), run)
        files = [file for file in Path(place).rglob("*") if file.is_file() and not file.is_symlink()]
        kept = {
            str(file.relative_to(place)): file.read_bytes()
            for file in files
            if file.suffix != ".ckpt" and not file.name.startswith(".") and file.name != CELL
        }
        error = end.error.replace(place, str(cell.run_dir))
        return End(cell, error, end.result, end.stopped), kept


def _inline(cell: Cell) -> tuple[str, ...]:
    """The words of a cell for a node that may not have its configuration files: their text stands in their place."""
    pairs = zip(("", *cell.words), cell.words, strict=False)
    return tuple(
        Path(word).expanduser().read_text("utf-8") + "\n" if before == "--config" else word for before, word in pairs
    )


def _end(ray: Any, done: Future, cell: Cell) -> End:
    """How a task ended; what it has sent is written into the run directory."""
    try:
        end, files = done.result()
    except ray.exceptions.RayError as error:  # it could not be run: its node or process died too often, ...
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        last = isinstance(error, ray.exceptions.RayTaskError)  # whose text is a traceback
        end, files = End(cell, f"its task on Ray could not be run ({lines[-1 if last else 0].strip()})."), {}
        record(cell, end.error)
    if files:
        bring(cell, files)
    (cell.run_dir / TOKEN).unlink(missing_ok=True)
    return end


def bring(cell: Cell, files: dict[str, bytes]) -> None:
    """Write what a run has left on a node into the run directory, its result last; a result that is there stays."""
    from ptune.tuning.saving import write_whole  # it imports torch

    with FileLock(cell.run_dir / LOCK):
        if cell.result_file.exists():
            return
        (cell.run_dir / FAILED).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: name == cell.result_file.name):
            (cell.run_dir / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(cell.run_dir / name, files[name])
