"""Verdicts of real runs: load of many shapes breaks no gate, and each reason for INCONCLUSIVE can be met."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import msgspec
import pytest

from tests.integration.runs import Run
from tests.integration.test_phases import DEFAULTS, PHASES
from turbokube.daemon import process
from turbokube.measure.outcome import FAIL, INCONCLUSIVE, Limit
from turbokube.measure.verdict import Verdict
from turbokube.profile.phase_input import parse
from turbokube.report import render


def limit(found: Verdict, name: str) -> Limit:
    return next(each for each in found.limits if each.name == name)


def phases(run: Run, *asked: dict[str, Any]) -> None:
    """Carry them out, one group after the other."""
    for group in parse(list(asked), DEFAULTS):
        run.to_the_end(*group)


@pytest.mark.slow
def test_load_of_many_shapes_breaks_no_gate(run: Run) -> None:
    run.spec["profile"] |= {"turbokube_limits": {"failed_share": 0, "seconds": 600}}
    phases(run, *PHASES)
    run.finish()
    facts, found = run.judged()
    broken = [each for each in found.limits if each.outcome == "fail"]
    assert [each for each in broken if not each.name.startswith(("api-", "lease-"))] == []  # a busy machine may be slow
    assert [limit(found, f"limit-{name}").outcome for name in ("failed_share", "seconds")] == ["pass", "pass"]
    pods = facts.pods
    # 8 deployments of 2, one more pod each, 15 made anew and 4 rolled; 2 stateful sets and 2 jobs of 2
    assert pods.planned == 16 + 15 * 2 + 8 + 4 * 3 + 4 + 4
    assert (pods.never, pods.lost, pods.surplus, pods.completed) == (0, 0, 0, 4)
    assert pods.running <= pods.planned  # what is churned again before it ran is excused
    offers = {offer.phase: offer for offer in facts.offers}
    assert offers["lists"].achieved_share is not None
    assert offers["lists"].achieved_share > 0.8
    assert offers["base"].achieved_share is None
    assert all(latency.percentiles["p99"] for latency in offers["lists"].latency)
    written = render.write(run.bundle)
    assert {"report.html", "namespaces.csv"} <= written.paths.keys()


def test_nothing_but_a_pause_is_no_sample(run: Run) -> None:
    phases(run, {"name": "calm", "kind": "pause", "duration": 0.5})
    run.finish()
    _, found = run.judged()
    assert (found.word, found.reasons) == (INCONCLUSIVE, ("no load was recorded in this bundle",))


def test_a_run_that_was_not_finished_has_no_whole_record_and_a_small_one_too_few_calls(run: Run) -> None:
    run.to_the_end(run.phase())
    run.kill("agent")
    _, found = run.judged()
    assert found.word == INCONCLUSIVE
    assert "the run was not finished" in limit(found, "record").reason
    assert limit(found, "api-calls").reason == "no series has 300 calls"
    assert limit(found, "counts-pods").outcome == "inconclusive"


@pytest.mark.slow
def test_vnodes_of_another_fidelity_than_was_asked_for(run: Run) -> None:
    run.spec["profile"] |= {"turbokube_fidelity": "kubelet"}
    phases(run, {"name": "create", "kind": "create"}, {"name": "calm", "kind": "pause", "duration": 30})
    run.finish()
    _, found = run.judged()
    assert found.word == INCONCLUSIVE
    assert limit(found, "fidelity").reason.startswith("kubelet was asked for, lease was measured")


@pytest.mark.slow
def test_an_api_server_whose_metrics_nobody_got(run: Run) -> None:
    away = [
        msgspec.structs.replace(each, metrics_path="/nothing") if each.kind == "kube-apiserver" else each
        for each in run.target.components
    ]
    run.target = msgspec.structs.replace(run.target, components=away)
    phases(run, {"name": "create", "kind": "create"})
    run.finish()
    _, found = run.judged()
    assert found.word == INCONCLUSIVE
    assert limit(found, "api-calls").reason == "no API server was scraped"


@pytest.mark.slow
def test_an_agent_that_stands_still_lags(run: Run) -> None:
    create = {"name": "create", "kind": "create", "rate": 2, "objects": [{"count": 10, "replicas": 1}]}
    (group,) = parse([{**create, "limits": {"lag_p99_s": 1}}], DEFAULTS)
    run.to_the_end(*group, until=lambda progress: progress["created"] > 2)
    agent = process.find(run.state, "agent")
    assert agent is not None
    os.kill(agent.pid, signal.SIGSTOP)
    time.sleep(7)
    os.kill(agent.pid, signal.SIGCONT)
    run.to_the_end(*group)
    run.finish()
    _, found = run.judged()
    assert found.word in (INCONCLUSIVE, FAIL)
    assert {name: limit(found, name).outcome for name in ("lag-loop", "lag-send", "limit-create-lag_p99_s")} == {
        "lag-loop": "inconclusive", "lag-send": "inconclusive", "limit-create-lag_p99_s": "inconclusive",
    }  # fmt: skip
