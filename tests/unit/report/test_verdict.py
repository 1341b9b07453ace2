"""Each limit on both sides, and what a verdict says when nothing can be said."""

from __future__ import annotations

import dataclasses
import math
from array import array
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure import sli, verdict
from turbokube.measure.facts import Facts, load_limits
from turbokube.measure.fidelity import Fidelity
from turbokube.measure.offered import Offer
from turbokube.measure.outcome import FAIL, INCONCLUSIVE, PASS, Bound, Limit, interval_words
from turbokube.measure.pods import Pods, Starts, Startup
from turbokube.measure.preconditions import Precondition
from turbokube.measure.series import Metrics
from turbokube.measure.verdict import Verdict
from turbokube.profile.limits import known_limits

LIMITS = load_limits()
PODS = Pods(8192, 8192, 8192, 8192, 0, 0, 0, 0, 0, 0)
OUTAGE = sli.Interruption(100.0, 112.0, "kube-apiserver-0", "connection refused", ours=False)


def calls(n: int, slow: int, begin: float = 0.0, end: float = 300.0) -> sli.Calls:
    return sli.Calls(begin, end, n, n - slow, (0.6, 0.8))


def series(*windows: sli.Calls, resource: str = "pods", kind: str = "POST") -> sli.CallSeries:
    whole = calls(sum(each.n for each in windows), sum(each.n - (each.within or 0) for each in windows))
    return sli.CallSeries(resource, kind, 1.0, whole, windows)


def startup(n: int = 8192, never: int = 0, unseen: int = 0) -> Startup:
    return Startup(
        "intended → seen running", n, never, unseen, dict.fromkeys(("p50", "p90", "p99", "max"), 1.0), array("d")
    )


def starts(seconds: float, n: int = 8192, intended: float = 0.0, listed: int = 0) -> dict[tuple[str, bool], Starts]:
    """So many stateless pods that all took as long; only a list showed the first `listed`."""
    found = Starts()
    for number in range(n):
        found.add(intended, seconds, int(number < listed))
    return {("create", True): found}


STARTS = starts(3.0)


def facts(**changes: Any) -> Facts:
    """A run in which nothing went wrong."""
    good = Facts(
        meta={"finished": 1.0, "profile": {"turbokube_lease_interval_s": 10, "turbokube_node_monitor_grace_s": 50}},
        phases=({"name": "create", "state": "done", "note": ""},),
        pods=PODS,
        nodes=sli.Nodes(256, 256, 1.0, 0, ()),
        api=sli.ApiLatency("apiserver_request_sli_duration_seconds", ((0.0, 300.0),), (series(calls(1000, 0)),)),
        startups=(startup(),),
        throughput=sli.Throughput(8192, 0.0, 110.0, 5.0, 74.0, 80.0, ((0.0, 10.0),)),
        leases=(sli.LeaseRatio("fleet", 1.0, 120.0, ((0.0, 60.0, 1.0),)),),
        oldest_renewal=10.2,
        interruptions=(),
        counts={("store", name): n for name, n in (("pods", 8192), ("nodes", 256), ("leases", 256))},
        lags={"loop": (100, 0.02, 0.1), "send": (100, 0.02, 0.1), "observer": (100, 0.2, 0.4), "fleet": (9, 0.1, 0.1)},
        coverage={"kube-apiserver-0": 0.99},
        fidelity=Fidelity("lease"),
        starts=STARTS,
        recorded=1.0,
    )
    return dataclasses.replace(good, **changes)


def judged(**changes: Any) -> Verdict:
    return verdict.judge(facts(**changes), LIMITS)


def limit(found: Verdict, name: str) -> Limit:
    return next(each for each in found.limits if each.name == name)


def test_a_run_without_fault_passes() -> None:
    found = judged()
    assert found.word == PASS
    assert found.reasons[0].startswith("all ")
    assert {each.role for each in found.limits} == {"gate", "report"}


def guarded(*, ours: bool, state: str = "stopped", **changes: Any) -> Verdict:
    words = "it is full"
    phases = ({"name": "create", "state": state, "note": words if state == "stopped" else ""},)
    return judged(phases=phases, meta={**facts().meta, "guard": {"words": words, "ours": ours}}, **changes)


