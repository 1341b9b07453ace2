"""Durations and distributions; the behaviour of pods by options and annotations."""

from __future__ import annotations

import math
import random
import re
import statistics

import msgspec
import pytest

from turbokube.vnode.behaviour import AnnotationError, Behaviours, Distribution, parse
from turbokube.vnode.spec import Spec


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


SPEC = Spec(run="trial", count=1, start_delay="2", run_time="uniform(1,3)", failure_rate=0.25, seed=7)


def test_pods_without_annotations_behave_as_the_fleet_says() -> None:
    usual = Behaviours(SPEC).of({"app": "a", "turbokube.io/cpu-usage": "1"})
    assert usual.until_started("u") == 2
    assert usual.until_ready("u", 0) == 0
    seconds, code = usual.run("u", "a", 0)
    assert 1 <= seconds <= 3
    assert code in (0, 1)


def test_annotations_take_the_options_places_one_by_one() -> None:
    behaviours = Behaviours(SPEC)
    own = behaviours.of(
        {"turbokube.io/run-time": "9", "turbokube.io/failure-rate": "1", "turbokube.io/stop-delay": "4"}
    )
    assert (own.until_started("u"), own.until_stopped("u"), own.run("u", "a", 0)) == (2, 4, (9, 1))
    assert behaviours.of({"turbokube.io/run-time": ""}).run("u", "a", 0) == (math.inf, 0)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("start-delay", "soon", "seconds from 0 to 86400, or "),
        ("run-time", "uniform(3,1)", "nothing, for a pod that does not end, or seconds"),
        ("failure-rate", "2", "0 to 1"),
        ("failure-rate", "nan", "0 to 1"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named_with_what_is_allowed(name: str, text: str, allowed: str) -> None:
    annotations = {f"turbokube.io/{name}": text}
    with pytest.raises(
        AnnotationError, match=re.escape(f"annotation turbokube.io/{name} is {text!r}; allowed is {allowed}")
    ):
        Behaviours(SPEC).of(annotations)
    assert Behaviours(SPEC).or_usual(annotations) == Behaviours(SPEC).usual


def test_the_seed_and_the_pod_decide_and_nothing_else() -> None:
    one, again = Behaviours(SPEC).usual, Behaviours(SPEC).usual
    other = Behaviours(msgspec.structs.replace(SPEC, seed=8)).usual
    drawn = [one.run(f"u{number}", "a", number % 3) for number in range(50)]
    assert [again.run(f"u{number}", "a", number % 3) for number in reversed(range(50))] == drawn[::-1]
    assert [other.run(f"u{number}", "a", number % 3) for number in range(50)] != drawn
    assert len(set(drawn)) == 50
    assert one.run("u", "a", 0) != one.run("u", "a", 1) != one.run("u", "b", 1)


def test_failures_come_at_their_rate() -> None:
    usual = Behaviours(SPEC).usual
    failed = sum(usual.run(f"u{number}", "a", 0)[1] for number in range(4000))
    assert failed == pytest.approx(1000, abs=110)  # four standard deviations
