"""The one kind of error a user's input can cause: a sentence that names the key, the value and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType


class InputError(ValueError):
    """A mistake in the input, told in one sentence; the command line prints it and exits with code 2."""


def nearest(value: str, choices: Iterable[str]) -> str:
    """The end of an error sentence: the nearest of `choices` to `value`, or all of them where none is near."""
    choices = sorted(choices)
    near = get_close_matches(value, choices, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(choices)}."


def require(package: str, extra: str, instead: str = "") -> ModuleType:
    """Import `package`; where it is not installed, an InputError names the extra of ptune that brings it.

    `instead` says what else the user may do.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f'package {error.name!r} is not installed; pip install "ptune[{extra}]"{instead}.') from error
