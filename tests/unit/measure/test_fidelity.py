"""The level of fidelity from what API servers count, in the numbers of real scrapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure import fidelity, sli
from turbokube.measure.fidelity import NODE_BY_NAME, RENEWALS, judge
from turbokube.measure.series import Metrics

# Kubernetes 1.36.3, one of each component: (resource, scope) → watches without a node, of a kubelet, of a kube-proxy
WATCHES = {
    ("nodes", "cluster"): (4, 0, 0),
    ("nodes", "resource"): (0, 1, 1),
    ("pods", "cluster"): (4, 1, 0),
    ("services", "cluster"): (3, 1, 1),
    ("configmaps", "resource"): (4, 1, 0),
    ("csidrivers", "cluster"): (3, 1, 0),
    ("runtimeclasses", "cluster"): (2, 1, 0),
    ("endpointslices", "cluster"): (2, 0, 1),
    ("servicecidrs", "cluster"): (2, 0, 1),
    ("servicecidrs", "resource"): (1, 0, 0),
}
OTHERS = {"csidrivers": 3, "runtimeclasses": 2, "endpointslices": 2, "servicecidrs": 2}


def held(nodes: int, kubelets: int = 0, proxies: int = 0, renewals: float = 1.0) -> dict[str, float]:
    own = {"csidrivers": kubelets, "runtimeclasses": kubelets, "endpointslices": proxies, "servicecidrs": proxies}
    counted = {name: float(count + OTHERS[name]) for name, count in own.items()}
    return {RENEWALS: renewals * nodes, NODE_BY_NAME: float(kubelets + proxies), **counted}


@pytest.mark.parametrize(
    ("kubelets", "proxies", "renewals", "level"),
    [
        (0, 0, 1.0, "lease"),
        (0, 0, 0.89, "none"),
        (100, 100, 0.5, "none"),
        (100, 0, 1.0, "kubelet"),
        (90, 0, 0.9, "kubelet"),
        (89, 0, 1.0, "lease"),
        (100, 100, 1.0, "node"),
        (100, 90, 1.0, "node"),
        (100, 79, 1.0, "kubelet"),
        (0, 100, 1.0, "lease"),
    ],
)
def test_a_level_is_there_when_nine_in_ten_vnodes_have_all_of_it(
    kubelets: int, proxies: int, renewals: float, level: str
) -> None:
    found = judge(100, held(100, kubelets, proxies, renewals), OTHERS)
    assert (found.level, bool(found.reason)) == (level, level != "node")


def test_one_watch_that_is_missing_is_named() -> None:
    found = judge(64, {**held(64, 64, 64), "endpointslices": 2.0}, OTHERS)
    assert (found.level, found.reason) == ("kubelet", "not node: a vnode has 0.00 endpointslices, not 1")
    assert found.per_node["runtimeclasses"] == 1.0


def test_few_vnodes_are_told_and_not_taken_for_what_the_control_plane_holds() -> None:
    assert judge(2, held(2), OTHERS).level == "lease"
    assert judge(2, held(2, 2), OTHERS).level == "kubelet"
    assert judge(2, held(2, 2, 2), OTHERS).level == "node"


def test_it_cannot_be_told_where_others_may_have_what_decides() -> None:
    found = judge(10, held(10, 10), {**OTHERS, "csidrivers": 8})
    assert found.level == ""
    assert found.reason == "lease or kubelet: with 10 vnodes there are 13 csidrivers, up to 8 of others"
    assert judge(10, {RENEWALS: 10.0}, OTHERS).reason.startswith("no API server told of watches")
    assert judge(10, {"csidrivers": 3.0}, OTHERS).reason.startswith("no API server told of lease renewals")


class Run:
    """The bundle of a run that was scraped every 15 s, `nodes` vnodes being there from the beginning."""

    def __init__(self, folder: Path, nodes: int, seconds: int = 150, joined: int = 0) -> None:
        self.writer, self.folder, self.nodes = Writer(folder), folder, nodes
        self.times = [float(t) for t in range(0, seconds + 1, 15)]
        self.writer.insert("nodes", [(t, nodes if t >= joined else 1, nodes, 0) for t in self.times])
        self.number, self.known = 0, set[str]()
        for kind in ("kube-scheduler", "kube-controller-manager"):
            self.series(f"{kind}-0", "process_open_fds", 9.0)

    def series(self, component: str, metric: str, *values: float, **labels: str) -> None:
        """One value that stays, or one for each scrape."""
        if component not in self.known:
            self.known.add(component)
            self.writer.insert("scrapes", [(component, t, 0.1, 1, None, 1) for t in self.times])
        self.number += 1
        row = (self.number, component, component.rpartition("-")[0], metric, json.dumps(labels, sort_keys=True), "")
        self.writer.insert("series", [row])
        self.writer.insert("samples", [(self.number, t, v) for t, v in zip(self.times, values, strict=False)])

    def server(self, name: str, kubelets: int, proxies: int, share: float = 1.0, own: int = 1, away: int = 0) -> None:
        """An API server with so many of the watches and `share` of the renewals; for `away` scrapes without nodes."""
        for (resource, scope), (alone, kubelet, proxy) in WATCHES.items():
            count = alone * own + kubelet * kubelets + proxy * proxies
            values = [float(alone * own if n in range(1, 1 + away) else count) for n in range(len(self.times))]
            labels = {"resource": resource, "scope": scope, "verb": "WATCH"}
            self.series(name, "apiserver_longrunning_requests", *values, **labels)
        rate = self.nodes / 10 * share + 1.1 * own
        puts = [t * rate for t in self.times]
        self.series(name, "apiserver_request_total", *puts, resource="leases", verb="PUT", code="200")

    def measured(self) -> fidelity.Fidelity:
        self.writer.close(finish=True)
        with Reader(self.folder) as reader:
            metrics = Metrics(reader)
            ratios = sli.lease_ratios(reader, metrics, sli.LeasePeriod(metrics, 10.0))
            return fidelity.measure(reader, metrics, ratios, 10.0)


@pytest.mark.parametrize(
    ("kubelets", "proxies", "level"), [(0, 0, "lease"), (64, 0, "kubelet"), (64, 64, "node"), (32, 0, "lease")]
)
def test_a_bundle_tells_its_level(tmp_path: Path, kubelets: int, proxies: int, level: str) -> None:
    run = Run(tmp_path, 64)
    run.server("kube-apiserver-0", kubelets, proxies)
    found = run.measured()
    assert found.level == level
    assert found.per_node["csidrivers"] == kubelets / 64
    assert found.per_node["servicecidrs"] == proxies / 64


def test_watches_are_summed_over_the_api_servers(tmp_path: Path) -> None:
    run = Run(tmp_path, 64)
    run.server("kube-apiserver-0", 60, 10, 0.5)
    run.server("kube-apiserver-1", 4, 54, 0.5, own=0)
    found = run.measured()
    assert (found.level, found.per_node[NODE_BY_NAME]) == ("node", 2.0)


def test_watches_that_are_away_for_a_while_are_passed_over(tmp_path: Path) -> None:
    run = Run(tmp_path, 64)
    run.server("kube-apiserver-0", 64, 0, away=4)
    assert run.measured().level == "kubelet"


def test_an_outage_does_not_make_vnodes_less_than_they_are(tmp_path: Path) -> None:
    run = Run(tmp_path, 64)
    run.server("kube-apiserver-0", 0, 0, share=0.5)
    run.writer.insert("interruptions", [(0.0, 150.0, "etcd-0", "")])
    assert run.measured().reason.startswith("no API server told of lease renewals")


def test_while_vnodes_join_nothing_is_counted(tmp_path: Path) -> None:
    run = Run(tmp_path, 64, joined=105)
    run.server("kube-apiserver-0", 64, 64, away=6)
    assert run.measured().level == "node"


def test_while_vnodes_are_gone_nothing_is_counted(tmp_path: Path) -> None:
    run = Run(tmp_path, 64)
    run.writer.execute("UPDATE nodes SET total = 6 WHERE time BETWEEN 15 AND 105", [()])
    run.server("kube-apiserver-0", 64, 0, away=7)
    assert run.measured().level == "kubelet"


def test_nodes_that_are_not_the_runs_may_have_all_there_is(tmp_path: Path) -> None:
    run = Run(tmp_path, 20)
    run.server("kube-apiserver-0", 30, 30, share=1.5)
    run.series("kube-apiserver-0", "apiserver_resource_objects", 50.0, group="", resource="nodes")
    assert run.measured().level == ""
    run = Run(tmp_path / "few", 64)
    run.server("kube-apiserver-0", 67, 67, share=67 / 64)
    run.series("kube-apiserver-0", "apiserver_storage_objects", 67.0, resource="nodes")
    found = run.measured()
    assert (found.level, found.per_node["runtimeclasses"]) == ("node", 1.0)
