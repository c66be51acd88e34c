"""The tests are those of statsmodels and scipy, find nothing where there is nothing, and find what there is."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from ptune.research.statistics import LEVEL, Difference, difference, holm, mcnemar, together, weights


@pytest.mark.parametrize(
    ("first", "second"), [(1, 0), (3, 9), (24, 0), (12, 11), (20, 5), (13, 14), (80, 41), (7, 300)]
)
def test_mcnemar_is_statsmodels(first, second):
    exact = first + second < 25
    expected = reference_mcnemar([[5, first], [second, 7]], exact=exact, correction=True).pvalue
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(expected)


def test_mcnemar_without_a_difference_is_1():
    assert mcnemar(0, 0) == mcnemar(3, 3) == mcnemar(40, 40) == 1.0


def test_holm_is_statsmodels():
    values = [*np.random.default_rng(0).uniform(0, 0.2, 12), 0.01, 0.01, 1.0]
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist())
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_the_rows_of_a_unit_are_drawn_together():
    units = np.array([0, 2, 2, 1, 0, 3])
    drawn = weights(units, 500, seed=1)
    assert (drawn[:, 0] == drawn[:, 4]).all()
    assert (drawn[:, 1] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3, 5]].sum(1) == 4).all()
    assert drawn.mean(0) == pytest.approx(np.ones(6), abs=0.15)
    assert (weights(units, 500, seed=1) == drawn).all()
    assert (weights(units, 500, seed=2) != drawn).any()


def compare(own, reference, resamples=2000):
    """The difference of two methods' mean accuracy, from "s n" of 0 and 1."""
    both = np.concatenate([own, reference])
    drawn = weights(np.arange(both.shape[1]), resamples, seed=0)
    return difference(own.mean(1), reference.mean(1), both @ drawn.T / both.shape[1], both.shape[1])


def test_the_interval_of_one_seed_is_scipys_paired_bootstrap():
    random = np.random.default_rng(3)
    own, reference = ((random.random((1, 800)) < share).astype(float) for share in (0.8, 0.7))
    found = compare(own, reference, 20_000)

    def statistic(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    expected = stats.bootstrap(
        (own[0], reference[0]), statistic, paired=True, method="percentile", n_resamples=20_000, rng=random
    )
    assert found.error == pytest.approx(expected.standard_error, rel=0.02)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.002)
    assert found.p == pytest.approx(stats.ttest_rel(own[0], reference[0]).pvalue, rel=0.1)


def test_without_variance_among_rows_it_is_the_t_test_of_the_seeds_with_the_fewest_degrees_of_freedom():
    own, reference = np.array([0.81, 0.85, 0.83]), np.array([0.80, 0.79, 0.72, 0.77])
    found = difference(own, reference, np.repeat(np.concatenate([own, reference])[:, None], 9, 1), 100)
    expected = stats.ttest_ind(own, reference, equal_var=False)
    assert found.value / found.error == pytest.approx(expected.statistic)
    assert found.freedom == pytest.approx(2)
    assert found.p == pytest.approx(2 * stats.t.sf(expected.statistic, 2))
    assert found.p > expected.pvalue
    half = stats.t.ppf((1 + LEVEL) / 2, 2) * found.error
    assert found.interval == pytest.approx((found.value - half, found.value + half))


def test_without_any_variance_nothing_is_tested():
    same = np.full(3, 0.5)
    assert difference(same, same, np.full((6, 9), 0.5), 10) == Difference(0.0, 0.0, np.inf, 1.0)
    none = difference(same + 0.25, same, np.full((6, 9), 0.5), 10)
    assert np.isnan(none.p)
    assert none.interval == (0.25, 0.25)


def test_the_mean_of_tasks_has_the_variance_of_their_mean():
    found = together([Difference(0.1, 0.03, 4.0, 0.03), Difference(0.2, 0.04, 4.0, 0.01)])
    assert (found.value, found.error) == pytest.approx((0.15, 0.025))
    assert 4 < found.freedom < 8
    alone = together([Difference(0.1, 0.03, 4.0, 0.5)])
    assert (alone.value, alone.error, alone.freedom) == pytest.approx((0.1, 0.03, 4.0))


ROWS, SEEDS = 200, 3


def tables(count, seeds, shift=0.0):
    """Answers of 4 methods to 200 rows in `count` tables: "m s n" of 0 and 1; the first method is better by `shift`.

    Rows differ in difficulty, runs of a method differ by their seed (`seeds` is the standard deviation), and each run
    is right or wrong on single rows for no other reason than its seed.
    """
    random = np.random.default_rng(5)
    for _ in range(count):
        ability = random.normal(1, seeds, (4, SEEDS, 1)) + np.array([shift, 0, 0, 0])[:, None, None]
        yield (ability + random.normal(0, 1, ROWS) + random.normal(0, 0.5, (4, SEEDS, ROWS)) > 0).astype(float)


def least(methods):
    """The smallest p-value of the first three methods against the last, after Holm's correction."""
    return min(holm([compare(own, methods[-1], 300).p for own in methods[:-1]]))


@pytest.mark.parametrize("seeds", [0.0, 0.1, 0.3])
def test_no_difference_is_found_in_tables_of_one_method_with_other_seeds(seeds):
    found = [least(methods) < 1 - LEVEL for methods in tables(200, seeds)]
    assert np.mean(found) <= 0.05


def test_a_difference_is_found():
    assert np.mean([least(methods) < 1 - LEVEL for methods in tables(50, 0.1, shift=1.0)]) > 0.8


def test_a_comparison_keeps_its_level_which_percentiles_of_seeds_and_rows_do_not():
    random = np.random.default_rng(0)
    drawn = weights(np.arange(ROWS), 300, seed=0)
    kept, percentiles = [], []
    for methods in tables(150, 0.3):
        for own, other in (methods[:2], methods[2:]):
            kept.append(compare(own, other, 300).p < 1 - LEVEL)
            means = [
                np.take_along_axis(drawn @ each.T / ROWS, random.integers(0, SEEDS, (300, SEEDS)), 1).mean(1)
                for each in (own, other)
            ]
            low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
            percentiles.append(low > 0 or high < 0)
    assert np.mean(kept) == pytest.approx(0.01, abs=0.01)
    assert np.mean(percentiles) == pytest.approx(0.15, abs=0.03)
