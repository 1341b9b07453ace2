"""Durations: their means are those of what is drawn."""

from __future__ import annotations

import random
import statistics

import pytest

from turbokube.profile.distribution import parse


@pytest.mark.parametrize("text", ["2.5", "uniform(1,3)", "exponential(4)", "lognormal(0.5,0.6)"])
def test_the_mean_is_that_of_many(text: str) -> None:
    chance, one = random.Random(1), parse(text)
    drawn = statistics.fmean(one.draw(chance) for _ in range(20000))
    assert one.mean == pytest.approx(drawn, rel=0.03)
