"""bench/fidelity: how an audit log is counted, and what is called a difference."""

from __future__ import annotations

import json
from typing import Any

from bench.fidelity import table, tally
from bench.fidelity.plane import metrics

NODE = "system:node:real-0"


def line(
    second: float, verb: str, resource: str, *, user: str = NODE, stage: str = "ResponseComplete", **more: Any
) -> str:
    """An audit event whose request came at 12:00:00 and whose stage was `second` later."""
    of = {"resource": resource, "subresource": more.get("subresource", ""), "name": more.get("name", "")}
    return json.dumps(
        {
            "stage": stage,
            "verb": verb,
            "user": {"username": user},
            "userAgent": "kubelet/v1.36.3",
            "objectRef": of,
            "requestURI": f"/api/v1/{resource}?watch=true",
            "responseStatus": {"code": more.get("code", 200)},
            "requestReceivedTimestamp": "2026-01-01T12:00:00.000000Z",
            "stageTimestamp": f"2026-01-01T12:00:{second:09.6f}Z",
        }
    )


START = tally._seconds("2026-01-01T12:00:00.000000Z")


def test_only_what_nodes_asked_is_counted() -> None:
    lines = [
        line(1, "update", "leases"),
        line(1, "update", "leases", user="system:kube-controller-manager"),
        line(1, "list", "pods", user="kubernetes-super-admin"),
        line(1, "get", "serviceaccounts", user="system:serviceaccount:kube-system:generic-garbage-collector"),
        line(1, "update", "leases", user="turbokube:fleet"),
    ]
    found = tally.count(tally.read(lines), START, START + 60)
    assert found.requests == {"update leases": 2}
    assert found.users == {NODE, "turbokube:fleet"}


def test_subresources_and_failures_are_told_apart() -> None:
    lines = [
        line(1, "patch", "pods", subresource="status"),
        line(1, "create", "serviceaccounts", subresource="token"),
        line(1, "get", "nodes", code=404),
        line(1, "get", "nodes", stage="RequestReceived"),
    ]
    found = tally.count(tally.read(lines), START, START + 60)
    assert found.requests == {"patch pods/status": 1, "create serviceaccounts/token": 1, "get nodes": 1}
    assert found.failed == {"404 get nodes": 1}


def test_the_window_begins_and_ends() -> None:
    lines = [line(second, "update", "leases") for second in (0.5, 10, 20, 30)]
    found = tally.count(tally.read(lines), START + 10, START + 30)
    assert found.requests == {"update leases": 2}


def test_a_watch_is_counted_once_when_it_begins() -> None:
    lines = [line(0, "watch", "pods", stage="ResponseStarted"), line(40, "watch", "pods")]
    assert tally.count(tally.read(lines), START, START + 60).requests == {"watch pods": 1}
    assert tally.count(tally.read(lines), START + 30, START + 60).requests == {}


def test_open_watches_are_those_that_have_not_ended() -> None:
    lines = [
        line(0, "watch", "pods", stage="ResponseStarted"),
        line(0, "watch", "pods", stage="ResponseStarted"),
        line(20, "watch", "pods"),
        line(0, "watch", "nodes", stage="ResponseStarted", user=tally.KUBE_PROXY),
        line(0, "watch", "secrets", stage="ResponseStarted", code=403),
    ]
    assert tally.open_watches(tally.read(lines), START + 10) == {"pods": 2, "kube-proxy: nodes": 1}
    assert tally.open_watches(tally.read(lines), START + 30) == {"pods": 1, "kube-proxy: nodes": 1}


def test_kube_proxy_is_told_apart() -> None:
    lines = [line(1, "watch", "services", stage="ResponseStarted", user=user) for user in (NODE, tally.KUBE_PROXY)]
    found = tally.count(tally.read(lines), START, START + 60)
    assert found.requests == {"watch services": 1, "kube-proxy: watch services": 1}


def result(requests: dict[str, float], nodes: int = 8) -> dict[str, Any]:
    return {
        "subject": "some",
        "minutes": 15.0,
        "ready_s": 1.0,
        "conditions": {"nodes": nodes, "pods": 4, "churn": 1.0, "images": 50},
        "requests": requests,
        "joining": {},
        "watches": {},
        "sizes": {},
        "server": {"dispatched": {}, "cpu_millicores": 1.0, "heap_kb": 1.0, "goroutines": 1.0},
        "wire": dict.fromkeys(
            ("connections", "opened_per_minute", "up_bytes_per_minute", "down_bytes_per_minute"), 0.0
        ),
        "player": {"cpu_millicores": 1.0, "resident_kb": 1.0},
    }


def test_a_difference_is_more_than_a_tenth_and_more_than_chance() -> None:
    real = result({"update leases": 5.88, "patch nodes/status": 0.2, "get nodes": 0.0})
    few = {"update leases": 6.4, "patch nodes/status": 0.23, "get nodes": 0.008}  # 0.2 a minute are 24 counts
    assert table.beyond(real, result(few)) == ["None."]
    assert table.beyond(real, result({"update leases": 5.2, "patch nodes/status": 0.3})) == [
        "- `patch nodes/status`: 0.300 instead of 0.200 (+50 %)",
        "- `update leases`: 5.200 instead of 5.880 (-12 %)",
    ]
    assert table.beyond(real, result({"patch nodes/status": 0.2})) == [
        "- `update leases`: 0.000 instead of 5.880 (-100 %)"
    ]


def test_where_there_is_no_kube_proxy_its_requests_are_no_difference() -> None:
    real = result({"update leases": 5.88, "kube-proxy: watch nodes": 0.5})
    assert table.beyond(real, result({"update leases": 5.88})) == ["None."]
    some = result({"update leases": 5.88, "kube-proxy: watch services": 0.5})
    assert len(table.beyond(real, some)) == 2


def test_the_table_compares_with_the_first() -> None:
    text = table.render([result({"update leases": 5.0}), result({"update leases": 6.0, "list pods": 1.0})])
    assert "| `update leases` | 5.000 | 6.000 (+20 %) |" in text
    assert "| `list pods` | 0.000 | 1.000 (none there) |" in text
    assert "| all | 5.000 | 7.000 (+40 %) |" in text


def test_metrics_are_read_with_their_labels() -> None:
    text = '# TYPE a counter\na{verb="WATCH",resource="pods"} 3\nb 1.5e+06\n'
    assert list(metrics(text)) == [("a", {"verb": "WATCH", "resource": "pods"}, 3.0), ("b", {}, 1.5e6)]
