"""Values of the options of `ptune.bench`, checked before anything is measured."""

import argparse
from collections.abc import Callable, Iterable, Sequence

from ptune.backbone.pretrained import describe
from ptune.errors import InputError, nearest


def at_least(smallest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, for argparse."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {smallest}")
        return int(text)

    return number


def chosen(only: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that `--only` gives, in their own order; all of them where it gives none.

    Raises:
        InputError: one of them does not exist.
    """
    names = list(names)
    for name in only:
        if name not in names:
            raise InputError(f"--only {name}: there is no such row; {nearest(name, names)}")
    return [name for name in names if name in only or not only]


def require_room(options: argparse.Namespace, tokens: int) -> None:
    """Raise InputError where so many tokens and a prompt do not fit into the positions of `--backbone`."""
    positions = describe(options.backbone).positions
    if positions and tokens + options.length > positions:
        raise InputError(
            f"--backbone {options.backbone}: its {positions} positions have no room for {tokens} tokens and a prompt "
            f"of {options.length} (PEFT's needs some, too); choose fewer or another one."
        )