def test_a_guard_of_the_target_fails_the_run_and_one_of_ours_leaves_it_open() -> None:
    never = dataclasses.replace(PODS, running=8000, never=192)
    found = guarded(ours=False)
    assert (found.word, found.reasons[0]) == (FAIL, "Phase create ended: a guard stopped it: it is full")
    found = guarded(ours=True, pods=never)
    assert (found.word, found.reasons[0]) == (INCONCLUSIVE, "Phase create ended: a guard stopped it: it is full")
    assert limit(found, "pods-running").outcome == "inconclusive"
    assert guarded(ours=True, state="done").word == PASS  # the phase was gone on with
    assert guarded(ours=True, state="done", pods=never).word == FAIL


NODES = sli.Nodes(256, 256, 1.0, 0, ())


def leases(overall: float, worst: float | None = None, source: str = "fleet", seconds: float = 120.0) -> Any:
    return (sli.LeaseRatio(source, overall, seconds, ((0.0, 60.0, overall if worst is None else worst),)),)


def api(*found: sli.CallSeries) -> sli.ApiLatency:
    return sli.ApiLatency("apiserver_request_sli_duration_seconds", ((0.0, 300.0),), found)


def lags(**p99: float) -> dict[str, tuple[int, float, float]]:
    return {**facts().lags, **{who: (100, value, value) for who, value in p99.items()}}


@pytest.mark.parametrize(
    ("changes", "name", "outcome"),
    [
        ({"pods": dataclasses.replace(PODS, running=8191, never=1)}, "pods-running", "fail"),
        ({"pods": dataclasses.replace(PODS, restarted=1)}, "pods-once", "fail"),
        ({"pods": dataclasses.replace(PODS, surplus=1)}, "pods-once", "fail"),
        ({"pods": dataclasses.replace(PODS, lost=1)}, "pods-lost", "fail"),
        ({"nodes": dataclasses.replace(NODES, notready=1)}, "nodes-ready", "fail"),
        ({"nodes": dataclasses.replace(NODES, ready=255)}, "nodes-ready", "fail"),
        ({"nodes": None}, "nodes-ready", "inconclusive"),
        ({"fidelity": Fidelity("none")}, "fidelity", "inconclusive"),
        ({"fidelity": Fidelity("kubelet", "not node")}, "fidelity", "inconclusive"),
        (
            {"fidelity": Fidelity("kubelet", "not node"), "meta": {"fidelity": "kubelet", "finished": 1.0}},
            "fidelity",
            "pass",
        ),
        ({"fidelity": Fidelity("", "nothing was counted")}, "fidelity", ""),
        ({"counts": {**facts().counts, ("store", "pods"): 8191}}, "counts-pods", "fail"),
        ({"counts": {("api", name): n for (_, name), n in facts().counts.items()}}, "counts-pods", "pass"),
        ({"counts": {}}, "counts-pods", "inconclusive"),
        ({"counts": {**facts().counts, ("store", "nodes"): 259}}, "counts-nodes", "fail"),
        ({"counts": {**facts().counts, ("store", "nodes"): 259, ("others", "nodes"): 3}}, "counts-nodes", "pass"),
        ({"leases": leases(0.97)}, "lease-ratio-fleet", "pass"),
        ({"leases": leases(1.03)}, "lease-ratio-fleet", "pass"),
        ({"leases": leases(0.9699)}, "lease-ratio-fleet", "fail"),
        ({"leases": leases(1.0301)}, "lease-ratio-fleet", "fail"),
        ({"leases": leases(1.0, 0.96)}, "lease-ratio-fleet-worst", "fail"),
        ({"leases": leases(1.0, 0.96, "apiserver")}, "lease-ratio-apiserver-worst", ""),
        ({"leases": leases(0.9, source="apiserver")}, "lease-ratio-apiserver", "fail"),
        ({"leases": leases(1.0, seconds=60.0)}, "lease-ratio-fleet", "pass"),
        ({"leases": leases(1.0, seconds=59.0)}, "lease-ratio-fleet", "inconclusive"),
        ({"leases": ()}, "lease-ratio", "inconclusive"),
        ({"api": api(series(calls(1000, 10)))}, "api-pods-post", "pass"),
        ({"api": api(series(calls(1000, 11)))}, "api-pods-post", "fail"),
        ({"api": api(series(calls(300, 3)))}, "api-pods-post", "pass"),
        ({"api": api(series(calls(300, 4)))}, "api-pods-post", "fail"),
        ({"api": api(series(calls(299, 299)), series(calls(300, 0), kind="PUT"))}, "api-pods-post", ""),
        ({"api": api(series(calls(299, 0)))}, "api-calls", "inconclusive"),
        ({"api": api(series(calls(1000, 0), calls(1000, 11)))}, "api-pods-post", "fail"),
        ({"api": api(series(calls(200, 0), calls(200, 0)))}, "api-pods-post", "pass"),  # together they are enough
        ({"api": api(series(sli.Calls(0.0, 300.0, 1000, None, (0.5, 5.0))))}, "api-calls", "inconclusive"),
        ({"api": sli.ApiLatency(None)}, "api-calls", "inconclusive"),
        ({"coverage": {"kube-apiserver-0": 0.9}}, "coverage-kube-apiserver-0", ""),
        ({"coverage": {"kube-apiserver-0": 0.89}}, "coverage-kube-apiserver-0", "inconclusive"),
        ({"lags": lags(loop=1.8)}, "lag-loop", "pass"),
        ({"lags": lags(loop=1.81)}, "lag-loop", "inconclusive"),
        ({"lags": lags(send=5.0)}, "lag-send", "pass"),
        ({"lags": lags(send=5.1)}, "lag-send", "inconclusive"),
        ({"lags": lags(observer=5.0)}, "lag-observer", "pass"),
        ({"lags": lags(observer=5.1)}, "lag-observer", "inconclusive"),
        ({"lags": {}}, "lag-loop", "inconclusive"),
        ({"phases": ({"name": "create", "state": "deadline", "note": ""},)}, "phase-create", "fail"),
        ({"phases": ({"name": "create", "state": "stopped", "note": ""},)}, "phase-create", "inconclusive"),
        ({"phases": ({"name": "create", "state": "running", "note": ""},)}, "phase-create", "inconclusive"),
    ],
)
def test_both_sides_of_each_limit(changes: dict[str, Any], name: str, outcome: str) -> None:
    found = judged(**changes)
    assert limit(found, name).outcome == outcome
    assert found.word == {"pass": PASS, "fail": FAIL, "inconclusive": INCONCLUSIVE, "": PASS}[outcome]


