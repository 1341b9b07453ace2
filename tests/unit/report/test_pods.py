"""Pods against the ledger: which ran, which are missing, which were taken away, and how long each took."""

from __future__ import annotations

import math

import pytest

from tests.unit.report.hand import Bundle
from turbokube.measure import pods


def load(bundle: Bundle) -> pods.Load:
    with bundle.read() as reader:
        return pods.load(reader)


def told(bundle: Bundle) -> dict[str, int]:
    """The counts that are not zero."""
    found = load(bundle).pods
    counts = ("planned", "running", "gone", "lost", "surplus", "withdrawn", "never", "removed", "completed")
    return {name: getattr(found, name) for name in counts if getattr(found, name)}


def test_percentiles_are_of_the_nearest_rank_and_count_what_never_came() -> None:
    values = [float(n) for n in range(1, 100)]  # 99 values
    assert pods.percentile(values, 0, 0.5) == 50.0
    assert pods.percentile(values, 0, 0.99) == 99.0
    assert pods.percentile(values, 1, 0.99) == 99.0  # rank 99 of 100
    assert pods.percentile(values, 1, 1) == math.inf
    assert pods.percentile(values, 2, 0.99) == math.inf  # rank 100 of 101
    assert pods.percentile([], 0, 0.5) is None


def test_startup_by_three_clocks(bundle: Bundle) -> None:
    bundle.deployment("a", 3, 100.0).deployment("b", 2, None)
    bundle.pod("p0", "a", created=100, seen=100.5, started=102, ran=102.25)
    bundle.pod("p1", "a", created=101, seen=101.5, started=105, ran=200.0, listed=1)
    bundle.pod("p2", "a", created=101, seen=101.5, started=None, ran=None)
    found = load(bundle)
    first, second, third = found.startups
    assert (found.pods.planned, found.pods.intended, found.pods.seen, found.pods.running) == (5, 3, 3, 2)
    assert (found.pods.never, first.never) == (3, 1)  # the other two were not due yet
    assert (list(first.values), first.n, first.unseen) == ([2.25], 2, 1)
    assert (list(second.values), second.n, second.never, second.unseen) == ([2.0, 4.0], 3, 1, 0)
    assert list(third.values) == [1.75]
    assert first.percentiles == {"p50": 2.25, "p90": math.inf, "p99": math.inf, "max": math.inf}


def test_one_that_only_a_list_showed_took_at_most_so_long(bundle: Bundle) -> None:
    bundle.deployment("a", 2, 100.0).life("p0", "a", 100, 104.0)
    bundle.pod("p1", "a", created=101, seen=130, started=103, ran=130.0, listed=1)
    first = load(bundle).startups[0]
    assert (first.percentiles["max"], first.least["max"], first.most["max"]) == (4.0, 4.0, 30.0)


def test_only_stateless_pods_are_of_the_sli(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).deployment("b", 1, 100.0, kind="StatefulSet", stateless=0)
    bundle.life("p0", "a", 100, 101.0).life("p1", "b", 100, 190.0)
    found = load(bundle)
    assert list(found.startups[0].values) == [1.0]
    assert list(found.starts["create", False].seconds) == [90.0]
    assert found.pods.running == 2


def test_a_lost_pod_and_the_one_in_its_place(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).life("p0", "a", 100, 101, gone=110).life("p1", "a", 111, 112)
    assert told(bundle) == {"planned": 1, "running": 2, "gone": 1, "lost": 1, "surplus": 1}


def test_a_pod_too_many_that_never_ran_is_neither_lost_nor_surplus(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).life("p0", "a", 100, 101).life("p1", "a", 100, None, gone=102)
    assert told(bundle) == {"planned": 1, "running": 1, "gone": 1, "withdrawn": 1}


def test_a_pod_that_went_before_it_ran_and_was_not_replaced_is_lost(bundle: Bundle) -> None:
    bundle.deployment("a", 2, 100.0).life("p0", "a", 100, 101).life("p1", "a", 100, None, gone=102)
    assert told(bundle) == {"planned": 2, "running": 1, "gone": 1, "lost": 1, "withdrawn": 1, "never": 1}


def test_pods_that_were_scaled_away_are_not_lost_and_one_more_is(bundle: Bundle) -> None:
    bundle.deployment("a", 3, 100.0).action("scale", "a", 200.0, 1)
    for number, gone in enumerate((None, 201, 202)):
        bundle.life(f"p{number}", "a", 100, 101, gone)
    assert told(bundle) == {"planned": 3, "running": 3, "gone": 2, "removed": 2}


def test_more_pods_went_than_were_scaled_away(bundle: Bundle) -> None:
    bundle.deployment("a", 3, 100.0).action("scale", "a", 200.0, 2)
    for number, gone in enumerate((None, 201, 202)):
        bundle.life(f"p{number}", "a", 100, 101, gone)
    assert told(bundle) == {"planned": 3, "running": 3, "gone": 2, "removed": 1, "lost": 1}


