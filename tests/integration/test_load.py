"""The agent on a real control plane: exact totals, whoever dies in between, and counts that agree."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest

from tests.integration.control_plane import binaries, playbook
from tests.integration.runs import RUN, VNODES, Run
from turbokube.agent import drive
from turbokube.bundle.writer import BundleError
from turbokube.daemon.control import ControlError


def test_a_run_from_its_beginning_to_one_file(run: Run) -> None:
    phase = run.phase()
    drive.check(run.target, run.bundle, run.spec, RUN)
    sizes = {"namespaces": 2, "objects": 4, "accepted": 0, "pods": 12}
    assert drive.plan(run.bundle, phase) == {"name": "create", "kind": "create", **sizes}
    answer = run.to_the_end(phase)
    assert answer["begun"]
    progress = answer["progress"]
    assert (progress["state"], progress["intended"], progress["created"], progress["running"]) == ("done", 12, 12, 12)

    again = run.advance(phase)
    assert not again["begun"]
    assert again["progress"]["running"] == 12
    with pytest.raises(ControlError, match=r"begun with other settings: objects .*'replicas': 3.* → .*'replicas': 4"):
        run.advance(run.phase(replicas=4))
    with pytest.raises(ControlError, match="driven by another ansible-playbook"):
        run.driver("another").call("follow", names=["create"], wait=0)

    second = run.to_the_end(run.phase(name="more", first_namespace=2, namespaces=1, rate=5.0))
    assert (second["progress"]["state"], second["progress"]["running"]) == ("done", 6)
    assert run.finish()
    assert sorted(path.name for path in run.bundle.iterdir()) == ["bundle.sqlite", "run.json"]
    assert_complete(run, 18)
    assert not run.finish()
    assert drive.ended(run.bundle, RUN, [phase]) == [{"phase": "create", "state": "done", "note": ""}]
    with pytest.raises(BundleError, match="is finished and holds no such phase other"):
        drive.ended(run.bundle, RUN, [run.phase(name="other")])


def assert_complete(run: Run, pods: int, *, surplus: bool = False) -> None:
    """Every pod ran once, was seen, and is counted alike by all.

    `surplus`: pods may have been deleted, as a ReplicaSet does with one whose creation was never answered.
    """
    there = "deleted_seen IS NULL" if surplus else "TRUE"
    assert {uid for (uid,) in run.query(f"SELECT uid FROM pods WHERE {there}")} == set(run.pods())
    bad = "running_seen IS NULL OR deleted_seen IS NOT NULL OR restarts OR seen > running_seen OR bound_seen < seen"
    assert run.query(f"SELECT * FROM pods WHERE ({bad}) AND {there}") == []
    joined = "pods JOIN objects ON owner = objects.name AND pods.namespace = objects.namespace"
    in_order = "intended <= sent AND sent <= accepted"
    assert run.query(f"SELECT count(*) FROM {joined} WHERE {in_order} AND {there}") == [(pods,)]
    assert run.query("SELECT * FROM objects WHERE accepted IS NULL OR ready IS NULL OR failed") == []
    counts = run.query("SELECT resource, source, count FROM counts ORDER BY 1, 2")
    assert counts == [
        ("leases", "api", VNODES),
        ("leases", "store", VNODES),
        *(("nodes", source, VNODES) for source in ("api", "observer", "store")),
        *(("pods", source, pods) for source in ("api", "observer", "store")),
    ]
    meta = dict(run.query("SELECT key, value FROM meta WHERE key = 'object_bytes'"))
    sizes = json.loads(meta["object_bytes"])
    assert sizes["nodes"] > 1000
    assert sizes["pods"] > 1000
    assert sizes["leases"] > 200
    kinds = {"agent", "etcd", "fleet", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    for metric in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
        assert {kind for (kind,) in run.query(f"SELECT kind FROM series WHERE metric = '{metric}'")} == kinds
    refused = "SELECT DISTINCT component FROM scrapes WHERE NOT ok AND error LIKE '40%'"
    # a restarted API server refuses everybody until it has read its RBAC objects
    assert {name for (name,) in run.query(refused)} <= ({"kube-apiserver-0"} if surplus else set())
    assert run.query("SELECT max(ready), max(notready_events) FROM nodes") == [(VNODES, 0)]


def test_the_agent_is_killed_and_nothing_is_lost_or_done_twice(run: Run) -> None:
    phase = run.phase(deployments=16)
    run.to_the_end(phase, until=lambda progress: progress["created"] >= 20)
    run.kill("agent")
    before = run.pods()
    clocks = "SELECT uid, seen, bound_seen, running_seen FROM pods WHERE running_seen IS NOT NULL"
    ran = run.query(clocks)
    accepted = "SELECT namespace, name, intended, sent, accepted FROM objects WHERE accepted IS NOT NULL"
    kept = run.query(accepted)
    with contextlib.suppress(ConnectionError):
        run.client.call("status")
        pytest.fail("the agent lives")

    assert run.to_the_end(phase)["progress"]["state"] == "done"
    after = run.pods()
    assert len(after) == 96
    assert before.items() <= after.items()
    run.finish()
    assert_complete(run, 96)
    assert set(ran) <= set(run.query(clocks))
    assert set(kept) <= set(run.query(accepted))
    ((started, ended),) = run.query("SELECT started, ended FROM interruptions WHERE what = 'agent'")
    assert 0 < ended - started < 30


def test_the_api_server_dies_and_comes_back(run: Run) -> None:
    phase = run.phase(deployments=16)
    run.to_the_end(phase, until=lambda progress: progress["created"] >= 20)
    run.kill("kube-apiserver-0")
    assert run.to_the_end(phase)["progress"]["state"] == "done"
    assert len(run.pods()) == 96
    time.sleep(3)  # a scrape of each
    run.finish()
    assert_complete(run, 96, surplus=True)
    rows = run.query("SELECT started, ended, detail FROM interruptions WHERE what = 'kube-apiserver-0'")
    assert len(rows) >= 1
    assert all(0 < ended - started < 60 for started, ended, _ in rows)
    assert any("restarted" in detail for _, _, detail in rows)


def test_another_profile_starts_nothing(run: Run) -> None:
    run.to_the_end(run.phase(namespaces=1, deployments=1, replicas=1))
    other = {**run.spec, "profile": {"turbokube_namespaces": 3}}
    with pytest.raises(BundleError, match="turbokube_namespaces 2 → 3"):
        drive.check(run.target, run.bundle, other, RUN)
    run.client.call("stop")


def test_roles_load_and_collect(run: Run) -> None:
    """The same through the collection, twice: the second time changes nothing."""
    common = {"load_state_dir": str(run.state), "load_run": RUN, "load_bundle": str(run.bundle)}
    phase = {"load_namespaces": 1, "load_deployments": 2, "load_replicas": 3}
    url = run.spec["extra_components"][0]["url"] + "/metrics"
    collect = {
        "collect_run": RUN,
        "collect_state_dir": str(run.state),
        "collect_bundle": str(run.bundle),
        "collect_kubectl": binaries()["kubectl"],
        "collect_verdict": "FAIL",
    }

    def play(*tasks: dict[str, Any], check: bool = False) -> dict[str, int]:
        roles = [{"role": f"turbokube.scale.{task.pop('role')}", "vars": task} for task in tasks]
        plays = [{"hosts": "admin", "gather_facts": False, "roles": roles}]
        return playbook(plays, {}, {"admin": 1}, *(["--check"] if check else []))["admin-0"]

    load = {"role": "load", **common, **phase, "load_fleet_metrics_urls": [url]}
    assert play(dict(load), check=True)["changed"] == 1
    assert not run.bundle.exists()
    assert play(dict(load))["changed"] == 1
    assert len(run.pods()) == 6
    assert play(dict(load))["changed"] == 0
    assert play({"role": "load", **common, "load_state": "finished"}, {"role": "collect", **collect})["changed"] == 2
    assert run.query("SELECT state FROM phases") == [("done",)]
    assert play(dict(load), {"role": "load", **common, "load_state": "finished"})["changed"] == 0

    found = {path.name for path in (run.bundle / "collect").iterdir()}
    assert {"nodes.json", "deployments.json", "events.json", "leases.json", "logs"} <= found
    assert "kube-apiserver-0.log" in {path.name for path in (run.bundle / "collect" / "logs").iterdir()}
    assert len(json.loads((run.bundle / "collect" / "nodes.json").read_text())["items"]) == VNODES
    assert not [path for path in (run.bundle / "collect").rglob("*.json") if '"kind":"Secret' in path.read_text()]