def churned(*rates: float) -> sli.Throughput:
    """So many a second in each window of 5 s from 0 on."""
    return dataclasses.replace(facts().throughput, churn=tuple((5.0 * n, rate) for n, rate in enumerate(rates)))


@pytest.mark.parametrize(
    ("p99", "lag", "outcome"),
    [
        (5.0, 0.1, "pass"),
        (5.2, 0.1, "fail"),
        (5.2, 0.2, "inconclusive"),  # the watch's own lag may be the 0.2 s that are too much
        (5.0, 4.0, "pass"),  # lag makes a startup longer, never shorter
        (math.inf, 0.1, "fail"),
    ],
)
def test_both_sides_of_pod_startup(p99: float, lag: float, outcome: str) -> None:
    assert limit(judged(starts=starts(p99), lags=lags(observer=lag)), "pod-startup").outcome == outcome


@pytest.mark.parametrize(("n", "outcome"), [(300, "pass"), (299, "inconclusive"), (0, "inconclusive")])
def test_a_startup_is_judged_by_enough_pods(n: int, outcome: str) -> None:
    found = judged(starts=starts(3.0, n))
    assert limit(found, "pod-startup").outcome == outcome
    assert found.word == {"pass": PASS}.get(outcome, INCONCLUSIVE)


def test_without_stateless_pods_there_is_no_startup_to_judge() -> None:
    found = judged(starts={("create", False): STARTS["create", True]})
    assert (found.word, limit(found, "pod-startup").role) == (PASS, "not applicable")
    assert limit(judged(starts={}), "pod-startup").reason == "no pod was observed"


def test_startups_are_judged_in_windows_of_five_minutes() -> None:
    later = starts(9.0, 300, intended=700.0)["create", True]
    for _ in range(20_000):
        later.add(0.0, 1.0)  # the p99 of all is 9 s, if only just
    found = limit(judged(starts={("create", True): later}), "pod-startup")
    assert found.outcome == "fail"
    assert found.value == "1 of 2 windows met; worst: p99 9 s of 300 pods"


def test_pods_that_nobody_saw_start_are_told_as_a_bound() -> None:
    fine, late, unclear = (judged(starts=starts(s, listed=n)) for s, n in ((4.0, 8000), (6.0, 81), (6.0, 8150)))
    assert limit(fine, "pod-startup").outcome == "pass"  # they took at most 4 s
    assert limit(late, "pod-startup").outcome == "fail"  # enough of the others were slow
    assert limit(unclear, "pod-startup").outcome == "inconclusive"
    assert "8,150 pods were not seen live" in limit(unclear, "pod-startup").reason


