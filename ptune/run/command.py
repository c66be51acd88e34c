"""The frame of every command: exit codes, errors of one sentence, usage and help."""

import argparse
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import TextWrapper
from types import FrameType
from typing import Any, NoReturn, TypeVar, final

from ptune.errors import InputError, TrainingError, nearest, printable
from ptune.run import catalog
from ptune.run.arguments import prepare
from ptune.run.given import check_path

Result = dict[str, Any]
"""What `result.json` holds, or `evaluation.json`."""

EXAMPLES = {
    "fit": (
        "ptune fit --config experiments/quickstart.yaml",
        "ptune fit --model PTuningV2 --model.backbone roberta-large --data Classification --data.task rte",
        "ptune fit --config runs/x/config.yaml --run_dir runs/x --ckpt_path auto",
    ),
    "evaluate": (
        "ptune evaluate runs/x",
        "ptune evaluate runs/x --ckpt_path last --data.path other/ --run_dir runs/x-other",
        "ptune evaluate --model ManualPrompt --model.backbone gpt2 --data Classification --data.task sst2 "
        "--data.template task",
    ),
}
"""Three command lines of each command that takes a model and data."""

HELP = {
    "config": "YAML file with options; later files and options win. Options of another method are left out.",
    "run_dir": "Directory of the run; if left out, runs/<task>/<method>/<backbone>-s<seed>-<hash>, where the hash is "
    "that of everything that decides the numbers: with another learning rate it is another run.",
    "ckpt_path": "Checkpoint to go on from (fit) or to evaluate: a file, or `last` for the last one in run_dir; `auto` "
    "goes on from the last one, or begins where there is none.",
    "allow_change": "Options, separated by commas, that a resumed run may have otherwise than it was stopped, such as "
    "`lr,weight_decay`; any other difference is refused.",
    "every_n_steps": "Write last.ckpt every so many steps, too; 0 writes it at the end of every epoch (default: 0).",
    "every_minutes": "Write last.ckpt every so many minutes, too, at the end of a step; 0 does not (default: 0).",
    "skip_nonfinite": "Leave out up to so many steps whose loss or gradient is NaN or infinite; 0 stops at the first "
    "one (default: 0).",
    "worker_timeout": "Seconds that one of several processes waits for the others before the run ends (default: 600).",
    "cache_frozen": "Compute the layers below all that is trained (LinearProbe, `model.layers: last:N`) once a row "
    "and keep the result on disk for all epochs and runs; `auto` where that can be done (default: false).",
    "cache_limit": "Largest size in GiB of what `cache_frozen` keeps (default: 4).",
    "compile": "Compile the forward and backward pass with torch.compile; the run says how long that takes and after "
    "how many steps it pays. Dropout is drawn and numbers are rounded otherwise than without, so it is another run. "
    "On a CPU it needs a C++ compiler (default: false).",
    "predictions": "Write what is answered to each evaluated row into run_dir/predictions (default: true).",
    "keep_checkpoints": "Keep best.ckpt and last.ckpt of a finished run; `false` leaves prompts.safetensors, from "
    "which it is loaded, evaluated and exported, and saves twelve bytes or more a trained number (default: true).",
    "seed_everything": "Seed of everything that is drawn (default: 11).",
    "print_config": "Print the resolved configuration and exit; `=skip_default` prints what differs from the defaults.",
}
"""What the options of no class are for."""

TRUST = "let the run directory name classes that are not ptune's: their code is executed"
"""What `--trust` is for, in commands that read a run directory."""

Raised = TypeVar("Raised", bound=BaseException)


@final
class Stopped(BaseException):
    """A signal has ended the work. It is no `Exception`: code that catches those would take it for an error of its own.

    Args:
        number: the signal.
        where: where a run was stopped, and how it goes on.
    """

    def __init__(self, number: int, where: str = "") -> None:
        self.number = number
        self.code = 128 + number
        """The exit code, as shells have it."""
        super().__init__(f"stopped by {signal.Signals(number).name}{where and f' {where}'}.")


SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if name in signal.Signals.__members__)
"""What ends the work; SIGUSR1 is what clusters send before a time limit, and not on Windows."""


