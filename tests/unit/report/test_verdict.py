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
from turbokube.measure.fidelity import Fidelity
from turbokube.measure.series import Metrics
from turbokube.measure.verdict import FAIL, INCONCLUSIVE, PASS, Facts, Limit, Verdict

LIMITS = verdict.load_limits()
OUTAGE = sli.Interruption(100.0, 112.0, "kube-apiserver-0", "connection refused", ours=False)


def calls(n: int, slow: int, begin: float = 0.0, end: float = 300.0) -> sli.Calls:
    return sli.Calls(begin, end, n, n - slow, (0.6, 0.8))


def series(*windows: sli.Calls, resource: str = "pods", kind: str = "POST") -> sli.CallSeries:
    whole = calls(sum(each.n for each in windows), sum(each.n - (each.within or 0) for each in windows))
    return sli.CallSeries(resource, kind, 1.0, whole, windows)


def startup(p99: float | None, never: int = 0) -> sli.Startup:
    found = {"p50": 1.0, "p90": 1.0, "p99": p99, "max": p99}
    return sli.Startup("intended → seen running", 8192, never, 0, found, array("d"))


def facts(**changes: Any) -> Facts:
    """A run in which nothing went wrong."""
    good = Facts(
        meta={"profile": {"turbokube_lease_interval_s": 10, "turbokube_node_monitor_grace_s": 50}},
        phases=({"name": "create", "state": "done", "note": ""},),
        pods=sli.Pods(8192, 8192, 8192, 8192, 0, 0, 0, 0, 0),
        nodes=sli.Nodes(256, 256, 1.0, 0, ()),
        api=sli.ApiLatency("apiserver_request_sli_duration_seconds", ((0.0, 300.0),), (series(calls(1000, 0)),)),
        startups=(startup(3.0),),
        throughput=sli.Throughput(8192, 0.0, 110.0, 5.0, 74.0, 80.0, 80.0),
        leases=(sli.LeaseRatio("fleet", 1.0, 120.0, ((0.0, 60.0, 1.0),)),),
        oldest_renewal=10.2,
        interruptions=(),
        counts={("store", name): n for name, n in (("pods", 8192), ("nodes", 256), ("leases", 256))},
        lags={"loop": (100, 0.02, 0.1), "send": (100, 0.02, 0.1), "observer": (100, 0.2, 0.4), "fleet": (9, 0.1, 0.1)},
        coverage={"kube-apiserver-0": 0.99},
        fidelity=Fidelity("lease"),
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
    assert {each.role for each in found.limits} == {"gate", "report", "not applicable"}


PODS = sli.Pods(8192, 8192, 8192, 8192, 0, 0, 0, 0, 0)
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
        ({"pods": dataclasses.replace(PODS, running=8191)}, "pods-running", "fail"),
        ({"pods": dataclasses.replace(PODS, restarted=1)}, "pods-once", "fail"),
        ({"pods": dataclasses.replace(PODS, surplus=1)}, "pods-once", "fail"),
        ({"pods": dataclasses.replace(PODS, lost=1)}, "pods-lost", "fail"),
        ({"nodes": dataclasses.replace(NODES, notready=1)}, "nodes-ready", "fail"),
        ({"nodes": dataclasses.replace(NODES, ready=255)}, "nodes-ready", "fail"),
        ({"nodes": None}, "nodes-ready", "inconclusive"),
        ({"fidelity": Fidelity("none")}, "fidelity", "inconclusive"),
        ({"fidelity": Fidelity("kubelet", "not node")}, "fidelity", "inconclusive"),
        ({"fidelity": Fidelity("kubelet", "not node"), "meta": {"fidelity": "kubelet"}}, "fidelity", "pass"),
        ({"fidelity": Fidelity("", "nothing was counted")}, "fidelity", ""),
        ({"counts": {**facts().counts, ("store", "pods"): 8191}}, "counts-pods", "fail"),
        ({"counts": {("api", name): n for (_, name), n in facts().counts.items()}}, "counts-pods", "pass"),
        ({"counts": {}}, "counts-pods", "inconclusive"),
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


def _calm(churn: float) -> sli.Throughput:
    return dataclasses.replace(facts().throughput, churn=churn)


@pytest.mark.parametrize(
    ("churn", "p99", "lag", "outcome"),
    [
        (20.1, 9.0, 0.1, ""),
        (20.0, 5.0, 0.1, "pass"),
        (20.0, 5.2, 0.1, "fail"),
        (20.0, 5.2, 0.2, "inconclusive"),  # the watch's own lag may be the 0.2 s that are too much
        (20.0, 5.0, 4.0, "pass"),  # lag makes a startup longer, never shorter
        (20.0, math.inf, 0.1, "fail"),
        (20.0, None, 0.1, "inconclusive"),
    ],
)
def test_pod_startup_is_a_gate_only_within_its_precondition(
    churn: float, p99: float | None, lag: float, outcome: str
) -> None:
    found = judged(throughput=_calm(churn), startups=(startup(p99),), lags=lags(observer=lag))
    gate = limit(found, "pod-startup")
    assert gate.outcome == outcome
    if not outcome:
        assert gate.role == "not applicable"
        assert any("precondition churn ≤ 20/s not met" in reason for reason in found.reasons)


def test_a_wrong_lease_ratio_is_not_laid_on_the_target_when_the_fleet_itself_lagged() -> None:
    assert judged(leases=leases(0.9), lags=lags(fleet=1.8)).word == FAIL
    assert judged(leases=leases(0.9), lags=lags(fleet=1.9)).word == INCONCLUSIVE
    assert judged(lags=lags(fleet=1.9)).word == PASS  # what was counted in band was made


def test_a_broken_gate_outweighs_what_could_not_be_judged() -> None:
    found = judged(pods=dataclasses.replace(PODS, lost=2), lags=lags(loop=9.0))
    assert found.word == FAIL
    assert found.reasons[0] == "No pod was lost: 2 lost, not 0 lost"


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
        ({"slow_share": 0.02}, FAIL, "api-pods-post"),
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
