"""The one kind of error a user's input can cause: a sentence that names the key, the value and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType


class InputError(ValueError):
    """A mistake in the input, told in one sentence; the command line prints it and exits with code 2."""


class TrainingError(RuntimeError):
    """Training that cannot go on, told in one sentence; the command line prints it and exits with code 1."""


def nearest(value: str, choices: Iterable[str]) -> str:
    """The end of an error sentence: the nearest of `choices` to `value`, or all of them where none is near.

    Letters count alike in either case, and underscores and hyphens alike: `ptuningv2` is near `PTuningV2`.
    """
    choices = sorted(choices)
    plain = {_plain(choice): choice for choice in choices}
    near = get_close_matches(_plain(value), plain, n=1, cutoff=0.6)
    return f"did you mean {plain[near[0]]!r}?" if near else f"choose one of: {', '.join(choices)}."


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop; the name of its type where it has no message."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require(package: str, extra: str, instead: str = "") -> ModuleType:
    """Import `package`; where it is not installed, an InputError names the extra of ptune that brings it.

    `instead` says what else the user may do.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f'package {error.name!r} is not installed; pip install "ptune[{extra}]"{instead}.') from error
