"""Checks of a method's arguments that are numbers: a size, a rate, a factor."""

import math

from ptune.errors import InputError

LARGEST = 100_000
"""Largest length of a prompt, and width of what computes one: a thousand times those of the papers."""
LARGEST_RATE = 1e37
"""AdamW divides the learning rate by 1 - 0.9 at its first step, and torch refuses a factor that fp32 cannot hold."""


def check_size(name: str, value: int, least: int = 1) -> None:
    """Raise InputError unless the argument `name` is a size between `least` and what any memory holds."""
    if not least <= value <= LARGEST:
        raise InputError(f"{name}: {value} must be at least {least} and at most {LARGEST}.")


def check_positive(name: str, value: float) -> None:
    """Raise InputError unless the argument `name` is finite and greater than 0; NaN passes no such comparison."""
    if not 0 < value < math.inf:
        raise InputError(f"{name}: {value} must be greater than 0 and finite.")


def check_rate(name: str, value: float) -> None:
    """Raise InputError unless the argument `name` is a learning rate that AdamW can take a step with."""
    check_positive(name, value)
    if value > LARGEST_RATE:
        raise InputError(f"{name}: {value} overflows fp32 in AdamW's step; use {LARGEST_RATE} or less.")


def check_not_negative(name: str, value: float, meaning: str = "") -> None:
    """Raise InputError unless the argument `name` is finite and at least 0; `meaning` says what 0 means."""
    if not 0 <= value < math.inf:
        raise InputError(f"{name}: {value} must be at least 0 and finite{meaning}.")
