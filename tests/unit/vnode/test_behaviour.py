"""Durations and distributions."""

from __future__ import annotations

import random
import statistics

import pytest

from turbokube.vnode.behaviour import Distribution, parse


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0", Distribution("constant", 0)),
        ("2.5", Distribution("constant", 2.5)),
        ("uniform(1, 3)", Distribution("uniform", 1, 3)),
        ("exponential(2)", Distribution("exponential", 2)),
        ("lognormal(-0.7,0.4)", Distribution("lognormal", -0.7, 0.4)),
    ],
)
def test_what_is_allowed(text: str, meant: Distribution) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", "-1", "nan", "inf", "90000", "uniform(3,1)", "uniform(1)", "normal(1,2)", "lognormal(1,9)", "exponential()"],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration|convert string"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "mean"), [("3", 3.0), ("uniform(1,3)", 2.0), ("exponential(2)", 2.0), ("lognormal(0,0.5)", 1.133)]
)
def test_means(text: str, mean: float) -> None:
    chance = random.Random(7)
    drawn = [parse(text).draw(chance) for _ in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(mean, rel=0.05)
    assert min(drawn) >= 0
