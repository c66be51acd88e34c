"""The one kind of error a user's input can cause: a sentence that names the key, the value and the fix."""

import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import final

TEXT, WORD = 2000, 400
"""Largest number of letters in a message, and in a word of it: a path may be long, a value may be a whole file."""


def printable(text: object) -> str:
    """A text as one line that a terminal shows as it is and does not obey.

    Names of files, values and rows come from others: control characters, line breaks and marks that turn the direction
    of writing are escaped, and the middle of what is too long is left out.
    """
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in _cut(str(text), TEXT)
    )
    return _cut(re.sub(rf"\S{{{WORD},}}", lambda word: _cut(word[0], WORD), shown), TEXT)


def _cut(text: str, most: int) -> str:
    """A text with its middle left out where it has more than `most` letters."""
    if len(text) <= most:
        return text
    end = most // 4
    left_out = f" ... {len(text) - most:,} letters ... "
    return text[: most - end - len(left_out)] + left_out + text[len(text) - end :]


def note(text: object) -> None:
    """Say on stderr what is otherwise than the user may think."""
    print(f"note: {printable(text)}", file=sys.stderr)


class InputError(ValueError):
    """A mistake in the input, told in one sentence; the command line prints it and exits with code 2.

    Args:
        message: the sentence; it may quote anything, see `printable`.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


@final
class TrainingError(RuntimeError):
    """Training that cannot go on, told in one sentence; the command line prints it and exits with code 1."""


def nearest(value: str, choices: Iterable[str]) -> str:
    """The end of an error sentence: the nearest of `choices` to `value`, or all of them where none is near.

    Letters count alike in either case, and underscores and hyphens alike: `ptuningv2` is near `PTuningV2`.
    """
    choices = sorted(choices)
    near = _near(value, choices)
    return f"did you mean {near!r}?" if near else f"choose one of: {', '.join(choices)}."


def absent(path: str | Path, fix: str) -> str:
    """The sentence about a path that does not exist: with the one of a name near it that does, or else with `fix`."""
    return f"{path}: does not exist; {near_path(path) or fix}"


def near_path(path: str | Path) -> str:
    """The end of a sentence about a path that does not exist: the nearest one that does; "" where none is near.

    A mistake may stand in any part: of `rums/x` the nearest is `runs/x`, or `runs` where that holds no `x`.
    """
    path = Path(path)
    try:
        first = next(part for part in (path, *path.parents) if part.parent.exists())  # the first one that is not there
        near = _near(first.name, sorted(os.listdir(first.parent)))
        found = first.parent / near
        whole = found / path.relative_to(first)
        return f"did you mean {str(whole if whole.exists() else found)!r}?" if near else ""
    except (OSError, ValueError):  # a folder that may not be read, a name that no system takes
        return ""


def _near(value: str, choices: Iterable[str]) -> str:
    """The choice that is near to `value`, or ""."""
    plain = {_plain(choice): choice for choice in choices}
    near = get_close_matches(_plain(value), plain, n=1, cutoff=0.6)
    return plain[near[0]] if near else ""


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
