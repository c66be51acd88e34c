"""Command line errors: whatever jsonargparse finds wrong becomes one sentence that names the option and the fix."""

import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader
from lightning.pytorch.cli import LightningArgumentParser

from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
from ptune.data.fill import Fill
from ptune.data.qa import SpanQA
from ptune.data.tagging import Tagging
from ptune.errors import InputError, nearest
from ptune.methods.bitfit import BitFit
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.lora import PEFT, LoRA
from ptune.methods.manual import ManualPrompt
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.tasks.spec import TaskSpec

# Short class names on the command line are those imported here.
CLASSES = {
    "model": (PTuningV2, PTuning, PromptTuning, FineTuning, LinearProbe, ManualPrompt, LoRA, PEFT, BitFit),
    "data": (Classification, MultipleChoice, SpanQA, Tagging, Fill),
}

LINKED = {
    "model.head": "the task decides it (--data.task)",
    "data.slots": "the method decides it (--model)",
    "data.backbone": "it is the model's (--model.backbone)",
}
"""Options that a link would overwrite without a word, and what decides them."""


class OptionError(InputError):
    """A wrong option. The parser of a nested class knows only the end of its key; outer ones put theirs before it."""

    def __init__(self, key: str, reason: str = "") -> None:
        self.key, self.reason = key.replace("init_args.", ""), reason
        super().__init__(f"option --{self.key} {reason or f'does not exist{_near(self.key)}'}")


class Parser(LightningArgumentParser):
    """Lightning's parser with errors of one sentence, raised as InputError."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise the root of the matter: our own error if a constructor raised one, else what the parser found."""
        inner = root(ex)
        outer = re.match(r'(?:Problem with )?[Pp]arser key "([\w.]+)"', message)
        if isinstance(inner, OptionError) and outer:
            raise OptionError(f"{outer[1]}.{inner.key}", inner.reason) from ex
        if inner is not None:
            raise inner from ex
        unknown = re.search(
            r"(?:Option|Key) '([\w.]+)' is not accepted|[Uu]nrecognized arguments?: --([\w.-]+)", message
        )
        if unknown:
            raise OptionError(unknown[1] or unknown[2]) from ex
        grouped = re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        if grouped:
            raise OptionError(f"{grouped[1]}.{grouped[2]}") from ex
        missing = re.search(r"arguments are required: ([\w.]+)", message)
        if missing:
            fix = _choices(missing[1]) if missing[1] in CLASSES else "python -m ptune.tasks lists the tasks."
            raise OptionError(missing[1], f"is missing; {fix}") from ex
        if not outer:
            raise InputError(" ".join(message.split())) from ex
        lines = [line for line in (line.strip(" -") for line in message[outer.end() + 1 :].splitlines()) if line]
        key, value = outer[1], re.search(r"(?:Given|Got) value: (.*)", message)
        nested = re.search(r"^ *- option --([\w.]+) (.*)", message, re.MULTILINE)  # found by one type of a union
        if nested:
            raise OptionError(f"{key}.{nested[1]}", "" if nested[2].startswith("does not") else nested[2]) from ex
        if key in CLASSES and value:
            before = re.match(r"NestedArg\(key='([\w.]+)'", value[1])
            if before:
                raise OptionError(key, f"is missing before --{key}.{before[1]}; {_choices(key)}") from ex
            raise OptionError(key, f"{value[1]!r}: {nearest(value[1], [cls.__name__ for cls in CLASSES[key]])}") from ex
        expected = [line for line in lines if line.startswith(("Expected", "Literal"))]
        reason = "; ".join(
            dict.fromkeys(re.sub(r"\. Got value: .*|<class '|'>|typing\.", "", line) for line in expected)
        )
        raise OptionError(key, f"{value[1]!r}: {reason or lines[-1]}." if value else ": " + " ".join(lines)) from ex


def plain_words() -> None:
    """Let `no`, `yes`, `on`, `off` be words, as in YAML 1.2: `labels: [no, yes]` are names, not truth values."""
    loader, boolean = get_yaml_default_loader(), "tag:yaml.org,2002:bool"
    for letter, rules in loader.yaml_implicit_resolvers.items():
        loader.yaml_implicit_resolvers[letter] = [rule for rule in rules if rule[0] != boolean]
    loader.add_implicit_resolver(boolean, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _choices(key: str) -> str:
    return f"choose one of: {', '.join(cls.__name__ for cls in CLASSES[key])}."


def root(error: BaseException | None) -> InputError | None:
    """The InputError that another error was raised from, if there is one."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def _near(option: str) -> str:
    options = known_options()
    if option in options:
        return f" here; it belongs to {options[option]}."
    near = [
        match for name in (option, option.split(".")[0]) for match in get_close_matches(name, options, n=1, cutoff=0.6)
    ]
    return f"; did you mean --{near[0]}?" if near else "; --help lists them all."


@cache
def known_options() -> dict[str, str]:
    """Dotted names of the options of trainer, methods, data modules and ptune itself, and whose they are."""
    from lightning.pytorch import Trainer

    from ptune.run.loggers import Wandb

    options: dict[str, str] = dict.fromkeys(
        ("config", "seed_everything", "run_dir", "ckpt_path", "model", "data"), "ptune.fit"
    )
    for name, classes in (CLASSES | {"trainer": (Trainer,), "wandb": (Wandb,)}).items():
        for cls in classes:
            parser = jsonargparse.ArgumentParser()
            parser.add_class_arguments(cls, name, fail_untyped=False)
            for option in (action.dest for action in parser._actions if "." in action.dest):
                options[option] = f"{options[option]}, {cls.__name__}" if option in options else cls.__name__
    return options | {f"data.task.{field.name}": "TaskSpec" for field in fields(TaskSpec)}


def refuse_linked(args: list[str] | None) -> None:
    """Raise InputError for an option, on the command line or in a --config file, that a link would overwrite."""
    args = sys.argv[1:] if args is None else args
    for key in _given(args):
        for linked, why in LINKED.items():
            if key == linked or key.startswith(linked + "."):
                raise InputError(f"option --{linked} cannot be set: {why}.")


def _given(args: list[str]) -> Iterator[str]:
    for arg, after in zip(args, [*args[1:], ""], strict=True):
        option, _, value = arg.partition("=")
        if option in ("--config", "-c") and (value or after):
            yield from _keys(_config(Path(value or after)))
        elif option.startswith("--"):
            yield option[2:].replace("init_args.", "")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        reason = "is a folder" if path.is_dir() else "does not exist" if not path.exists() else "cannot be read"
        raise InputError(f"--config {path}: {reason}; give a YAML file, such as a run's config.yaml.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {path}: holds no options, such as `model: PTuningV2`.")
    return config


def _keys(config: dict[str, Any]) -> Iterator[str]:
    for group in ("model", "data"):
        section = config.get(group)
        if isinstance(section, dict):
            arguments = section.get("init_args") or section
            yield from (f"{group}.{name}" for name in arguments if isinstance(arguments, dict))
