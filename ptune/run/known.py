"""Which options there are, and the error for one that does not exist or has a wrong value."""

from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import final

from ptune.errors import InputError
from ptune.run import catalog
from ptune.tasks.spec import TaskSpec

OWN = ("config", "print_config", "help", "seed_everything", "run_dir", "ckpt_path", "allow_change")
OWN += ("every_n_steps", "every_minutes", "skip_nonfinite", "worker_timeout", "predictions")
OWN += ("cache_frozen", "cache_limit", "compile", "keep_checkpoints")
OWN += ("model", "data", "trainer", "wandb")
"""Options of no class."""


@final
class OptionError(InputError):
    """A wrong option. The parser of a nested class knows only the end of its key; outer ones put theirs before it."""

    def __init__(self, key: str, reason: str = "") -> None:
        self.key, self.reason = key.replace("init_args.", "").replace(".class_path", ""), reason
        super().__init__(f"option --{self.key} {reason or f'does not exist{_near(self.key)}'}")


@cache
def fixed() -> dict[str, catalog.Entry]:
    """The groups that belong to one class."""
    return {
        "trainer": catalog.entry("lightning.pytorch.trainer.trainer", "Trainer"),
        "wandb": catalog.entry("ptune.run.loggers", "Wandb"),
    }


@cache
def known_options() -> dict[str, str]:
    """Dotted names of the options of trainer, methods, data modules and ptune itself, and whose they are."""
    owners: dict[str, list[str]] = {name: ["ptune.fit"] for name in OWN}
    for group in catalog.GROUPS:
        for entry in catalog.classes(group).values():
            for name in entry.options:
                owners.setdefault(f"{group}.{name}", []).append(entry.name)
    for group, entry in fixed().items():
        owners |= {f"{group}.{name}": [entry.name] for name in entry.options}
    owners |= {f"data.task.{field.name}": ["TaskSpec"] for field in fields(TaskSpec)}
    return {name: ", ".join(names) for name, names in owners.items()}


def _near(option: str) -> str:
    options = known_options()
    if option in options:
        return f" here; it belongs to {options[option]}."
    ends = [name for name in options if name.rpartition(".")[2] == option.rpartition(".")[2]]
    if len(ends) == 1:  # --model.decoding is --data.decoding
        return f"; did you mean --{ends[0]}?"
    near = [
        match for name in (option, option.split(".")[0]) for match in get_close_matches(name, options, n=1, cutoff=0.6)
    ]
    return f"; did you mean --{near[0]}?" if near else "; --help lists them all."
