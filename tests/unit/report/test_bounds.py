"""Limits of a profile: each measured, on both sides, and what makes it neither."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator

import pytest

from tests.unit.report.hand import SLI, Bundle
from turbokube.measure import bounds, verdict
from turbokube.measure.facts import Facts, load_limits
from turbokube.measure.outcome import Bound
from turbokube.measure.series import Metrics
from turbokube.profile.limits import known_limits

NAMES = ("kube-apiserver-0", "etcd-0", "kube-scheduler-0", "kube-controller-manager-0")


Run = tuple[Facts, Metrics]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Phase `p` from 100 to 200: 400 requests at 4/s, 400 pods that took 2 s but for 5 that took 8 s."""
    bundle = Bundle(tmp_path_factory.mktemp("bounds") / "run")
    bundle.rows("requests", *(("p", at, "pods", "create", 5, 4, 0, 1, 0, 0.1, 0.1, 4) for at in range(100, 200)))
    bundle.rows("latencies", ("p", "pods", "create", 0.1, 396), ("p", "pods", "create", 3.0, 4))
    bundle.rows("lag", *((float(at), "send", 0.01) for at in range(100, 201)))
    bundle.deployment("a", 400, 100.0, phase="p").phase("p", 100.0, 200.0, rate=4)
    for number in range(400):
        bundle.life(f"p{number}", "a", 100, 108.0 if number < 5 else 102.0)
    for name in NAMES:
        bundle.scraped(name, 100.0, 200.0)
    histogram(bundle, NAMES[0], SLI.removesuffix("_bucket"), verb="POST", resource="pods", scope="namespace")
    for name, metric in (
        ("kube-apiserver-0", "apiserver_flowcontrol_request_wait_duration_seconds"),
        ("etcd-0", "etcd_disk_wal_fsync_duration_seconds"),
        ("kube-controller-manager-0", "workqueue_queue_duration_seconds"),
    ):
        histogram(bundle, name, metric, name="x", priority_level="x")
    bundle.series("etcd-0", "etcd_server_quota_backend_bytes", {100.0: 1000.0})
    bundle.series("etcd-0", "etcd_mvcc_db_total_size_in_bytes", {100.0: 100.0, 200.0: 600.0, 300.0: 900.0})
    bundle.series("kube-apiserver-0", "apiserver_flowcontrol_rejected_requests_total", {100.0: 2.0, 200.0: 5.0})
    with bundle.read() as reader:
        metrics = Metrics(reader)
        yield verdict.gather(reader, metrics, load_limits()), metrics


def histogram(bundle: Bundle, component: str, metric: str, **labels: str) -> None:
    """300 calls, of which 3 took from 0.2 to 1 s and the others less."""
    for edge, count in (("0.2", 296), ("1", 300), ("+Inf", 300)):
        bundle.series(component, f"{metric}_bucket", {100.0: 0.0, 200.0: count}, le=edge, **labels)


def judged(run: Run, limits: dict[str, float], *, of_run: bool = False) -> list[Bound]:
    """What became of these limits, set for the phase or for the whole run."""
    facts, metrics = run
    spec = json.dumps({"rate": 4, "limits": {} if of_run else limits})
    (phase,) = facts.phases
    meta = {"profile": {"turbokube_limits": limits if of_run else {}}}
    return bounds.bounds(dataclasses.replace(facts, phases=({**phase, "spec": spec},), meta=meta), metrics)


def read(bundle: Bundle, limits: dict[str, float]) -> list[Bound]:
    """The same for a bundle of its own, with one phase `p`."""
    bundle.phase("p", 100.0, 200.0, limits=limits)
    with bundle.read() as reader:
        metrics = Metrics(reader)
        return list(verdict.gather(reader, metrics, load_limits()).bounds)


@pytest.mark.parametrize("of_run", [False, True])
@pytest.mark.parametrize(
    ("name", "held", "broken"),
    [
        ("seconds", 100, 99.9),
        ("pods_per_s", 50, 50.1),  # 400 in 8 s
        ("achieved_share", 1, None),  # the most that there is
        ("failed_share", 0, None),
        ("throttled_share", 0, None),
        ("retried_share", 0.2, 0.19),
        ("request_p50_s", 0.1, 0.09),
        ("request_p99_s", 0.1, 0.09),
        ("request_max_s", 3, 2.9),
        ("pod_startup_p50_s", 2, 1.9),
        ("pod_startup_p90_s", 2, 1.9),
        ("pod_startup_p99_s", 8, 7.9),
        ("pod_startup_max_s", 8, 7.9),
        ("api_p99_s", 1, 0.2),  # it lies in (0.2, 1]
        ("apf_wait_p99_s", 1, 0.2),
        ("apf_rejected", 3, 2),
        ("workqueue_wait_p99_s", 1, 0.1),
        ("fsync_p99_s", 1, 0.1),
        ("store_share", 0.6, 0.59),
    ],
)
def test_both_sides_of_each_limit(run: Run, name: str, held: float, broken: float | None, of_run: bool) -> None:
    (found,) = judged(run, {name: held}, of_run=of_run)
    assert (found.scope, found.name, found.outcome) == ("" if of_run else "p", name, "pass")
    if broken is not None:
        assert judged(run, {name: broken}, of_run=of_run)[0].outcome == "fail"