def test_churn_beyond_its_precondition_makes_a_startup_not_applicable() -> None:
    assert limit(judged(starts=starts(9.0), throughput=churned(20.0)), "pod-startup").outcome == "fail"
    found = judged(starts=starts(9.0), throughput=churned(20.1))
    assert (found.word, limit(found, "pod-startup").role) == (PASS, "not applicable")
    assert any("precondition not met: churn ≤ 20/s (busiest 5 s: 20/s)" in reason for reason in found.reasons)
    assert limit(judged(starts=starts(5.0), throughput=churned(90.0)), "pod-startup").outcome == "pass"


def test_a_window_of_calls_is_judged_where_the_churn_was_within_its_precondition() -> None:
    slow = calls(1000, 500, 0.0, 300.0), calls(1000, 0, 300.0, 600.0)
    name = "api-pods-post"
    assert limit(judged(api=api(series(*slow)), throughput=churned(20.0)), name).outcome == "fail"
    assert limit(judged(api=api(series(*slow)), throughput=churned(20.1)), name).role == "not applicable"
    both = calls(1000, 500, 0.0, 300.0), calls(1000, 500, 300.0, 600.0)  # the second one had no churn
    assert limit(judged(api=api(series(*both)), throughput=churned(20.1)), name).outcome == "fail"


@pytest.mark.parametrize(
    ("met", "voids", "role"),
    [(True, True, "gate"), (None, True, "gate"), (False, False, "gate"), (False, True, "not applicable")],
)
def test_a_threshold_that_is_not_kept_voids_what_is_broken(met: bool | None, voids: bool, role: str) -> None:
    nodes = Precondition("nodes", "Nodes of the cluster", "8,192", "≤ 5,000", met, voids)
    found = judged(preconditions=(nodes,), api=api(series(calls(1000, 500))))
    assert limit(found, "api-pods-post").role == role
    assert limit(judged(preconditions=(nodes,)), "api-pods-post").outcome == "pass"
    if role != "gate":
        assert "precondition not met: Nodes of the cluster ≤ 5,000 (8,192)" in limit(found, "api-pods-post").reason


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"recorded": 0.9}, "pass"),
        ({"recorded": 0.89}, "inconclusive"),
        ({"recorded": None}, "pass"),
        ({"meta": {"profile": {}, "finished": None}}, "inconclusive"),
    ],
)
def test_a_record_that_is_not_whole_is_inconclusive(changes: dict[str, Any], outcome: str) -> None:
    found = judged(**changes)
    assert limit(found, "record").outcome == outcome
    assert found.word == (PASS if outcome == "pass" else INCONCLUSIVE)


def test_many_limits_that_are_not_applicable_are_one_reason() -> None:
    slow = [series(calls(1000, 500), resource=name) for name in ("pods", "nodes", "leases", "events")]
    found = judged(api=api(*slow), throughput=churned(90.0)).reasons
    assert len(found) == 2
    assert found[1].startswith("4 limits are not applicable, such as API calls pods POST: 500 over 1 s of 1,000 calls")
    few = judged(api=api(slow[0]), throughput=churned(90.0)).reasons
    assert few[1].startswith("API calls pods POST: not applicable: 500 over 1 s of 1,000 calls")


@pytest.mark.parametrize(
    ("outcome", "word", "role"),
    [
        ("pass", PASS, "gate"),
        ("fail", FAIL, "gate"),
        ("inconclusive", INCONCLUSIVE, "gate"),
        ("", PASS, "not applicable"),
    ],
)
def test_a_limit_of_a_profile_is_a_gate(outcome: str, word: str, role: str) -> None:
    known = known_limits()["achieved_share"]
    found = judged(
        bounds=(Bound("base", "achieved_share", known, 0.95, outcome, "90.00%", "why" if outcome == "" else ""),)
    )
    each = limit(found, "limit-base-achieved_share")
    assert (found.word, each.role, each.title, each.limit) == (word, role, "Phase base: achieved_share", "≥ 0.95")
    run = judged(bounds=(Bound("", "seconds", known_limits()["seconds"], 60, "pass", "50 s"),))
    assert (limit(run, "limit-seconds").title, limit(run, "limit-seconds").limit) == ("The run: seconds", "≤ 60")


