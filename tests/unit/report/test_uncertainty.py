from __future__ import annotations

import math

import pytest

from turbokube.report.uncertainty import difference, estimate, student


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (30, 2.0423), (120, 1.9799)]
)
def test_students_t_is_that_of_the_tables(freedom: float, t: float) -> None:
    assert student(freedom) == pytest.approx(t, abs=1e-4)


def test_between_whole_degrees_of_freedom_it_lies_between_them() -> None:
    assert student(2) < student(1.5) < student(1)


def test_welchs_interval_is_that_of_the_definition() -> None:
    """Variances 1 and 4 of three each: error √(5/3), ν = (5/3)² / ((1/3)²/2 + (4/3)²/2) = 2.94."""
    found = difference([9.0, 10.0, 11.0], [18.0, 20.0, 22.0])
    assert found.value == pytest.approx(10.0)
    reach = student(25 / 9 / (1 / 18 + 16 / 18)) * math.sqrt(5 / 3)
    assert (found.low, found.high) == (pytest.approx(10 - reach), pytest.approx(10 + reach))


@pytest.mark.parametrize(("base", "other"), [([1.0], [2.0]), ([1.0, 1.1, 0.9], [2.0])])
def test_one_run_alone_leaves_the_uncertainty_unknown(base: list[float], other: list[float]) -> None:
    found = difference(base, other)
    assert found.value == pytest.approx(1.0)
    assert (found.low, found.high) == (None, None)


def test_repeats_without_any_spread_give_an_interval_of_no_width() -> None:
    found = difference([8192.0, 8192.0], [8191.0, 8191.0])
    assert (found.value, found.low, found.high) == (-1.0, -1.0, -1.0)


def test_what_never_happened_has_no_difference_but_a_mean() -> None:
    assert estimate([1.0, math.inf]).mean == math.inf
    assert difference([1.0, 2.0], [1.0, math.inf]).value is None
    assert difference([math.inf], [math.inf]).value is None