@pytest.mark.parametrize(
    ("name", "limit", "reason"),
    [
        ("api_p99_s", 0.6, "0.2–1 s of 300 pods POST calls: the limit lies within what is known"),
        ("api_list_p99_s", 30, "0 calls are too few to judge by, 300 are needed"),
        ("scheduling_p99_s", 1, "nothing was scraped of scheduler_pod_scheduling_sli_duration_seconds"),
        ("commit_p99_s", 1, "nothing was scraped of etcd_disk_backend_commit_duration_seconds"),
        ("client_wait_p99_s", 1, "nothing was scraped of rest_client_rate_limiter_duration_seconds"),
        ("lag_p99_s", 0.001, "0.01 s: the limit lies within what is known"),
    ],
)
def test_what_is_neither_held_nor_broken(run: Run, name: str, limit: float, reason: str) -> None:
    (found,) = judged(run, {name: limit})
    assert (found.outcome, found.reason) == ("inconclusive", reason)


def test_our_own_lag_passes_and_breaks_nothing(run: Run) -> None:
    assert judged(run, {"lag_p99_s": 0.01})[0].outcome == "pass"


@pytest.mark.parametrize(("lag", "outcome"), [(0.09, "fail"), (0.1, "inconclusive")])
def test_what_the_observers_own_lag_may_have_made_too_slow_is_open(run: Run, lag: float, outcome: str) -> None:
    facts, metrics = run
    late = dataclasses.replace(facts, lags={"observer": (9, lag, lag)}), metrics
    assert judged(late, {"pod_startup_p99_s": 7.9})[0].outcome == outcome
    assert judged(late, {"pod_startup_p99_s": 8.0})[0].outcome == "pass"


def test_a_closed_loop_has_no_achieved_share(bundle: Bundle) -> None:
    (found,) = read(
        bundle.rows("requests", ("p", 100, "pods", "create", 5, 4, 0, 1, 0, 0.1, 0.1, 4)), {"achieved_share": 0.9}
    )
    assert (found.outcome, found.reason) == ("", "a closed loop means no rate")


def test_a_phase_that_has_not_ended_is_not_judged(bundle: Bundle) -> None:
    bundle.phase("q", 100.0, None, "running", limits={"seconds": 5})
    with bundle.read() as reader:
        (found,) = verdict.gather(reader, Metrics(reader), load_limits()).bounds
    assert (found.outcome, found.reason) == ("inconclusive", "it has not ended")


def test_a_phase_without_what_is_limited_cannot_tell(bundle: Bundle) -> None:
    names = [name for name in known_limits() if name not in ("seconds", "store_share")]
    found = read(bundle, dict.fromkeys(names, 0.5))
    assert {each.name: each.outcome for each in found} == dict.fromkeys(names, "inconclusive")
    assert all(each.reason for each in found)


@pytest.mark.parametrize(("n", "outcome"), [(299, "inconclusive"), (300, "pass")])
def test_a_p99_needs_three_hundred_pods(bundle: Bundle, n: int, outcome: str) -> None:
    bundle.deployment("a", n, 100.0, phase="p")
    for number in range(n):
        bundle.life(f"p{number}", "a", 100, 102.0)
    assert read(bundle, {"pod_startup_p99_s": 5})[0].outcome == outcome


def test_a_pod_that_never_ran_is_slower_than_any_limit(bundle: Bundle) -> None:
    bundle.deployment("a", 10, 100.0, phase="p")
    for number in range(9):
        bundle.life(f"p{number}", "a", 100, 102.0)
    found = read(bundle, {"pod_startup_max_s": 1000, "pod_startup_p50_s": 2})
    assert {each.name: (each.outcome, each.value) for each in found} == {
        "pod_startup_max_s": ("fail", "never of 10 pods"),
        "pod_startup_p50_s": ("pass", "2 s of 10 pods"),
    }


def test_a_startup_that_only_a_list_told_of_leaves_a_limit_open(bundle: Bundle) -> None:
    bundle.deployment("a", 2, 100.0, phase="p").life("p0", "a", 100, 102.0)
    bundle.pod("p1", "a", created=101, seen=130, started=103, ran=130.0, listed=1)
    (found,) = read(bundle, {"pod_startup_max_s": 10.0})
    assert found.outcome == "inconclusive"
    assert found.reason == "at most 30 s of 2 pods: the limit lies within what is known"


def test_stateful_pods_are_judged_by_a_limit_of_their_phase(bundle: Bundle) -> None:
    bundle.deployment("a", 1, 100.0, phase="p", kind="StatefulSet", stateless=0).life("p0", "a", 100, 109.0)
    assert read(bundle, {"pod_startup_max_s": 5})[0].outcome == "fail"


def test_samples_that_a_quantile_needs() -> None:
    assert [bounds.least_samples(q) for q in (0.5, 0.9, 0.99, 1.0)] == [6, 30, 300, 1]


def test_every_known_limit_is_measured() -> None:
    assert list(bounds._MEASURES) == list(known_limits())
    assert math.isclose(bounds.RULE_OF_THREE, -math.log(0.05), rel_tol=0.002)
