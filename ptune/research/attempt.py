"""One attempt at a cell, in the process that works on it: it goes on where an earlier one stopped, and is recorded."""

import contextlib
import gc
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from types import ModuleType
from typing import Any, final

from filelock import FileLock, Timeout

from ptune.errors import InputError, first_line
from ptune.research.cells import CELL, FAILED, OUTPUT, Cell, is_done

Run = Callable[[list[str]], object]
"""The command of a cell: it takes its words, and raises SystemExit with its exit code where it does not end well. Other
processes find it by its name, in its module."""
LOCK = ".cell.lock"
"""Locked by the process that works on a cell."""
PATIENCE = 120
"""Seconds that another process waits for it. Where a grid was killed, its workers end a moment later; where a machine
has died, the server of a shared file system frees its locks after 90 seconds (NFSv4)."""


@final
@dataclass(frozen=True)
class End:
    """How a cell ended."""

    cell: Cell
    error: str
    """The sentence of its failure; empty where it has a result."""
    result: dict[str, Any] | None = None
    """What its run has measured; None where it has not ended."""
    stopped: bool = False
    """Whether a signal has stopped the run, which goes on when it is attempted again."""


def attempt(cell: Cell, run: Run) -> End:
    """Run a cell, unless it has its result by now."""
    try:
        cell.run_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cell.run_dir / LOCK, timeout=PATIENCE):
            error, code = ("", 0) if is_done(cell) else _run(cell, run)
            return End(cell, error, cell.result, stopped=code > 128)
    except InputError as error:
        return End(cell, str(error))
    except Timeout:
        return End(cell, f"{cell.run_dir} is another grid's work; start this one again when that has ended.")
    except OSError as error:
        return End(cell, f"{cell.run_dir} cannot be written ({error.strerror}); mend that, and start the grid again.")


def _run(cell: Cell, run: Run) -> tuple[str, int]:
    """The sentence of its failure, which is also kept in its directory, and its exit code; "" and 0 without one."""
    begin(cell)
    words = ["--trainer.enable_progress_bar", "false", *cell.words, "--run_dir", str(cell.run_dir)]
    words += ["--ckpt_path", "auto"] if cell.command == "fit" else []
    errors, error, code = io.StringIO(), "", 0
    gc.freeze()  # so that the collection behind the cell looks at what the cell has made alone
    with (
        (cell.run_dir / OUTPUT).open("a", encoding="utf-8", buffering=1) as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        _called_as(["ptune", cell.command, *words]),
    ):
        try:
            run(words)
        except SystemExit as end:
            code = int(end.code or 0)
            error = (errors.getvalue().splitlines() or [f"exit code {code}"])[-1]
        except Exception as mistake:  # an error of ptune's own, or of a library: the next cell may be well
            traceback.print_exc(file=errors)
            code = 1
            error = f"{type(mistake).__name__}: {first_line(mistake)}; its traceback is in {cell.run_dir / OUTPUT}."
        output.write(errors.getvalue())
    gc.collect()  # model, trainer and callbacks refer to each other, and would stay in memory, or on a GPU
    error = error.removeprefix("error: ")
    (cell.run_dir / FAILED).unlink(missing_ok=True)
    if error and code < 128:  # what a signal has stopped is no failure
        record(cell, error)
    return error, code


@contextlib.contextmanager
def _called_as(argv: list[str]) -> Iterator[None]:
    """Let this process look like one of a command line: by it Lightning starts the further processes of a run.

    What such a run leaves, its process group and the variables that say which of its processes this one is, ends with
    it: the next run would wait for processes that have ended.
    """
    import torch.distributed  # which takes seconds, and a worker has it

    before, main = (sys.argv, sys.modules["__main__"]), ModuleType("__main__")
    environment = dict(os.environ)
    main.__spec__ = find_spec("ptune.__main__")
    sys.argv, sys.modules["__main__"] = argv, main
    try:
        yield
    finally:
        sys.argv, sys.modules["__main__"] = before
        os.environ.clear()
        os.environ.update(environment)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def begin(cell: Cell) -> None:
    """Make the directory of a cell, and say there what it is."""
    _write(cell, CELL, {"values": cell.values, "words": cell.words, "digest": cell.digest})


def record(cell: Cell, error: str) -> None:
    """Keep the sentence of a cell's failure in its directory."""
    _write(cell, FAILED, {"error": error, "date": datetime.now(UTC).isoformat(timespec="seconds")})


def _write(cell: Cell, name: str, value: dict[str, Any]) -> None:
    from ptune.tuning.saving import write_whole  # it imports torch, which a grid of finished cells does not need

    cell.run_dir.mkdir(parents=True, exist_ok=True)
    write_whole(cell.run_dir / name, (json.dumps(value, indent=2) + "\n").encode())