def test_pods_that_are_missing_in_a_record_without_an_end_may_have_run() -> None:
    never = {"pods": dataclasses.replace(PODS, running=8191, never=1)}
    assert judged(**never).word == FAIL
    found = judged(**never, meta={**facts().meta, "finished": None})
    assert (found.word, limit(found, "pods-running").outcome) == (INCONCLUSIVE, "inconclusive")
    slow = judged(leases=leases(0.9), meta={**facts().meta, "finished": None})
    assert slow.word == FAIL  # what is recorded is so


def test_restarts_that_were_asked_for_break_nothing() -> None:
    again = {"pods": dataclasses.replace(PODS, restarted=9)}
    assert judged(**again).word == FAIL
    assert judged(**again, meta={"finished": 1.0, "profile": {"turbokube_run_time": "5"}}).word == PASS


def test_pods_that_completed_or_were_removed_are_told() -> None:
    changed = dataclasses.replace(PODS, completed=8, removed=64, gone=64)
    counts = {**facts().counts, ("observer", "pods"): 8128, ("store", "pods"): 8128}
    found = judged(pods=changed, counts=counts)
    assert found.word == PASS
    assert limit(found, "pods-running").value == "8,192 of 8,192, 8 completed, 64 removed"


def test_a_run_that_only_read_is_judged_without_pods() -> None:
    none = Pods(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    counts = {key: 0 if key[1] == "pods" else n for key, n in facts().counts.items()}
    found = judged(pods=none, starts={}, counts=counts, offers=(offer(),))
    assert found.word == PASS
    assert not [each for each in found.limits if each.name.startswith("pods-")]
    assert limit(found, "pod-startup").reason == "no stateless pod was asked for"


def test_sending_is_judged_by_the_phase_that_was_the_latest() -> None:
    late = offer(lag=(10, 5.1, 6.0))
    assert judged(offers=(offer(), offer(lag=(10, 5.0, 6.0)))).word == PASS
    found = judged(offers=(offer(), late, offer(lag=(0, None, None))))
    assert limit(found, "lag-send").reason == "p99 5.1 s, max 6 s of 10, not p99 ≤ 5 s"


def test_a_rate_that_was_not_reached_is_named_and_no_gate() -> None:
    found = judged(offers=(offer(achieved_rate=9.5),))
    assert limit(found, "offered-read").value == "95% of 10/s"
    assert len(found.reasons) == 1
    found = judged(offers=(offer(achieved_rate=9.4),))
    assert (found.word, found.reasons[1]) == (PASS, "phase read reached 94% of 10/s")
    assert not [each for each in judged(offers=(offer(open_loop=False),)).limits if each.name == "offered-read"]


def offer(**changes: Any) -> Offer:
    counts = {"intended": 1000, "sent": 1000, "accepted": 1000, "throttled": 0, "retried": 0, "failed": 0}
    found = Offer("read", True, counts, 0.0, 100.0, 10.0, 10.0, (), (100, 0.1, 0.1))
    return dataclasses.replace(found, **changes)


def test_a_wrong_lease_ratio_is_not_laid_on_the_target_when_the_fleet_itself_lagged() -> None:
    assert judged(leases=leases(0.9), lags=lags(fleet=1.8)).word == FAIL
    assert judged(leases=leases(0.9), lags=lags(fleet=1.9)).word == INCONCLUSIVE
    assert judged(lags=lags(fleet=1.9)).word == PASS  # what was counted in band was made


def test_a_broken_gate_outweighs_what_could_not_be_judged() -> None:
    found = judged(pods=dataclasses.replace(PODS, lost=2), lags=lags(loop=9.0))
    assert found.word == FAIL
    assert found.reasons[0] == "No pod was lost: 2 lost, not 0 lost"


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (None, "–"),
        ((0.4, 0.6), "0.4–0.6 s"),
        ((60.0, math.inf), "over 60 s"),
        ((0.005, 0.01), "0.005–0.01 s"),
        ((0.00001, 0.0001), "0.01–0.1 ms"),
    ],
)
def test_an_interval_in_words(interval: tuple[float, float] | None, words: str) -> None:
    assert interval_words(interval) == words


def test_cpu_is_no_reason() -> None:
    words = " ".join(each.name for each in judged().limits)
    assert "cpu" not in words.lower()


