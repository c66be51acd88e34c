"""The options of a resolved configuration, and which of them say what is computed."""

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ptune.run import catalog, configs

Options = dict[str, Any]
"""Options by their dotted names; `model` and `data` are names of classes."""

OF_THE_COMMAND = ("run_dir", "ckpt_path", "allow_change")
"""Options that say where a run lies and how it goes on."""

FREE = (
    *OF_THE_COMMAND,
    "data.workers",
    "every_minutes",
    "every_n_steps",
    "keep_checkpoints",
    "predictions",
    "skip_nonfinite",
    "trainer.accelerator",  # how many processes it and the strategy give is compared
    "trainer.callbacks",
    "trainer.default_root_dir",
    "trainer.enable_autolog_hparams",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.max_time",
    "trainer.profiler",
    "trainer.strategy",
    "wandb.enabled",
    "wandb.project",
    "wandb.timeout",
    "wandb.samples",
    "worker_timeout",
    "cache_limit",
)
"""Options that may change when a run goes on, because they do not change what a step computes."""
ENDING = ("trainer.callbacks", "trainer.max_time")
"""Those of them that may change when a run ends, and with it the checkpoint that is chosen."""

ALIKE: dict[str, Callable[[Any], Any]] = {
    "trainer.devices": str,
    "trainer.gradient_clip_val": float,
    "compile": lambda on: on or None,
}
"""Options of several types, of which one says all that the others do: `2` and `"2"` processes, norms of `1` and `1.0`,
`compile: false` and null. Limits of batches are not among them, since `1` is one batch there and `1.0` all of them."""
NAMES = ("text", "label", "labels", "choices", "group", "where")
"""Fields of a task that name columns and labels: `1` is the name `"1"`."""

PRECISIONS = {None: "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
"""What Lightning makes of the short names of a precision."""


def precision(options: Options) -> str:
    """The precision by its full name."""
    value = options.get("trainer.precision")
    return PRECISIONS.get(value if value is None else str(value), str(value))


def decisive(options: Options) -> Options:
    """The options that the numbers of a run follow from."""
    return {name: value for name, value in options.items() if name not in FREE or name in ENDING}


def options(config: str) -> Options | None:
    """The options of a resolved configuration, but for those of the command; None where the text holds no whole one."""
    return deepcopy(_options(config))


@lru_cache(maxsize=4)  # a run asks for its own four times, and reading YAML takes 10 ms
def _options(config: str) -> Options | None:
    try:
        found = configs.load(config)
    except yaml.YAMLError:
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(group), dict) for group in catalog.GROUPS):
        return None
    flat: Options = {}
    for section, value in found.items():
        if not isinstance(value, dict):
            flat[section] = value
            continue
        if "class_path" in value:
            flat[section] = str(value["class_path"]).rpartition(".")[2]
        arguments = (value.get("init_args") or {}) if "class_path" in value else value
        flat |= {f"{section}.{name}": argument for name, argument in arguments.items()}
    return {name: _typed(name, value) for name, value in flat.items() if name not in OF_THE_COMMAND}


def _typed(name: str, value: Any) -> Any:
    """A value in the one type that it has in the options of every run."""
    if name == "data.task" and isinstance(value, dict):
        return {field: _named(item) if field in NAMES else item for field, item in value.items()}
    return ALIKE[name](value) if name in ALIKE and value is not None else value


def _named(value: Any) -> Any:
    """The name or the list of names that a field of a task holds, as texts."""
    if isinstance(value, list):
        return [_named(item) for item in value]
    return str(value) if isinstance(value, int) else value


def stored(file: Path) -> Options | None:
    """The options in a `config.yaml`; None where it is not there, or torn."""
    try:
        return options(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
