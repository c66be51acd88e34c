"""Commands in processes of their own, forked from a server that has imported the libraries: a start costs no seconds.

What they share with `python -m NAME` is everything but that: ptune is imported anew, with the arguments, working
directory, environment, handlers of signals, exit codes and output of a new process.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import types
from multiprocessing import forkserver
from pathlib import Path

FORKED = multiprocessing.get_context("forkserver")
LIBRARIES = ("torch", "lightning.pytorch.cli", "transformers.models.bert.modeling_bert", "datasets", "peft")
LIBRARIES = ("wandb.sdk.launch", *LIBRARIES)  # behind torch it takes three seconds, which `wandb.init` would take
FORKED.set_forkserver_preload(LIBRARIES)
LIMIT = 120
"""Seconds after which a command is taken for hung."""


def _become(argv: list[str], folder: str, environment: dict[str, str], server: str) -> None:
    """What a new process would be: `python ARGV`, with its output in two files of `folder`."""
    forkserver._forkserver._forkserver_address = server  # for processes that the command starts
    forkserver._forkserver.ensure_running = lambda: None
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f".{os.environ.get('LOCAL_RANK', 0)}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, stream, os.fdopen(number, "r" if number == 0 else "w", 1, closefd=False))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if shared := sys.modules.get("wandb.sdk.data_types._private"):  # its folder is the server's, for all that it forks
        shared.MEDIA_TMP._finalizer.detach()
        os.makedirs(shared.MEDIA_TMP.name, exist_ok=True)  # a worker of a grid has removed it at its end
    import torch
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    torch.set_num_threads(1)
    rank_zero_only.rank = int(os.environ.get("LOCAL_RANK", 0))  # read when it is imported
    try:
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = argv
            sys.path.insert(0, str(Path(argv[0]).resolve().parent))
            runpy.run_path(argv[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()


class Command:
    """A command that runs: `Command(["-m", "ptune.fit", ...], folder).wait()`.

    Args:
        argv: what would follow `python`.
        folder: the working directory.
        environment: all of its environment; this process's by default.
    """

    def __init__(self, argv: list, folder: Path, environment: dict[str, str] | None = None) -> None:
        environment = dict(os.environ if environment is None else environment)
        self.folder, self.rank = Path(folder), environment.get("LOCAL_RANK", "0")
        forkserver.ensure_running()
        server = forkserver._forkserver._forkserver_address
        words = [str(word) for word in argv]
        self.process = FORKED.Process(target=_become, args=(words, str(folder), environment, server))
        self.process.start()

    def wait(self) -> types.SimpleNamespace:
        """Exit code (that of the signal, negative, where one killed it), stdout and stderr."""
        self.process.join(LIMIT)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"no end after {LIMIT} s: {self._read('stdout')}{self._read('stderr')}")
        return types.SimpleNamespace(code=self.process.exitcode, out=self._read("stdout"), err=self._read("stderr"))

    def _read(self, name: str) -> str:
        return (self.folder / f".{self.rank}.{name}").read_text()


def two(argv: list, folder: Path) -> list[types.SimpleNamespace]:
    """The ends of a command in two processes, as a launcher of Lightning's environment starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    commands = [Command(argv, folder, os.environ | world | {"LOCAL_RANK": str(rank)}) for rank in (0, 1)]
    return [command.wait() for command in commands]
