"""Time, measured side by side: rounds go over all rows in turn, so that what else the machine does hits all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import final

import torch

from ptune.research.tables import Cell


@final
@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and their quartiles."""

    median: float
    low: float
    """The first quartile."""
    high: float
    """The third quartile."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one number."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(median(values), low, high)

    def cell(self, scale: float = 1.0, digits: int = 1) -> Cell:
        """The median, with the quartiles in brackets, all multiplied by `scale`."""
        middle, low, high = (f"{scale * value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return Cell(f"{middle} ({low} to {high})", self.median)


def ratio(own: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times as long as a row another one took, round by round: above 1, the row is the faster one.

    Args:
        own: the row's seconds, one number a round.
        other: the other row's, of the same rounds.
    """
    return Spread.of([theirs / ours for ours, theirs in zip(own, other, strict=True)])


def interleaved(
    work: Mapping[str, Callable[[], object]], rounds: int, repeat: int = 1, warm_up: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of one call of each row, by its name: a number a round.

    Args:
        work: what is measured of each row.
        rounds: how many rounds are counted.
        repeat: calls of a row in a round; the number is their mean.
        warm_up: rounds that come first and are not counted.
        device: `cuda` waits for the GPU before each look at the clock.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm_up + rounds):
        for name, call in work.items():
            start = _now(device)
            for _ in range(repeat):
                call()
            if turn >= warm_up:
                seconds[name].append((_now(device) - start) / repeat)
    return seconds


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
