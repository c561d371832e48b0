"""Intervals against values worked out by hand or by another route."""

from __future__ import annotations

import itertools
import math
from statistics import median

import pytest
from vlpbench.reports import stats


def test_median_quartiles_and_n_are_those_of_the_samples():
    found = stats.timing([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.value, found.q1, found.q3, found.n) == (3.0, 2.0, 4.0, 5)
    assert found.method == "bootstrap over samples"


def test_one_sample_has_no_interval():
    assert stats.timing([0.5]) == stats.Estimate(value=0.5)
    assert stats.timing([0.5]).interval is None


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        stats.timing([])


def test_equal_samples_have_an_interval_of_no_width():
    assert stats.timing([2.0] * 9).interval == (2.0, 2.0)


def test_bootstrap_over_rounds_agrees_with_all_draws_written_out():
    values, rounds = [1.0, 1.2, 2.0, 2.2, 2.4, 3.0, 3.1], [2, 3, 2]
    parts = [values[:2], values[2:5], values[5:]]
    draws = sorted(median(itertools.chain(*draw)) for draw in itertools.product(parts, repeat=3))
    found = stats.timing(values, rounds)
    assert found.method == "bootstrap over 3 rounds"
    # 27 equally likely draws: the outermost of each side has a share of 1/27 > 2.5 %, so the ends are those draws.
    assert found.interval == pytest.approx((draws[0], draws[-1]))


def test_rounds_that_do_not_add_up_or_are_too_few_are_not_used():
    assert stats.timing([1.0, 2.0, 3.0, 4.0], [2, 2]).method == "bootstrap over samples"
    assert stats.timing([1.0, 2.0, 3.0, 4.0], [1, 1, 1]).method == "bootstrap over samples"


def test_rounds_widen_the_interval_where_they_differ():
    values = [1.0, 1.01, 1.02] * 10 + [2.0, 2.01, 2.02] * 10 + [3.0, 3.01, 3.02] * 10
    by_rounds, by_samples = stats.timing(values, [30, 30, 30]), stats.timing(values)
    assert by_rounds.interval == pytest.approx((1.01, 3.01))
    assert by_samples.interval is not None
    assert by_samples.interval[0] > 1.5


def test_interval_is_the_same_every_time_and_depends_on_the_data():
    values = [1.0, 1.3, 1.1, 1.7, 1.2, 1.4, 1.9]
    assert stats.timing(values) == stats.timing(values)
    assert stats.timing(values) == stats.timing(values[::-1])
    assert stats.timing([v + 0.5 for v in values]).low != stats.timing(values).low


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + z2/20) / (1 + z2/10), half z * sqrt(0.016 + z2/400) / (1 + z2/10), z2 = 3.841459
    found = stats.rate(80.0, 10)
    assert found.interval == pytest.approx((49.0162, 94.3318), abs=1e-3)
    assert stats.rate(0.0, 10).interval == pytest.approx((0.0, 27.7533), abs=1e-3)
    assert stats.rate(100.0, 10).interval == pytest.approx((72.2467, 100.0), abs=1e-3)


@pytest.mark.parametrize(("percent", "n"), [(-1.0, 10), (100.1, 10), (50.0, 0)])
def test_what_is_no_rate_is_refused(percent: float, n: int):
    with pytest.raises(ValueError, match="a rate needs"):
        stats.rate(percent, n)


def test_newcombe_by_its_published_example():
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, case (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339
    found = stats.rate_difference(stats.rate(80.0, 70), stats.rate(60.0, 80))
    assert found.value == pytest.approx(20.0)
    assert found.interval == pytest.approx((5.24, 33.39), abs=0.01)
    assert stats.apart(found, 0)


def test_mean_of_rates_by_hand():
    # Wilson of 80 % of 10 is 49.0162 to 94.3318, twice: half-widths 30.9838 and 14.3318, each over the root of two
    found = stats.mean_of_rates([stats.rate(80.0, 10), stats.rate(80.0, 10)])
    assert found.interval == pytest.approx((80 - 30.9838 / 2**0.5, 80 + 14.3318 / 2**0.5), abs=1e-3)
    assert found.n == 20
    with pytest.raises(ValueError, match="intervals"):
        stats.mean_of_rates([stats.Estimate(value=1.0)])


def test_seeds_by_hand():
    # mean 2, sd 1, t(2, 0.975) = 4.302653, half width 4.302653 / sqrt(3)
    found = stats.seeds([1.0, 2.0, 3.0])
    assert found.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert found.method == "t over 3 seeds"
    with pytest.raises(ValueError, match="two"):
        stats.seeds([1.0])


def test_ratio_of_a_common_drift_is_exact_where_rounds_are_paired():
    under = [1.0, 1.1, 2.0, 2.2, 4.0, 4.4]
    found = stats.ratio([1.5 * v for v in under], under, [2, 2, 2], [2, 2, 2])
    assert found.value == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))
    assert found.method == "bootstrap over 3 rounds, paired"


def test_ratio_without_pairs_keeps_the_spread_of_both():
    under = [1.0, 1.1, 2.0, 2.2, 4.0, 4.4]
    found = stats.ratio([1.5 * v for v in under], under)
    assert found.interval is not None
    assert found.interval[0] < 1.4 < 1.6 < found.interval[1]
    assert not stats.apart(found, 1)


def test_ratio_of_single_values_has_no_interval_and_zero_is_refused():
    assert stats.ratio([3.0], [2.0]) == stats.Estimate(value=1.5)
    with pytest.raises(ValueError, match="zero"):
        stats.ratio([1.0], [0.0])
    with pytest.raises(ValueError, match="both sides"):
        stats.ratio([], [1.0])
