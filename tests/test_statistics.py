"""Intervals, rank correlations and tests of differences, against figures from elsewhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.edit_benchmark.ranks import correlate
from apps.edit_benchmark.significance import holm, randomisation_test
from apps.edit_benchmark.statistics import bootstrap_mean, bootstrap_mean_of_means

scipy_stats = pytest.importorskip("scipy.stats")
MARKS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=40)


@settings(max_examples=60)
@given(MARKS)
def test_rank_correlations_with_ties_are_scipys(marks: list[tuple[int, int]]) -> None:
    a, b = [float(x) for x, _ in marks], [float(y) for _, y in marks]
    found = correlate(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert (found.spearman, found.kendall) == (None, None)
        return
    assert found.spearman == pytest.approx(scipy_stats.spearmanr(a, b).statistic, abs=1e-12)
    assert found.kendall == pytest.approx(scipy_stats.kendalltau(a, b).statistic, abs=1e-12)


def test_two_values_say_nothing_of_an_order() -> None:
    assert correlate([1, 2], [3, 4]).spearman is None


def test_one_value_has_no_interval() -> None:
    for single in (bootstrap_mean([3.0], 100, 0), bootstrap_mean_of_means([[3.0], []], 100, 0)):
        assert single is not None and (single.mean, single.low, single.high) == (3.0, None, None)
    # Beside a group of one value, as if that were exact, the interval would be 2.0 to 2.5.
    several = bootstrap_mean_of_means([[3.0], [1.0, 2.0]], 100, 0)
    assert several is not None and (several.mean, several.low, several.high) == (2.25, None, None)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and never below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_a_difference_of_few_pairs_is_not_real_however_equal_it_is() -> None:
    # Of 2 ** 5 ways to flip five equal differences, 2 are as far from 0: p = 1 / 16.
    assert randomisation_test([[1.0] * 5], 20_000, 0) == pytest.approx(1 / 16, abs=0.006)
    assert randomisation_test([[1.0] * 12], 20_000, 0) < 0.003
    assert randomisation_test([[0.0] * 9], 1_000, 0) == 1.0
    assert randomisation_test([], 100, 0) == 1.0


def test_the_test_is_scipys_paired_permutation_test() -> None:
    differences = [0.5, -0.2, 1.1, 0.7, 0.3, -0.4, 0.9, 0.1]
    exact = scipy_stats.permutation_test(
        (differences, [0.0] * 8), lambda x, y: (x - y).mean(), permutation_type="samples",
        n_resamples=10_000,
    )  # fmt: skip
    assert randomisation_test([differences], 40_000, 1) == pytest.approx(exact.pvalue, abs=0.01)