def test_pods_of_a_scale_up_are_of_its_phase_and_its_intent(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).action("scale", "a", 200.0, 3)
    bundle.life("p0", "a", 100, 101).life("p1", "a", 200, 203).life("p2", "a", 201, None)
    found = load(bundle)
    assert (found.pods.planned, found.pods.running, found.pods.never) == (3, 2, 1)
    assert list(found.starts["later", True].seconds) == [3.0, math.inf]
    assert found.spans == {"create": (1, 100.0, 101.0), "later": (1, 200.0, 203.0)}


@pytest.mark.parametrize("kind", ["Deployment", "Namespace"])
def test_pods_of_what_was_deleted_are_not_lost(bundle: Bundle, kind: str) -> None:
    bundle.deployment("a", 2, 100.0).action("delete", "a" if kind == "Deployment" else "ns", 200.0, 0, kind=kind)
    bundle.life("p0", "a", 100, 101, gone=201).life("p1", "a", 100, None, gone=201)
    assert told(bundle) == {"planned": 2, "running": 1, "gone": 2, "withdrawn": 1, "removed": 2}


def test_churn_makes_them_anew(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).action("delete", "a", 200.0).action("create", "a", 201.0, 1)
    bundle.life("p0", "a", 100, 101, gone=201).life("p1", "a", 201, 204)
    found = load(bundle)
    assert (found.pods.planned, found.pods.running, found.pods.lost, found.pods.surplus) == (2, 2, 0, 0)
    assert list(found.starts["later", True].seconds) == [3.0]


def test_a_roll_replaces_each_pod_once_and_its_pods_start_when_they_are_seen(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).action("roll", "a", 200.0)
    bundle.life("p0", "a", 100, 101, gone=231).life("p1", "a", 229, 230)
    found = load(bundle)
    assert (found.pods.planned, found.pods.running, found.pods.lost, found.pods.surplus) == (2, 2, 0, 0)
    assert list(found.starts["later", True].seconds) == [1.0]  # the controller let it wait for others


def test_a_roll_that_did_not_end_lost_nothing(bundle: Bundle) -> None:
    bundle.deployment("a", 2, 100.0).action("roll", "a", 200.0)
    bundle.life("p0", "a", 100, 101, gone=204).life("p1", "a", 201, 203).life("p2", "a", 100, 101)
    assert told(bundle) == {"planned": 4, "running": 3, "gone": 1, "removed": 1}  # its phase says that it did not end


def test_a_patch_may_replace_pods_and_need_not(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).action("patch", "a", 200.0).deployment("b", 1, 100.0).action("patch", "b", 200.0)
    bundle.life("p0", "a", 100, 101, gone=204).life("p1", "a", 201, 203).life("p2", "b", 100, 101)
    assert told(bundle) == {"planned": 2, "running": 3, "gone": 1, "removed": 1}


def test_an_action_without_an_answer_demands_nothing_and_forgives(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).action("delete", "a", 200.0, answered=False)
    bundle.deployment("b", 1, 100.0).action("scale", "b", 200.0, 2, answered=False)
    bundle.life("p0", "a", 100, 101, gone=204).life("p1", "b", 100, 101)
    assert told(bundle) == {"planned": 2, "running": 2, "gone": 1, "removed": 1}


def test_a_completed_pod_is_neither_lost_nor_gone(bundle: Bundle) -> None:
    bundle.deployment("a", 2, 100.0, kind="Job", stateless=0)
    bundle.pod("p0", "a", created=100, seen=100, started=101, ran=101, gone=120, phase="Succeeded")
    bundle.pod("p1", "a", created=100, seen=100, started=None, ran=None, gone=120, phase="Succeeded")
    assert told(bundle) == {"planned": 2, "running": 2, "completed": 2}


def test_a_jobs_failed_pod_is_tried_again_and_a_deployments_is_lost(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0, kind="Job", stateless=0).deployment("b", 1, 100.0)
    for name in "ab":
        bundle.pod(f"{name}0", name, created=100, seen=100, started=101, ran=101, gone=120, phase="Failed")
    bundle.life("a1", "a", 121, 122)
    assert told(bundle) == {"planned": 2, "running": 3, "gone": 1, "lost": 1, "completed": 1}


def test_pods_that_nobody_asked_for_are_surplus(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).life("p0", "a", 100, 101).life("p1", "other", 100, 101)
    assert told(bundle) == {"planned": 1, "running": 2, "surplus": 1}


def test_startups_of_a_window_are_those_intended_in_it(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0).deployment("b", 1, 500.0).life("p0", "a", 100, 103).life("p1", "b", 500, 501)
    starts = list(pods.stateless(load(bundle).starts))
    assert list(pods.startup(starts, 100.0, 400.0).values) == [3.0]
    assert list(pods.startup(starts, 400.0).values) == [1.0]
