"""The dimensions of a search: ranges of numbers and lists of values, each there always or under conditions."""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from ptune.errors import InputError, nearest
from ptune.research.axes import choices
from ptune.research.cells import guess, is_option, option, text
from ptune.run import catalog
from ptune.run.known import fixed

if TYPE_CHECKING:
    from optuna import Trial

RANGE, LIST = ("low", "high", "log", "int", "step", "when"), ("values", "when")
"""What a dimension that is a mapping may say."""

Conditions = dict[str, tuple[str, ...]]
"""For each dimension that another one depends on, the values with which that other one is there."""


@final
@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    name: str
    low: float
    high: float
    log: bool
    """Drawn evenly by its logarithm."""
    whole: bool
    """Whole numbers."""
    step: float | None
    when: Conditions

    def options(self, value: float) -> dict[str, Any]:
        """The options that a value stands for."""
        return {self.name: value}

    def suggest(self, trial: "Trial") -> float:
        """The trial's value, which Optuna draws where it has none."""
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.name, low, high, step=step, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    @property
    def ends(self) -> list[float]:
        """Its least and its greatest value."""
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]

    @property
    def values(self) -> list[float] | None:
        """All of its values; None where there is no end of them, or where they are drawn by their logarithm."""
        step = self.step or (1 if self.whole else 0)
        if self.log or not step:
            return None
        numbers = [self.low + i * step for i in range(round((self.high - self.low) / step) + 1)]
        return [int(number) for number in numbers] if self.whole else [round(number, 12) for number in numbers]


@final
@dataclass(frozen=True)
class Choice:
    """One of several values, each of which stands for options."""

    name: str
    chosen: dict[str, dict[str, Any]]
    """The options of each value, by its text: its own, and those that come with it."""
    when: Conditions

    def options(self, value: str) -> dict[str, Any]:
        """The options that a value stands for."""
        return self.chosen[value]

    def suggest(self, trial: "Trial") -> str:
        """The trial's value, which Optuna draws where it has none."""
        return trial.suggest_categorical(self.name, self.values)

    @property
    def values(self) -> list[str]:
        """All of its values."""
        return list(self.chosen)

    ends = values


Dimension = Range | Choice


def dimension(start: str, name: str, value: Any, before: dict[str, Dimension]) -> Dimension:
    """A dimension as it stands in a file.

    Args:
        start: the beginning of a sentence about it.
        name: its name: an option, or where all values of a list give options, a name of the user's own.
        value: what YAML makes of it: a list, a mapping of values to options, or a mapping of `RANGE` or `LIST`.
        before: the dimensions above it, which it may depend on.

    Raises:
        InputError: there is a mistake in it.
    """
    parts = value.values() if isinstance(value, dict) else ()
    if not isinstance(value, dict) or ("values" not in value and all(isinstance(part, dict | None) for part in parts)):
        return Choice(name, choices(start, name, value), {})
    keys = LIST if "values" in value else RANGE
    for key in value:
        if key not in keys:
            raise InputError(f"{start}: {key!r} is no part of a dimension, {nearest(str(key), keys)}")
    when = _conditions(start, value.get("when"), before)
    if "values" in value:
        return Choice(name, choices(start, name, value["values"]), when)
    return _range(start, name, value, when)


def _range(start: str, name: str, value: dict[str, Any], when: Conditions) -> Range:
    if not is_option(name):
        raise InputError(f"{start} is no option; {guess(name)}")
    numbers = {key: value[key] for key in ("low", "high", "step") if value.get(key) is not None}
    for key in ("low", "high"):
        if key not in numbers:
            raise InputError(f"{start}: {key} is missing; a range has low and high.")
    for key, number in numbers.items():
        if type(number) not in (int, float) or not math.isfinite(number):
            raise InputError(f"{start}: {key} must be a number, not {number!r}.")
    for key in ("log", "int"):
        if not isinstance(value.get(key, False), bool):
            raise InputError(f"{start}: {key} must be true or false, not {value[key]!r}.")
    low, high, step, log = numbers["low"], numbers["high"], numbers.get("step"), value.get("log", False)
    whole = value["int"] if "int" in value else _is_whole(name, low, high)
    if low >= high:
        raise InputError(f"{start}: low {low} must be less than high {high}.")
    if log and low <= 0:
        raise InputError(f"{start}: low {low} must be greater than 0, because its logarithm is drawn (log: true).")
    if log and step is not None:
        raise InputError(f"{start}: log and step cannot go together; remove one, or list the values.")
    if step is not None and not 0 < step <= high - low:
        raise InputError(f"{start}: step {step} must be greater than 0 and at most high - low, {high - low:g}.")
    if whole and any(number != int(number) for number in numbers.values()):
        raise InputError(f"{start} is a whole number (int), and so must low, high and step be.")
    if step is not None:  # the range ends with its last value
        high = round(low + int((high - low) / step + 1e-9) * step, 12)
    return Range(name, low, high, log, whole, step, when)


def _is_whole(name: str, low: float, high: float) -> bool:
    """Whether an option is a whole number; where its type leaves that open, it is if both ends are."""
    group, _, rest = option(name).partition(".")
    entries = catalog.classes(group).values() if group in catalog.GROUPS else filter(None, [fixed().get(group)])
    types = {word for each in entries if rest in each.options for word in re.findall(r"\w+", each.options[rest].type)}
    types &= {"int", "float"}
    return types == {"int"} or (types != {"float"} and isinstance(low, int) and isinstance(high, int))


def _conditions(start: str, when: Any, before: dict[str, Dimension]) -> Conditions:
    if when is None:
        return {}
    if not isinstance(when, dict) or not when:
        raise InputError(f"{start}: when must be a mapping of a dimension to values, e.g. {{method: PTuningV2}}.")
    found = {}
    for name, values in when.items():
        other = before.get(name)
        if other is None:
            near = nearest(str(name), before) if before else "write that dimension first."
            raise InputError(f"{start}: when names {name!r}, which is no dimension above it; {near}")
        if isinstance(other, Range):
            raise InputError(f"{start}: when names {name!r}, which is a range; a condition is on a list of values.")
        found[name] = tuple(map(text, values if isinstance(values, list) else [values]))
        for value in found[name]:
            if value not in other.chosen:
                raise InputError(f"{start}: when: {value!r} is no {name} of the space, {nearest(value, other.chosen)}")
    return found
