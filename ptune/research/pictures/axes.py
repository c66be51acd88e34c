"""Axes of pictures: where a value stands, and ticks at round numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

ROUND = (1.0, 2.0, 5.0)
"""Round numbers between two powers of ten."""
POWERS = ("", "k", "M", "B", "T")
"""Thousands, millions, billions and trillions, as counts of parameters are written."""


@final
@dataclass(frozen=True)
class Axis:
    """One axis of a picture."""

    place: Callable[[float], float]
    """The coordinate of a value, in units of the picture."""
    ticks: tuple[tuple[float, str], ...]
    """Coordinates of the ticks and what is written there, in the order of the values."""
    gap: float | None = None
    """Coordinate of a logarithmic axis's break between zero and the other values, if there is a zero."""


def linear(values: Sequence[float], start: float, end: float, most: int = 6) -> Axis:
    """An axis with equal steps, which begins and ends at a tick.

    Args:
        values: all values that are to be shown, at least one.
        start: coordinate of the least value.
        end: coordinate of the greatest value.
        most: greatest number of ticks, at least 3.
    """
    low, high = min(values), max(values)
    whole = all(float(value).is_integer() for value in values)
    if low == high:
        space = 1.0 if whole else abs(low) / 100 or 1.0
        low, high = low - space, high + space
    step = next(
        step for step in _steps(high - low) if _tick_count(low, high, step) <= most and (step >= 1 or not whole)
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)

    def place(value: float) -> float:
        return start + (value / step - first) / (last - first) * (end - start)

    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(place, tuple((place(i * step), f"{i * step:,.{decimals}f}") for i in range(first, last + 1)))


def _steps(span: float) -> list[float]:
    """Round steps in rising order, from a hundredth of a span."""
    power = math.floor(math.log10(span)) - 2
    return [digit * 10.0**exponent for exponent in range(power, power + 4) for digit in ROUND]


def _tick_count(low: float, high: float, step: float) -> int:
    return math.ceil(high / step - 1e-9) - math.floor(low / step + 1e-9) + 1


def logarithmic(values: Sequence[float], start: float, end: float, most: int = 6) -> Axis:
    """An axis with equal ratios; a zero among the values stands before a break, at the axis's start.

    Args:
        values: all values that are to be shown, none of them below 0.
        start: coordinate of the least value.
        end: coordinate of the greatest value.
        most: greatest number of ticks, a zero's not counted.
    """
    if min(values) < 0:
        raise ValueError(f"a logarithmic axis has no place for {min(values)}")
    above = [value for value in values if value > 0] or [1.0]
    zero = min(values) == 0
    begin = start + (end - start) * 0.16 if zero else start
    low, high = _round_down(min(above)), _round_up(max(above))
    if low == high:
        high = _round_up(high * 1.5)
    span = math.log10(high / low)

    def place(value: float) -> float:
        return begin + math.log10(value / low) / span * (end - begin) if value > 0 else start + (begin - start) * 0.25

    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = math.ceil((last - first + 1) / most)
    ticks = [10.0**power for power in range(first, last + 1) if power % every == 0]
    if last - first < 1:
        ticks = [digit * 10.0**power for power in range(first - 1, last + 2) for digit in ROUND]
    shown = [value for value in ticks if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    named = tuple((place(value), short(value)) for value in shown)
    return Axis(place, ((place(0), "0"), *named), begin - (begin - start) * 0.35) if zero else Axis(place, named)


def _round_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(digit for digit in ROUND if digit * power <= value * (1 + 1e-9))


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * min(digit for digit in (*ROUND, 10.0) if digit * power >= value * (1 - 1e-9))


def short(value: float) -> str:
    """A positive number in few letters: 0.05, 200, 92.9k, 22.6M."""
    power = 0
    while value >= 999.5 and power < len(POWERS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g}{POWERS[power]}"


def named(names: Sequence[str], start: float, end: float) -> Axis:
    """An axis of names at equal distances; the value of a name is its number, from 0."""
    step = (end - start) / len(names)

    def place(value: float) -> float:
        return start + (value + 0.5) * step

    return Axis(place, tuple((place(i), name) for i, name in enumerate(names)))
