"""Tests of paired answers, and the interval of a difference of means over seeds.

Methods answer the same rows, and each is trained with a few seeds, so a difference of two means has two sources of
chance: the rows that were drawn for the split, and the seeds. `difference` takes both into account.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import stats

RESAMPLES = 2000
"""Resamples of the rows."""
LEVEL = 0.95
"""Level of the intervals; a p-value below 1 - LEVEL, after Holm's correction, shows a difference."""
EXACT = 25
"""Number of discordant rows from which McNemar's test uses the chi-square distribution."""


def mcnemar(first: int, second: int) -> float:
    """The two-sided p-value of McNemar's test (1947).

    It is the exact binomial one below 25 discordant rows, else the chi-square with Edwards' continuity correction.

    Args:
        first: number of rows that only the first method answers right.
        second: number of rows that only the second one answers right.
    """
    total = first + second
    if total < EXACT:
        return float(stats.binomtest(first, total).pvalue) if total else 1.0
    return float(stats.chi2.sf(max(0, abs(first - second) - 1) ** 2 / total, 1))


def holm(values: Sequence[float]) -> list[float]:
    """P-values with Holm's correction (1979) for all of them: the chance of any false difference is bounded."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def weights(units: Int[ndarray, " rows"], resamples: int, seed: int) -> Int[ndarray, "b rows"]:
    """How many times each row is in each of b resamples of the units, drawn with replacement.

    Args:
        units: number of the unit of each row, from 0.
        resamples: their number b.
        seed: of the generator.
    """
    count = int(units.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    places = drawn + count * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count)[:, units]


@final
@dataclass(frozen=True)
class Difference:
    """A difference of two means over seeds."""

    value: float
    error: float
    """Its standard error."""
    freedom: float
    """Degrees of freedom of the t distribution that its interval is of; infinite without any variance."""
    p: float
    """Two-sided; NaN where there is a difference but no variance to compare it with."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its interval at LEVEL."""
        half = self.error * float(stats.t.ppf((1 + LEVEL) / 2, self.freedom)) if self.error else 0.0
        return self.value - half, self.value + half


def difference(
    own: Float[ndarray, " s"], reference: Float[ndarray, " r"], resampled: Float[ndarray, "sr b"], units: int
) -> Difference:
    """The mean of a metric over the seeds of one method less that over the seeds of another, with its standard error.

    The variance has three parts. Each method's seeds give their sample variance over their number. The rows give the
    covariance, over resamples that are the same for all runs, between runs of different seeds: that of two runs of one
    method, of two of the other, less twice that of one of each. Between different seeds, what a seed does with single
    rows, which is already part of the first two, is not counted twice. This is the analysis of several readers who read
    the same cases (Obuchowski & Rockette 1995), with readers of each method's own (Hillis 2014) and Satterthwaite's
    degrees of freedom. Those of the seeds are one less than the smaller number of seeds, which is on the safe side
    whichever method varies more (Mickey & Brown 1966); Welch's, which guess that from three seeds, are not. A method
    with one seed adds no variance of seeds: the interval is then that of the rows.

    Drawing both seeds and rows with replacement, and taking percentiles, would be simpler, but three seeds drawn from
    three have two thirds of their variance. Between two samples of one method whose seeds differ, at a level of 5 %,
    that finds a difference in 15 % of comparisons and this in 1 %: `tests/research/test_statistics.py` holds both.
    Seeds are not paired: the same number draws other values for another method, and where it does not, the interval is
    wider than it need be.

    Args:
        own: the metric of each run of the method.
        reference: that of each run of the other one.
        resampled: the metric of all runs, in the same order, on resamples of the rows.
        units: number of units that rows were drawn from.
    """
    value, count = float(own.mean() - reference.mean()), len(own)
    covariance = np.atleast_2d(np.cov(resampled))
    both = covariance[:count, count:].mean()
    rows = max(0.0, _between(covariance[:count, :count]) + _between(covariance[count:, count:]) - 2 * both)
    seeds = _variance(own) + _variance(reference)
    least = min((size for size in (len(own), len(reference)) if size > 1), default=2) - 1
    variance = seeds + rows
    if variance < 1e-24:  # nothing but rounding
        return Difference(value, 0.0, math.inf, math.nan if abs(value) > 1e-12 else 1.0)
    freedom = variance**2 / (seeds**2 / least + rows**2 / max(1, units - 1))
    p = 2 * float(stats.t.sf(abs(value) / math.sqrt(variance), freedom))
    return Difference(value, math.sqrt(variance), freedom, p)


def _variance(values: Float[ndarray, " s"]) -> float:
    """The variance of the mean over seeds; 0 for one seed, whose own is not known."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def _between(covariance: Float[ndarray, "s s"]) -> float:
    """The mean covariance between different seeds; the variance of one seed."""
    count = len(covariance)
    return float((covariance.sum() - covariance.trace()) / (count * (count - 1)) if count > 1 else covariance[0, 0])


def together(differences: Sequence[Difference]) -> Difference:
    """The mean of independent differences, those of several tasks, which are the tasks that it is about."""
    count = len(differences)
    parts = [(each.error / count) ** 2 for each in differences]
    value, variance = sum(each.value for each in differences) / count, sum(parts)
    if not variance:
        return Difference(value, 0.0, math.inf, math.nan if value else 1.0)
    freedom = variance**2 / sum(part**2 / each.freedom for part, each in zip(parts, differences, strict=True))
    return Difference(value, math.sqrt(variance), freedom, 2 * float(stats.t.sf(abs(value) / variance**0.5, freedom)))
