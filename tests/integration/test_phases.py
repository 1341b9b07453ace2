"""Phases of every shape on a real control plane, through the agent, whoever dies; and what the bundle says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.control_plane import playbook
from tests.integration.runs import RUN, Run
from turbokube.agent import drive
from turbokube.load.check import prepared
from turbokube.profile.phase_input import Defaults, parse

DEFAULTS = Defaults(run=RUN, namespaces=2, deadline=60.0, concurrency=2)
PHASES: list[dict[str, Any]] = [
    {
        "name": "base",
        "kind": "create",
        "objects": [
            {"template": "deployment", "count": 4, "replicas": 2},
            {"template": "statefulset", "replicas": 2},
            {"template": "service"},
            {"template": "configmap", "count": 3, "bytes": 2000},
            {"template": "secret"},
        ],
    },
    {"name": "jobs", "kind": "create", "rate": {"ramp": [2, 10, 1]}, "objects": [{"template": "job", "replicas": 2}]},
    {
        "together": [
            {"name": "churn", "kind": "churn", "of": "base", "template": "deployment", "rate": 3, "duration": 5},
            {"name": "lists", "kind": "read", "rate": {"poisson": 20}, "duration": 4},
            {"name": "watches", "kind": "read", "verb": "watch", "resource": "configmaps", "held": 5, "duration": 4},
        ]
    },
    {"name": "grow", "kind": "scale", "of": "base", "template": "deployment", "replicas": 3},
    {"name": "roll", "kind": "roll", "of": "base", "template": "deployment", "share": 0.5},
    {
        "name": "label",
        "kind": "patch",
        "of": "base",
        "template": "configmap",
        "patch": {"metadata": {"labels": {"tier": "silver"}}},
    },
    {"name": "calm", "kind": "pause", "duration": 1},
    {"name": "look", "kind": "scrape"},
    {"name": "clear", "kind": "delete", "of": "jobs"},
    {"name": "over", "kind": "wait", "for": "pods_running"},
]


def test_many_shapes_and_some_of_them_at_once(run: Run) -> None:
    for group in parse(PHASES, DEFAULTS):
        drive.check(run.target, run.bundle, run.spec, RUN)
        if len(group) > 1:
            run.to_the_end(*group, until=lambda progress: progress["words"].startswith("2 "))
            run.kill("agent")
        answer = run.to_the_end(*group)
        assert {one["phase"]: (one["state"], one["note"]) for one in answer["all"]} == {
            phase.name: ("done", "") for phase in group
        }
    run.finish()
    _objects_and_actions(run)
    _requests(run)
    _pods(run)


def _objects_and_actions(run: Run) -> None:
    """Each object was created once and each action done once, also by the agent that was killed."""
    assert run.query("SELECT * FROM objects WHERE accepted IS NULL OR ready IS NULL OR failed") == []
    kinds = dict(run.query("SELECT kind, count(*) FROM objects GROUP BY kind"))
    assert kinds == {
        "Namespace": 2, "Deployment": 8, "StatefulSet": 2, "Service": 2, "ConfigMap": 6, "Secret": 2, "Job": 2,
    }  # fmt: skip
    assert run.query("SELECT * FROM actions WHERE accepted IS NULL OR done IS NULL OR failed") == []
    counts = run.query("SELECT phase, verb, count(*), max(number) + 1 FROM actions GROUP BY phase, verb ORDER BY 1, 2")
    assert counts == [
        ("churn", "create", 15, 30),
        ("churn", "delete", 15, 29),
        ("clear", "delete", 2, 2),
        ("grow", "scale", 8, 8),
        ("label", "patch", 6, 6),
        ("roll", "roll", 4, 4),
    ]
    labelled = run.plane.kubectl("get", "configmaps", "-A", "-l", f"turbokube.io/run={RUN},tier=silver", "-o", "name")
    assert len(labelled.split()) == 6


def _requests(run: Run) -> None:
    """Intended, sent and accepted agree where nothing went wrong, and every accepted one has a latency."""
    sums = {
        phase: (intended, accepted)
        for phase, intended, accepted in run.query(
            "SELECT phase, sum(intended), sum(accepted) FROM requests GROUP BY phase"
        )
    }
    assert sums["grow"] == (8, 8)
    assert sums["label"] == (6, 6)
    intended, accepted = sums["lists"]
    assert 40 < accepted <= intended < 130  # 20 a second for 4 seconds; the agent was away for some of them
    latencies = dict(run.query("SELECT phase, sum(count) FROM latencies GROUP BY phase"))
    assert latencies["grow"] == 8
    assert accepted - 40 < latencies["lists"] <= accepted
    assert run.query("SELECT max(held) FROM watches WHERE phase = 'watches'") == [(5,)]


def _pods(run: Run) -> None:
    """What is there at the end is what was wanted, by all who count."""
    pods = 8 * 3 + 2 * 2
    assert len(run.pods()) == pods
    assert run.query("SELECT source, count FROM counts WHERE resource = 'pods' ORDER BY 1") == [
        (source, pods) for source in ("api", "observer", "store")
    ]
    ended = run.query("SELECT count(*) FROM pods WHERE owner LIKE 'job-%' AND phase = 'Succeeded'")
    assert ended == [(4,)]
    spec = json.loads(run.query("SELECT spec FROM phases WHERE name = 'lists'")[0][0])
    assert (spec["kind"], spec["rate"]) == ("read", {"poisson": 20.0})


def test_the_role_carries_them_out_once(run: Run) -> None:
    calm, grow = {"kind": "pause", "duration": 1}, {"kind": "scale", "of": "base", "factor": 2}
    base = {"name": "base", "kind": "create", "objects": [{"count": 2, "replicas": 2}]}
    phases = [base, {"together": [{"name": "calm", **calm}, {"name": "grow", **grow}]}]
    load = {
        "role": "turbokube.scale.load",
        "vars": {
            "load_state_dir": str(run.state),
            "load_run": RUN,
            "load_bundle": str(run.bundle),
            "load_namespaces": 1,
            "load_phases": phases,
        },
    }
    plays = [{"hosts": "admin", "gather_facts": False, "roles": [load]}]
    assert playbook(plays, {}, {"admin": 1}, "--check")["admin-0"]["changed"] == 1
    assert not run.bundle.exists()
    assert playbook(plays, {}, {"admin": 1})["admin-0"]["changed"] == 1
    assert len(run.pods()) == 8
    assert playbook(plays, {}, {"admin": 1})["admin-0"]["changed"] == 0


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: carts.shop.example}
spec:
  group: shop.example
  scope: Namespaced
  names: {plural: carts, singular: cart, kind: Cart}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
CART = """
apiVersion: shop.example/v1
kind: Cart
metadata: {name: "{{ name }}"}
spec: {size: {{ size }}}
"""


def test_other_kinds_and_what_their_ends_are(run: Run, tmp_path: Path) -> None:
    """Custom resources, DaemonSets and StatefulSets; namespaces that go and come back."""
    (tmp_path / "crd.yaml").write_text(CRD)
    (tmp_path / "cart.yaml").write_text(CART)
    cart = {"template": str(tmp_path / "cart.yaml"), "vars": {"size": 3}}
    phases: list[dict[str, Any]] = [
        {
            "name": "kinds",
            "kind": "create",
            "objects": [
                {"template": str(tmp_path / "crd.yaml")},
                {**cart, "count": 3},
                {"template": "daemonset"},
                {"template": "statefulset", "replicas": 2, "vars": {"pod_management_policy": "Parallel"}},
                {"template": "pod", "count": 2},
            ],
        },
        {"name": "roll", "kind": "roll", "of": "kinds", "concurrency": 4},
        {"name": "fewer", "kind": "scale", "of": "kinds", "factor": 0.5},
        {
            "name": "grow",
            "kind": "patch",
            "of": "kinds",
            "template": "cart",
            "patch": {"spec": {"size": "{{ round + 4 }}"}},
            "repeat": 3,
        },
        {"name": "carts", "kind": "read", "resource": "carts.shop.example", "verb": "get", "rate": 20, "duration": 1},
        {"name": "pages", "kind": "read", "protobuf": True, "limit": 3, "rate": 5, "duration": 1},
        {"name": "again", "kind": "churn", "of": "kinds", "by": "namespace", "share": 0.5, "duration": 1},
        {"name": "clear", "kind": "delete", "of": "kinds", "propagation": "foreground"},
    ]
    for group in parse(phases, DEFAULTS):
        ready = [prepared(phase) for phase in group]
        answer = run.to_the_end(*ready)
        assert {(one["state"], one["note"]) for one in answer["all"]} == {("done", "")}, answer["all"]
        if ready[0].name == "grow":
            sizes = run.plane.kubectl("get", "carts", "-A", "-o", "jsonpath={.items[*].spec.size}")
            assert sizes.split() == ["6"] * 6
        if ready[0].name == "again":
            assert len(run.pods()) == 2 * (8 + 2) + 1 + 2  # one namespace as it was created, one as it was scaled
    run.finish()
    assert run.query("SELECT * FROM objects WHERE accepted IS NULL OR ready IS NULL OR failed") == []
    assert run.query("SELECT * FROM actions WHERE accepted IS NULL OR done IS NULL OR failed") == []
    assert run.query("SELECT DISTINCT replicas, stateless FROM objects WHERE kind = 'DaemonSet'") == [(8, 0)]
    counts = dict(run.query("SELECT phase, count(*) FROM actions GROUP BY phase"))
    assert counts.pop("again") % (2 + 7) == 0
    assert counts == {"roll": 4, "fewer": 2, "grow": 18, "clear": 15}
    sums = dict(run.query("SELECT phase, sum(accepted) FROM requests WHERE verb IN ('get', 'list') GROUP BY phase"))
    assert sums["carts"] == 20
    assert sums["pages"] >= 5 * (24 // 3)
    assert not run.pods()
    assert run.plane.kubectl("get", "crd", "-o", "name") == ""