def test_an_outage_is_named_and_what_broke_only_in_it_is_said_so() -> None:
    windows = ((0.0, 60.0, 1.0), (60.0, 120.0, 0.8), (120.0, 180.0, 1.0))
    found = judged(interruptions=(OUTAGE,), leases=(sli.LeaseRatio("fleet", 0.93, 180.0, windows),))
    named = "during the outage of kube-apiserver-0 00:01:40–00:01:52 UTC (12 s)"
    assert found.word == FAIL
    assert named in limit(found, "lease-ratio-fleet").reason
    assert named in limit(found, "lease-ratio-fleet-worst").reason
    assert "outage of kube-apiserver-0 00:01:40–00:01:52 UTC (12 s) (connection refused)" in found.reasons


def test_what_broke_outside_of_an_outage_is_not_laid_on_it() -> None:
    windows = ((0.0, 60.0, 0.9), (60.0, 120.0, 0.8))
    bad = api(series(calls(1000, 500, 300.0, 600.0)))
    found = judged(interruptions=(OUTAGE,), leases=(sli.LeaseRatio("fleet", 0.85, 120.0, windows),), api=bad)
    assert not any("during" in each.reason for each in found.limits)


def test_slow_calls_within_an_outage_are_said_to_be() -> None:
    bad = api(series(calls(1000, 500, 0.0, 300.0), calls(1000, 0, 300.0, 600.0)))
    reason = limit(judged(interruptions=(OUTAGE,), api=bad), "api-pods-post").reason
    assert reason.startswith("1 of 2 windows met; worst: 500 over 1 s of 1,000 calls")
    assert "during the outage of kube-apiserver-0" in reason


def test_an_outage_that_broke_nothing_leaves_the_verdict_but_is_named() -> None:
    found = judged(interruptions=(OUTAGE,), coverage={"kube-apiserver-0": 0.5})
    assert found.word == PASS
    assert any(reason.startswith("outage of kube-apiserver-0") for reason in found.reasons)


def test_an_interruption_of_ours_is_named_with_the_pods_seen_live() -> None:
    away = sli.Interruption(100.0, 130.0, "agent", "the run had no agent", ours=True)
    found = judged(interruptions=(away,))
    assert found.word == PASS
    assert any("measurement interrupted (agent)" in reason and "8192 pods" in reason for reason in found.reasons)


def _gathered(folder: Path) -> Verdict:
    with Reader(folder) as reader:
        return verdict.judge(verdict.gather(reader, Metrics(reader), LIMITS), LIMITS)


def test_an_empty_bundle_is_inconclusive(tmp_path: Path) -> None:
    Writer(tmp_path / "run").close(finish=True)
    found = _gathered(tmp_path / "run")
    assert (found.word, found.reasons) == (INCONCLUSIVE, ("no load was recorded in this bundle",))


def test_a_healthy_quickstart_passes(healthy: Path) -> None:
    assert _gathered(healthy).word == PASS


@pytest.mark.parametrize(
    ("shape", "word", "name"),
    [
        ({"never": 3}, FAIL, "pods-running"),
        ({"lease_share": 0.95}, FAIL, "lease-ratio-fleet"),
        ({"slow_share": 0.02, "rate": 15.0, "namespaces": 8}, FAIL, "api-pods-post"),
        ({"lag": {"loop": 4.0, "send": 0.1, "observer": 0.1}}, INCONCLUSIVE, "lag-loop"),
        ({"outage": (40.0, 55.0)}, FAIL, "lease-ratio-fleet"),
    ],
)
def test_whole_runs(synthetic: ModuleType, tmp_path: Path, shape: dict[str, Any], word: str, name: str) -> None:
    found = _gathered(synthetic.make(tmp_path / "run", synthetic.Shape(**shape)))
    assert found.word == word
    assert limit(found, name).outcome == word.lower()


def test_without_scrapes_of_the_api_server_its_calls_are_not_judged(synthetic: ModuleType, tmp_path: Path) -> None:
    folder = synthetic.make(tmp_path / "run")
    writer = Writer(folder)
    writer.execute("DELETE FROM samples WHERE series IN (SELECT id FROM series WHERE kind = 'kube-apiserver')", [()])
    writer.execute("DELETE FROM series WHERE kind = 'kube-apiserver'", [()])
    writer.close(finish=True)
    found = _gathered(folder)
    assert found.word == INCONCLUSIVE
    assert limit(found, "api-calls").reason == "no API server was scraped"
