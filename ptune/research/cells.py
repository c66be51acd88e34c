"""A cell: one run of a grid or of a search. It is a command line of `ptune fit` and a run directory.

A method that trains nothing is run by `ptune evaluate`.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

from ptune.errors import InputError
from ptune.run import catalog, configs
from ptune.run.arguments import prepare
from ptune.run.given import method
from ptune.run.known import OWN, known_options
from ptune.tasks import all_tasks
from ptune.tasks import task as find_task

SHORT = {
    "method": "model",
    "task": "data.task",
    "backbone": "model.backbone",
    "seed": "seed_everything",
}
"""Short names of options."""
OF_ONE_RUN = ("run_dir", "ckpt_path", "allow_change", "print_config", "help")
"""Options that no cell may set: it has its own directory, and goes on from its own checkpoint."""

CELL, FAILED, OUTPUT = "cell.json", "failed.json", "output.txt"
"""Files in a cell's directory beside those of its run: what it is, why it failed, what it printed."""
PRUNED_AT = "pruned at step"
"""How the sentence in `FAILED` begins where a search has stopped the run, which has not failed then."""
RESULTS = {"fit": "result.json", "evaluate": "evaluation.json"}
"""The file in which each command leaves its result."""


@final
@dataclass(frozen=True)
class Cell:
    """One run of a grid or of a search; `cell` makes one."""

    values: dict[str, str]
    """What tells it from the others: for each axis the name of its value."""
    words: tuple[str, ...] = field(repr=False)
    """The words of its command line, but for the run directory."""
    run_dir: Path
    digest: str
    """Of the words and of the files that they name with `--config`."""
    command: str = "fit"
    """The command of ptune that runs it."""

    @property
    def name(self) -> str:
        """Its values in the order of the axes."""
        return " ".join(self.values.values())

    @property
    def line(self) -> str:
        """The command line that is the same run."""
        return shlex.join(["ptune", self.command, *self.words, "--run_dir", str(self.run_dir)])

    @property
    def result_file(self) -> Path:
        """The file that its run ends with."""
        return self.run_dir / RESULTS[self.command]

    @property
    def result(self) -> dict[str, Any] | None:
        """What its run has measured; None where it has not ended. Raises InputError for a torn file."""
        return _read(self.result_file) if self.result_file.exists() else None


def cell(values: dict[str, str], options: Iterable[dict[str, Any]], run_dir: Path) -> Cell:
    """A cell from its options, all of which are checked.

    Args:
        values: what tells it from other cells; its name in what is printed.
        options: mappings of options to values, each name as `option` reads it; of two equal options the later one
            holds. `config` is a file of options or a list of them, which stand before all others. Where the task is one
            of ptune's, `data` need not be given.
        run_dir: directory of its run.

    Raises:
        InputError: an option has a mistake, or is one that a cell cannot set.
    """
    chosen: dict[str, Any] = {}
    configurations: list[str] = []
    for name, value in (item for each in options for item in each.items()):
        if name in OF_ONE_RUN:
            raise InputError(f"option {name!r} cannot be set here: each cell has its own directory and checkpoint.")
        if name == "config":
            configurations += map(str, value if isinstance(value, list) else [value])
        else:
            chosen[option(name)] = value
    task = all_tasks().get(str(chosen.get("data.task")))
    if "data" not in chosen and task is not None:
        chosen["data"] = catalog.reader(task.format)
    elif "data" not in chosen and isinstance(chosen.get("data.task"), str) and not configurations:
        find_task(chosen["data.task"])  # says what is wrong with the name, where that is why the data are missing
    first = [name for name in ("model", "data") if name in chosen]  # options of a class stand behind it
    words = [word for path in configurations for word in ("--config", path)]
    for name in [*first, *(name for name in chosen if name not in first)]:
        words += [f"--{name}", text(chosen[name])]
    prepare([*words, "--run_dir", str(run_dir)])
    texts = [Path(path).expanduser().read_text(encoding="utf-8") for path in configurations]
    digest = hashlib.sha256(json.dumps([words, texts]).encode()).hexdigest()[:16]
    return Cell(values, tuple(words), run_dir, digest, command(words))


def command(words: list[str]) -> str:
    """The command of ptune that runs a checked command line: `fit`, or `evaluate` for a method that trains nothing."""
    return "fit" if catalog.trains(method(words)) else "evaluate"


def option(name: str) -> str:
    """The option that a name stands for; without a dot, and none of ptune's own, it is one of the method."""
    return SHORT.get(name) or (name if "." in name or name in OWN else f"model.{name}")


def gives(name: str, options: Iterable[str]) -> bool:
    """Whether a name is an option that these give, too, under whichever of its names."""
    return is_option(name) and option(name) in map(option, options)


def is_option(name: str) -> bool:
    """Whether a name is by itself an option: all that `option` reads, but for those of the method without `model.`."""
    return name in SHORT or "." in name or name in OWN


def guess(name: str) -> str:
    """The end of a sentence about a name that is no option: the option that may be meant."""
    tails = {known.rpartition(".")[2]: known for known in known_options()} | {short: short for short in SHORT}
    near = get_close_matches(name, tails, n=1)
    return f"did you mean {tails[near[0]]!r}?" if near else "an option is written with its group, such as model.lr."


def is_done(cell: Cell) -> bool:
    """Whether a cell has its result.

    Raises:
        InputError: its directory holds a run with other options.
    """
    kept = cell.run_dir / CELL
    if not kept.exists():
        if (cell.run_dir / "config.yaml").exists():
            raise InputError(f"{cell.run_dir} holds a run that is not of a grid; choose another directory.")
        return False
    found = _read(kept)
    if found.get("digest") != cell.digest:
        words = shlex.join(found.get("words", []))
        raise InputError(
            f"{cell.run_dir} holds a run of cell {cell.name!r} with other options ({words}); choose another directory, "
            "or remove it."
        )
    return cell.result_file.exists()


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no mapping")
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); remove its directory, and start again.") from error
    return found


def text(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, str):
        return value
    return configs.dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