def stop_now(number: int, frame: FrameType | None) -> None:
    """Handler that ends whatever is being done."""
    raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGUSR1 end the work inside with `Stopped`; the handlers before are restored.

    An error that is raised while `Stopped` is on its way is left out, such as Lightning's when it cleans up a loader
    that had only begun: the work ends as the signal says.
    """
    if threading.current_thread() is not threading.main_thread():  # only this one may set handlers
        yield
        return
    before = {number: signal.signal(number, stop_now) for number in SIGNALS}
    try:
        yield
    except Exception as error:
        if stopped := _behind(error, Stopped):
            raise stopped from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(
    name: str,
    purpose: str,
    run: Callable[[list[str]], Result | None],
    args: list[str],
    words: Callable[[list[str]], list[str]] = prepare,
) -> Result | None:
    """A command that takes a model and data: run it, or print its help or usage.

    Args:
        name: name of the command.
        purpose: what it does.
        run: does it, with the checked command line, and returns what it has measured.
        args: the command line.
        words: checks it.

    Returns:
        What was measured; None where nothing was: for help, and for a trial by `fast_dev_run`.

    Raises:
        SystemExit: with the exit code of `guarded`, where the command does not end well.
    """
    if not args:
        print(f"{purpose}\n\n{usage(name)}\n\nptune {name} --help lists the options.", file=sys.stderr)
        raise SystemExit(2)
    measured: list[Result | None] = []

    def work() -> None:
        text = explained(name, purpose, args)
        if text is None:
            measured.append(run(["--help"] if "--help=all" in args else words(args)))
        else:
            print(text)

    if code := guarded(work):
        raise SystemExit(code)
    return measured[0] if measured else None


def guarded(work: Callable[[], object]) -> int:
    """Do the work; the exit code is 0, 2 for a mistake in the input, or 128 and the number of a signal.

    A mistake becomes one sentence on stderr, and so does training that cannot go on, with exit code 1. Any other error
    is ptune's own and passes through with its traceback.
    """
    try:
        with stoppable():
            work()
    except (Stopped, KeyboardInterrupt) as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        print(printable(stopped), file=sys.stderr)
        return stopped.code
    except TrainingError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe, such as `| head`, has closed it
        sys.stderr.close()
        return 0
    except (ValueError, ImportError) as error:
        mistake = root(error)  # jsonargparse and lightning wrap what a constructor raises
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


def printed(text: Callable[[], str]) -> int:
    """Print what `text` returns, guarded; the exit code."""
    return guarded(lambda: print(text()))


def root(error: BaseException | None) -> InputError | None:
    """The InputError that another error was raised from, if there is one."""
    return _behind(error, InputError)


def _behind(error: BaseException | None, kind: type[Raised]) -> Raised | None:
    """The first error of a kind among an error and those that it was raised from."""
    seen = set()
    while error is not None and not isinstance(error, kind) and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error if isinstance(error, kind) else None


@final
class Arguments(argparse.ArgumentParser):
    """Argparse with errors of one sentence, raised as InputError; an option is written in full, as those of fit are."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found; for an option that does not exist, with the nearest one that does."""
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            raise InputError(f"option {unknown[1]} does not exist; {nearest(unknown[1], self._option_string_actions)}")
        raise InputError(f"{message}; {' '.join(self.format_usage().split())}")


def place(text: str) -> Path:
    """A path among the arguments of a command; an error of argparse's for what no system takes as one."""
    try:
        check_path("path", text)
    except InputError as error:  # of another ValueError argparse leaves the sentence out
        raise argparse.ArgumentTypeError(str(error).removesuffix(".")) from error
    return Path(text).expanduser()


def explained(name: str, purpose: str, args: list[str]) -> str | None:
    """What a command that takes a model and data prints instead of running; None where it is to run.

    `--help` gives ptune's own options, `--model.help` the methods, `--model.help NAME` the options of one; without
    arguments there is a usage with examples. `--help=all` is Lightning's own help and is left to its parser.
    """
    for group in catalog.GROUPS:
        for word, value in zip(args, [*args[1:], ""], strict=False):
            option, _, inline = word.partition("=")
            if option == f"--{group}.help":
                found = catalog.classes(group).get((inline or value).rpartition(".")[2])
                return class_help(group, found) if found else listed(group)
    if "--help" in args or "-h" in args:
        return help_text(name, purpose)
    return None


def usage(name: str) -> str:
    """The examples of a command."""
    lines = "\n".join(f"  {example}" for example in EXAMPLES[name])
    of_run = "       ptune evaluate RUN_DIR [--OPTION VALUE] [--trust]\n" * (name == "evaluate")
    options = "[--config FILE] --model METHOD --data FORMAT --data.task TASK [--OPTION VALUE]"
    return f"usage: ptune {name} {options}\n{of_run}{lines}"


def help_text(name: str, purpose: str) -> str:
    """Ptune's own options of a command; Lightning's are folded away."""
    wandb = catalog.entry("ptune.run.loggers", "Wandb").options.values()
    sections = {
        "Options": _rows(HELP | {f"wandb.{option.name}": _described(option) for option in wandb}),
        "--model METHOD (ptune methods; --model.help METHOD lists its options)": _rows(_summaries("model"), dashes=""),
        "--data FORMAT (ptune tasks; --data.help FORMAT lists its options)": _rows(_summaries("data"), dashes=""),
        "--trainer.OPTION": "  Lightning's Trainer: max_epochs, max_steps, devices, precision, callbacks, ...\n"
        "  --help=all lists them with all others.",
    }
    parts = [f"{purpose}\n\n{usage(name)}", *(f"{title}:\n{text}" for title, text in sections.items())]
    return "\n\n".join(parts)


def listed(group: str) -> str:
    """The classes of `model` or `data`, with their first lines."""
    what = "method" if group == "model" else "format"
    return f"{_rows(_summaries(group), dashes='')}\n\n--{group}.help NAME lists the options of a {what}."


def class_help(group: str, entry: catalog.Entry) -> str:
    """The options of one class."""
    options = {f"{group}.{option.name}": _described(option) for option in entry.options.values()}
    linked = {"model.head", "data.slots", "data.backbone"}  # decided by a link
    return f"--{group} {entry.name}: {entry.summary}\n\n{_rows({k: v for k, v in options.items() if k not in linked})}"


def _summaries(group: str) -> dict[str, str]:
    return {name: entry.summary for name, entry in catalog.classes(group).items()}


def _described(option: catalog.Option) -> str:
    default = "" if option.default is None else f", default: {option.default or repr(option.default)}"
    type_ = " | ".join(option.choices) if option.choices else option.type
    return f"{option.help} (type: {type_}{default})"


def _rows(rows: dict[str, str], dashes: str = "--") -> str:
    width = max(map(len, rows)) + len(dashes) + 4
    layout = TextWrapper(118, subsequent_indent=" " * width, break_on_hyphens=False)
    lines = []
    for name, text in rows.items():
        layout.initial_indent = f"  {dashes + name:<{width - 2}}"
        lines.append(layout.fill(text))
    return "\n".join(lines)
