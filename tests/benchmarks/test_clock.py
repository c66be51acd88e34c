"""Rounds, medians, quartiles and ratios."""

import time
from statistics import median

import pytest

from ptune.benchmarks.clock import Spread, interleaved, ratio


def test_a_slow_row_shows_as_slow_and_rows_take_turns():
    calls = []

    def row(name, seconds):
        def call():
            calls.append(name)
            time.sleep(seconds)

        return call

    found = interleaved({"quick": row("quick", 0.001), "slow": row("slow", 0.02)}, rounds=3, repeat=2, warm_up=1)
    assert calls == ["quick", "quick", "slow", "slow"] * 4
    assert {name: len(seconds) for name, seconds in found.items()} == {"quick": 3, "slow": 3}
    assert min(found["slow"]) >= 0.02
    assert ratio(found["quick"], found["slow"]).median > 2


def test_a_ratio_is_the_median_of_those_of_each_round():
    own, other = [1.0, 2.0, 4.0], [3.0, 2.0, 16.0]
    assert ratio(own, other) == Spread(3.0, 2.0, 3.5)
    assert median(other) / median(own) != 3.0


@pytest.mark.parametrize(
    ("values", "spread", "text"),
    [
        ([0.25], Spread(0.25, 0.25, 0.25), "250.0 (250.0 to 250.0)"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], Spread(3.0, 2.0, 4.0), "3,000.0 (2,000.0 to 4,000.0)"),
    ],
)
def test_the_spread_has_the_quartiles(values, spread, text):
    assert Spread.of(values) == spread
    assert Spread.of(values).cell(1000).text == text
