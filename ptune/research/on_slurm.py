"""Cells as jobs of Slurm, through submitit. They run in the driver's directory, on a file system that all nodes see.

A job that comes to its time limit is put into the queue again by its run, and goes on from its last checkpoint. Jobs go
on where the driver is killed; the same command, started again, waits for those that run, and a job that still waits in
the queue does not run beside its successor, because Slurm runs one job of a name at a time (`dependency=singleton`).
Run on a real Slurm of one node without accounting, 22.05.8: `tests/research/test_slurm_jobs.py`.
"""

import contextlib
import hashlib
import io
import time
from collections.abc import Generator, Iterable
from typing import Any

from filelock import FileLock, Timeout

from ptune.errors import InputError, first_line, note, printable, require
from ptune.research.attempt import LOCK, End, Run, attempt, begin, record
from ptune.research.cells import Cell
from ptune.run import configs

CLUSTER = "slurm"
"""The executor of submitit; tests take its local one."""
LOGS = "slurm"
"""Folder in a cell's directory for what submitit writes: the job's script, its output and its errors."""
MINUTES = 60
"""Time limit of a job where none is given."""
SHORTEST = 5
"""Shortest time limit: Slurm sends the signal up to 150 seconds before it, and to a run that trains by then."""
TASKS = {"nodes", "ntasks_per_node"}
"""Settings that would start a cell several times."""
SIGNAL = {"signal": "USR1@90"}
"""What Slurm sends, and how many seconds before the time limit: runs take it for that; submitit's own is another."""
POLL = 1.0
"""Seconds between two looks at what the jobs have left."""
LOOKS = 15
"""Seconds between two looks at Slurm's queue, at most."""


def work(
    cells: Iterable[Cell], run: Run, workers: int, cpus: int, gpus: float | None, settings: dict[str, str]
) -> Generator[Cell | End, None, None]:
    """Run the cells as `ptune.research.executors.work` says.

    Args:
        cells: what is to be done, in this order.
        run: the command.
        workers: jobs in the queue and running at the same time.
        cpus: CPU cores of a cell, and torch's threads.
        gpus: GPUs of a cell, 1 at most; None for none.
        settings: options of `sbatch` by their names, such as partition, account or mem; `time` is in minutes.

    Raises:
        InputError: submitit or Slurm is not there, or refuses the settings.
    """
    if gpus not in (None, 0, 1):
        raise InputError(f"--gpus {gpus:g}: a cell is one Slurm task, which trains on one whole GPU; give 1, or 0.")
    submitit: Any = require("submitit", "slurm")
    from ptune.research.slurm_queue import Queue

    submitit.SlurmJob.watcher = Queue(LOOKS)
    shares = {"time": MINUTES, "cpus_per_task": cpus, "gpus_per_node": int(gpus) if gpus else None}
    given = shares | {(own := name.replace("-", "_")): _setting(own, value) for name, value in settings.items()}
    if several := TASKS.intersection(given):
        raise InputError(f"--slurm {min(several)}: a cell is one Slurm task on one node; leave this out.")
    if not (type(given["time"]) is int and given["time"] >= SHORTEST):
        raise InputError(
            f"--slurm time={settings['time']}: give a job's minutes, {SHORTEST} or more, such as time=120."
        )
    waiting = iter(cells)
    running: list[tuple[Cell, Any]] = []  # without a job, where one of an earlier start works on the cell
    try:
        while True:
            while len(running) < workers and (cell := next(waiting, None)):
                submit = _executor(cell, given).submit
                begin(cell)
                if _locked(cell):
                    note(f"{cell.name} still runs, as a job of an earlier start; it is waited for.")
                    running.append((cell, None))
                else:
                    running.append((cell, _submitted(submit, cell, run, cpus)))
                yield cell
            if not running:
                return
            time.sleep(POLL)
            for cell, job in list(running):
                if not (_locked(cell) if job is None else not job.done()):
                    running.remove((cell, job))
                    if job is None and cell.result is None:  # the earlier job has been stopped
                        running.append((cell, _submitted(_executor(cell, given).submit, cell, run, cpus)))
                    else:
                        yield End(cell, "", cell.result) if job is None else _end(job, cell)
    finally:
        for _, job in running:
            if job is not None:
                job.cancel(check=False)  # by SIGTERM: the run writes a checkpoint and stops


def _setting(name: str, text: str) -> Any:
    """What a setting means: a number, a switch or what submitit has a list or a mapping for; else it is its text.

    An account may be called 0042, and a constraint may be [rack1|rack2].
    """
    value = configs.meant(text)
    plain = value is None or isinstance(value, bool) or (isinstance(value, int) and str(value) == text)
    return value if plain or name in ("setup", "additional_parameters") else text


def job(cell: Cell, run: Run, cpus: int) -> End:
    """Run a cell in its job.

    Raises:
        SystemExit: a signal has stopped the run, and Slurm may start the job again; so it has no end yet.
    """
    import torch

    torch.set_num_threads(cpus)
    end = attempt(cell, run)
    if end.stopped:
        raise SystemExit(end.error)
    return end


def _executor(cell: Cell, settings: dict[str, Any]) -> Any:
    """The executor of submitit that starts a cell's job."""
    submitit: Any = require("submitit", "slurm")
    place = hashlib.sha256(str(cell.run_dir.absolute()).encode()).hexdigest()[:12]
    given = {"job_name": f"ptune-{place}", "dependency": "singleton", "additional_parameters": SIGNAL} | settings
    setup = given.get("setup", [])
    given["setup"] = [f"# {printable(cell.line)}", *map(str, setup if isinstance(setup, list) else [setup])]
    minutes = given.pop("time")
    try:
        executor = submitit.AutoExecutor(cell.run_dir / LOGS, cluster=CLUSTER)
        executor.update_parameters(timeout_min=minutes, **{f"slurm_{name}": value for name, value in given.items()})
    except (RuntimeError, NameError, AssertionError, TypeError, ValueError) as error:
        raise InputError(f"--on slurm: {first_line(error)}.") from error
    return executor


def _submitted(submit: Any, cell: Cell, run: Run, cpus: int) -> Any:
    from submitit.core.utils import UncompletedJobError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, which the error holds, too
            return submit(job, cell, run, cpus)
    except (UncompletedJobError, OSError) as error:
        raise InputError(
            f"--on slurm: sbatch does not take the job ({first_line(error)}); see its --slurm settings."
        ) from error


def _locked(cell: Cell) -> bool:
    """Whether a process works on a cell."""
    lock = FileLock(cell.run_dir / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _end(job: Any, cell: Cell) -> End:
    """How a job ended."""
    from submitit.core.utils import UncompletedJobError

    try:
        return job.result()
    except UncompletedJobError:
        error = f"its Slurm job {job.job_id} ended without a result; {job.paths.stderr} may say why."
        record(cell, error)
        return End(cell, error)
