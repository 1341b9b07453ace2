"""Phases from a user's YAML: defaults, overrides, and sentences that name the path of what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from turbokube.profile import phases
from turbokube.profile.phase_input import Defaults, PhasesError, parse
from turbokube.profile.phase_rules import check
from turbokube.profile.phases import Between, Churn, Create, Phase, Read, Scale, Shape

DEFAULTS = Defaults(run="r", namespaces=8, deployments=4, replicas=2, seed=7)
BASE = {"kind": "create", "name": "base"}


def problems(*items: Any, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(PhasesError) as caught:
        parse(items, DEFAULTS, overrides)
    return caught.value.problems


def one(raw: dict[str, Any], **overrides: Any) -> Phase:
    return parse([BASE, raw], DEFAULTS, {f"{raw['kind']}.{name}": value for name, value in overrides.items()})[1][0]


def test_what_a_phase_does_not_say_it_has_from_the_settings() -> None:
    ((base,), (read,)) = parse([{"kind": "create"}, {"kind": "read", "duration": 5}], DEFAULTS)
    assert isinstance(base, Create)
    assert (base.name, base.run, base.seed, base.namespaces) == ("create", "r", 7, 8)
    assert [(s.stem, s.template, s.count, s.replicas) for s in base.objects] == [("turbokube", "deployment", 4, 2)]
    assert (phases.objects_of(base), phases.pods_of(base)) == (32, 64)
    assert isinstance(read, Read)
    assert (read.verb, read.resource, read.concurrency, read.deadline) == ("list", "pods", 4, 1805)


def test_a_deadline_has_room_for_the_duration() -> None:
    assert one({"kind": "pause", "duration": 3600}).deadline == 5400
    assert problems({"kind": "pause", "duration": 60, "deadline": 60}) == [
        "turbokube_phases[0].deadline is 60; it must be more than the duration, which is 60"
    ]


def test_text_is_converted_and_all_kinds_of_rates_are_known() -> None:
    churn = one({"kind": "churn", "of": "base", "duration": "30", "rate": "5"})
    assert isinstance(churn, Churn)
    assert (churn.duration, churn.rate) == (30.0, 5.0)
    rates = [{"poisson": 20}, {"steps": [[1, 10], [2, 10]]}, {"ramp": [0, 5, 60]}]
    made = [one({"kind": "read", "duration": 1, "rate": rate}).rate for rate in rates]
    assert made == [Shape(poisson=20), Shape(steps=((1, 10), (2, 10))), Shape(ramp=(0, 5, 60))]
    scale = one({"kind": "scale", "of": "base", "replicas": {"from": 1, "to": 3}})
    assert isinstance(scale, Scale)
    assert scale.replicas == Between(1, 3)


def test_every_kind_survives_its_json() -> None:
    raw: list[dict[str, Any]] = [
        {"kind": "scale", "of": "base", "factor": 2},
        {"kind": "roll", "of": "base"},
        {"kind": "patch", "of": "base", "patch": {"metadata": {"labels": {"a": "b"}}}},
        {"kind": "churn", "of": "base", "duration": 1},
        {"kind": "delete", "of": "base"},
        {"kind": "read", "duration": 1},
        {"kind": "pause", "duration": 1},
        {"kind": "wait", "for": "nodes_ready"},
        {"kind": "scrape"},
        {"kind": "replay", "trace": "/a"},
    ]
    made = [phase for group in parse([BASE, {"together": raw}], DEFAULTS) for phase in group]
    assert {phase.kind for phase in made} == set(phases.KINDS)
    assert msgspec.json.decode(msgspec.json.encode(made), type=list[Phase]) == made


def test_the_path_of_what_is_wrong_is_named() -> None:
    sets = {"kind": "create", "objects": [{"template": "configmap", "count": -1}]}
    assert problems(BASE, {"kind": "pause", "duration": 1}, sets) == [
        "turbokube_phases[2].objects[0].count is -1; it must be at least 1"
    ]
    churn = {"kind": "churn", "of": "base", "duration": 0, "share": 2}
    assert problems(BASE, {"together": [{"kind": "pause", "duration": 1}, churn]}) == [
        "turbokube_phases[1].together[1].share is 2; it must be at most 1",
        "turbokube_phases[1].together[1].duration is 0; it must be more than 0 seconds",
    ]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"kind": "churm"}, "turbokube_phases[1].kind is 'churm'; did you mean churn?"),
        ({"name": "x"}, "turbokube_phases[1] has no kind"),
        ({"kind": "pause"}, "turbokube_phases[1] has no duration"),
        ({"kind": "pause", "durations": 5}, "turbokube_phases[1] has durations, which kind pause does not know; "
         "did you mean duration?"),
        ({"kind": "pause", "duration": "long"}, "turbokube_phases[1].duration is 'long'; it must be a number"),
        ({"kind": "read", "duration": 1, "verb": "lst"}, "turbokube_phases[1].verb is 'lst'; it must be one of "
         "get, list, watch"),
        ({"kind": "read", "duration": 1, "held": 3}, "turbokube_phases[1].held is 3; only watches can be held, "
         "and verb is list"),
        ({"kind": "read", "duration": 1, "rate": {"step": []}}, "turbokube_phases[1].rate has step, which a rate "
         "does not know; did you mean steps?"),
        ({"kind": "read", "duration": 1, "rate": {"steps": [[5, 10], [0, 10]]}},
         "turbokube_phases[1].rate ends at rate 0, at which nothing more would be sent"),
        ({"kind": "read", "duration": 1, "rate": {"poisson": 1, "ramp": [1, 2, 3]}},
         "turbokube_phases[1].rate must be a number, or one of poisson, steps and ramp"),
        ({"kind": "roll", "of": "bas"}, "turbokube_phases[1].of is bas, but it must be a create phase that ends "
         "before this one begins; did you mean base?"),
        ({"kind": "roll", "of": "base", "template": "turbo"}, "turbokube_phases[1].template is turbo, which base has "
         "no set of; did you mean turbokube?"),
        ({"kind": "scale", "of": "base"}, "turbokube_phases[1] must have either replicas or factor"),
        ({"kind": "scale", "of": "base", "replicas": {"from": 3, "to": 1}},
         "turbokube_phases[1].replicas.from is 3; it must be at most to, which is 1"),
        ({"kind": "wait", "for": "objects"}, "turbokube_phases[1] has no of, the create phase whose objects it waits "
         "for"),
        ({"kind": "create", "name": "Two"}, "turbokube_phases[1].name is 'Two'; it must be 1 to 63 lower-case letters, "
         "digits and hyphens"),
        ({"kind": "create", "name": "base"}, "turbokube_phases[1].name is base, as that of turbokube_phases[0]; give "
         "one of them another name"),
        ({"kind": "create", "name": "two"}, "turbokube_phases[1] creates turbokube in namespaces that "
         "turbokube_phases[0] does it in; give its objects another name, or another first_namespace"),
        ({"kind": "create", "objects": [{"template": "deploy"}]}, "turbokube_phases[1].objects[0].template is deploy; "
         "did you mean deployment?, or a path"),
        ({"kind": "create", "objects": [{"template": "job"}, {"template": "job"}]},
         "turbokube_phases[1].objects[1].name is job, as that of turbokube_phases[1].objects[0]; give one of them "
         "another name"),
        ({"kind": "create", "first_namespace": 65530}, "turbokube_phases[1].first_namespace + namespaces is 65538; "
         "at most 65536 are named"),
        ({"kind": "create", "run": "x"}, "turbokube_phases[1] has run, which kind create does not know; it must be "
         "one of name, deadline, rate, concurrency, limits, namespaces, first_namespace, objects, kind"),
        ({"together": []}, "turbokube_phases[1] has together, which must be a list of phases with nothing beside it"),
        (3, "turbokube_phases[1] is 3; it must be a phase, a dictionary with kind"),
    ],
)  # fmt: skip
def test_sentences(raw: Any, sentence: str) -> None:
    assert sentence in problems(BASE, raw)


def test_side_by_side_a_phase_cannot_be_of_another() -> None:
    assert problems({"together": [BASE, {"kind": "roll", "of": "base"}]}) == [
        "turbokube_phases[0].together[1].of is base, but it must be a create phase that ends before this one begins; "
        "there is none before it"
    ]


def test_earlier_phases_of_the_run_can_be_referred_to() -> None:
    before = [phase for group in parse([BASE], DEFAULTS) for phase in group]
    ((roll,),) = parse([{"kind": "roll", "of": "base"}], DEFAULTS, earlier=before)
    assert roll.name == "roll"
    assert parse([BASE], DEFAULTS, earlier=before)  # the same one, asked for again


def test_single_values_are_overridden() -> None:
    items = [{**BASE, "objects": [{"template": "job", "count": 2}]}, {"kind": "churn", "of": "base", "duration": 9}]
    groups = parse(items, DEFAULTS, {"churn.rate": 5, "base.objects.0.count": "3", "churn.limits.seconds": 30})
    base, churn = groups[0][0], groups[1][0]
    assert isinstance(base, Create)
    assert (base.objects[0].count, churn.rate, churn.limits) == (3, 5.0, {"seconds": 30.0})
    assert items[0]["objects"] == [{"template": "job", "count": 2}]
    assert problems(*items, overrides={"chrn.rate": 5}) == [
        "turbokube_phases_override has chrn.rate, but no phase is called chrn; did you mean churn?"
    ]
    assert problems(*items, overrides={"base.objects.1.count": 5}) == [
        "turbokube_phases_override has base.objects.1.count, which is not a place in phase base"
    ]
    assert problems(*items, overrides={"churn.rat": 5}) == [
        "turbokube_phases[1] has rat, which kind churn does not know; did you mean rate?"
    ]


def test_deadline_and_limits_may_be_moved() -> None:
    churn = {"kind": "churn", "of": "base", "duration": 9}
    assert one(churn).same_work(one({**churn, "deadline": 50, "limits": {"seconds": 3}}))
    assert not one(churn).same_work(one({**churn, "duration": 10}))
    assert not one(churn).same_work(one({"kind": "roll", "of": "base", "name": "churn"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"namespaces": -1}, "namespaces is -1; it must be at least 1"),
        ({"rate": -0.5}, "rate is -0.5; it must be at least 0"),
        ({"deadline": 0}, "deadline is 0; it must be more than 0 seconds"),
        ({"run": "My run"}, "run is 'My run'; it must be 1 to 63 lower-case letters, digits and hyphens"),
        ({"pod_memory": "lots"}, "pod_memory is 'lots'; it must be a quantity such as 32Mi or 100m, or empty"),
    ],
)
def test_settings_are_checked_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    base = parse([BASE], DEFAULTS)[0][0]
    assert check(msgspec.structs.replace(base, **changes)) == [message]
