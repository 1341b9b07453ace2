"""Makes bundles of runs that never were, of any size, from a seed: what the report's tests read."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from turbokube.bundle.writer import Writer

START = 1_780_000_000.0
API_BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, math.inf)
DISK_BUCKETS = (*(0.001 * 2**i for i in range(14)), math.inf)
# verb, resource, subresource, scope, requests per pod, requests per node and second, mean latency at rest
CALLS = (
    ("POST", "pods", "", "namespace", 1.0, 0.0, 0.012),
    ("POST", "pods", "binding", "resource", 1.0, 0.0, 0.009),
    ("PATCH", "pods", "status", "resource", 1.05, 0.0, 0.011),
    ("GET", "pods", "", "resource", 0.3, 0.0, 0.004),
    ("POST", "events", "", "namespace", 3.0, 0.0, 0.008),
    ("PATCH", "events", "", "resource", 0.2, 0.0, 0.009),
    ("POST", "deployments", "", "namespace", 0.125, 0.0, 0.015),
    ("PUT", "deployments", "status", "resource", 0.5, 0.0, 0.012),
    ("POST", "replicasets", "", "namespace", 0.125, 0.0, 0.014),
    ("PUT", "replicasets", "status", "resource", 0.6, 0.0, 0.012),
    ("PUT", "leases", "", "resource", 0.0, 0.1, 0.004),
    ("PATCH", "nodes", "status", "resource", 0.0, 1 / 300, 0.008),
    ("LIST", "pods", "", "cluster", 0.0002, 0.0, 0.4),
    ("LIST", "configmaps", "", "namespace", 0.01, 0.0, 0.006),
    ("GET", "namespaces", "", "resource", 0.005, 0.0, 0.003),
    ("WATCH", "pods", "", "cluster", 0.001, 0.0, 30.0),
)
# open without a node: (resource, scope) → how many
WATCHES = {
    ("nodes", "cluster"): 4, ("csidrivers", "cluster"): 3, ("runtimeclasses", "cluster"): 2,
    ("endpointslices", "cluster"): 2, ("servicecidrs", "cluster"): 2, ("servicecidrs", "resource"): 1,
}  # fmt: skip


@dataclass
class Shape:
    """A run: its size, and what goes wrong in it."""

    namespaces: int = 32
    rate: float = 75.0  # pods/s at the start
    slowdown: float = 0.3  # share of the rate that is lost by the end
    apiservers: int = 1
    interval: float = 15.0
    join: float = 12.0  # seconds from the agent's start to the load, nodes being there
    outage: tuple[float, float] | None = None  # of kube-apiserver-0, seconds after the load's start
    never: int = 0  # pods that never start
    lease_share: float = 1.0  # of the renewals that are due
    watches: dict[tuple[str, str], int] = field(default_factory=dict)  # of one node: (resource, scope) → how many
    slow_share: float = 0.0  # of API calls that take more than a second
    seed: int = 1
    lag: dict[str, float] = field(default_factory=lambda: {"loop": 0.02, "send": 0.01, "observer": 0.15})
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def pods(self) -> int:
        return self.namespaces * 256

    @property
    def nodes(self) -> int:
        return self.namespaces * 8

    def begun(self, index: int) -> float:
        """Seconds after the load's start at which the index-th pod is meant."""
        share = index / self.pods
        moment = index / self.rate * (1 + self.slowdown * share)
        if self.outage and moment > self.outage[0]:
            moment += self.outage[1] - self.outage[0]
        return moment


class Maker:
    """Writes one Shape into a bundle's folder."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.shape, self.random, self.folder = shape, random.Random(shape.seed), folder
        self.writer = Writer(folder)
        self.load = START + shape.join
        self.ids: dict[tuple[str, str, str], int] = {}
        self.last: dict[int, float] = {}
        self.running: list[float] = []
        self.samples: list[tuple[int, float, float]] = []
        self.series: list[tuple[Any, ...]] = []

    def make(self) -> Path:
        self._pods()
        self.end = max(self.running) + 2
        self._meta()
        self._scrapes()
        self._seconds()
        counts = [
            ("pods", self.shape.pods - self.shape.never),
            ("nodes", self.shape.nodes),
            ("leases", self.shape.nodes),
        ]
        rows = [(self.end, source, name, number) for source in ("store", "observer") for name, number in counts]
        # the store also knows the pods that never started
        self.writer.insert("counts", [(t, s, n, self.shape.pods if n == "pods" else c) for t, s, n, c in rows])
        self.writer.close(finish=True)
        return self.folder

    def _meta(self) -> None:
        shape = self.shape
        values: dict[str, Any] = {
            "run": "synthetic", "started": START, "finished": self.end + 5, "turbokube_version": "0.1.0",
            "profile": {
                "turbokube_namespaces": shape.namespaces, "turbokube_replicas": 8, "turbokube_concurrency": 4,
                "turbokube_lease_interval_s": 10, "turbokube_vnodes_per_namespace": 8, "turbokube_rate": 0,
                "turbokube_client_qps": 16000, "turbokube_start_delay": "0", "turbokube_profile": "quickstart",
                "turbokube_apiserver_args": {"v": "2"},
            },
            "target": {
                "version": "v1.36.3", "servers": shape.apiservers,
                "flags": {"kube-scheduler": {"clientConnection.qps": "16000"}},
            },
            "hardware": {"cores": 2, "memory_bytes": 25_000_000_000, "cpu_model": "AMD EPYC", "kernel": "6.1.0"},
            "versions": {"kubernetes": "1.36.3", "etcd": "3.7.3"}, "fidelity": "lease", "engine": "builtin",
            "object_bytes": {"pods": 3120, "nodes": 1480},
            **shape.metadata,
        }  # fmt: skip
        self.writer.meta(**values)
        self.writer.insert("phases", [("create", "create", "{}", self.load, self.end - 1, "done", "")])
        if shape.outage:
            begun, ended = (self.load + moment for moment in shape.outage)
            self.writer.insert("interruptions", [(begun, ended, "kube-apiserver-0", "connection refused")])

    def _pods(self) -> None:
        shape, uniform = self.shape, self.random.uniform
        never = set(self.random.sample(range(shape.pods), shape.never))
        objects: list[tuple[Any, ...]] = []
        pods: list[tuple[Any, ...]] = []
        for index in range(shape.pods):
            intended = self.load + shape.begun(index - index % 8)
            space, owner = f"turbokube-{index // 256:04x}", f"turbokube-{index // 8 % 32:02x}"
            created = intended + uniform(0.05, 0.6)
            seen = created + uniform(0.01, 0.1)
            bound = seen + self.random.expovariate(1 / 0.5)
            running = bound + uniform(0.05, 0.4)
            started: tuple[Any, ...] = (math.floor(bound), bound, math.floor(running), running)
            if index in never:
                started = (None, None, None, None)
            else:
                self.running.append(running)
            if index % 256 == 0:
                times = (intended - 0.5, intended - 0.5, intended - 0.4, 201, 0, 0, 0)
                objects.append(("create", "Namespace", space, space, *times, 0, intended - 0.1, None))
            if index % 8 == 0:
                objects.append(("create", "Deployment", space, owner, intended, intended + 0.001, intended + 0.02, 201,
                                0, 0, 0, 8, running + 1, 1))  # fmt: skip
            node = f"vnode-{index // 256 * 8 + index % 8:05d}"
            pods.append((f"uid-{index}", space, f"{owner}-{index}", owner, node, math.floor(created), seen,
                         *started, None, 0, 0, None))  # fmt: skip
        self.writer.insert("objects", objects)
        self.writer.insert("pods", pods)

    def _sample(self, moment: float, component: str, metric: str, kind: str, value: float, **labels: str) -> None:
        text = msgspec.json.encode(dict(sorted(labels.items()))).decode()
        key = (component, metric, text)
        if key not in self.ids:
            self.ids[key] = len(self.ids) + 1
            role = component.rstrip("0123456789").rstrip("-")
            self.series.append((self.ids[key], component, role, metric, text, kind))
        number = self.ids[key]
        if self.last.get(number) != value:
            self.last[number] = value
            self.samples.append((number, moment, value))

    def _histogram(
        self,
        moment: float,
        component: str,
        metric: str,
        buckets: Iterable[float],
        count: float,
        mean: float,
        **labels: str,
    ) -> None:
        slow = self.shape.slow_share if metric.startswith("apiserver_request_sli") else 0.0
        for edge in buckets:
            share = (1 - math.exp(-edge / mean)) * (1 - slow) if edge <= 1 else 1 - math.exp(-edge / mean)
            value = float(round(count * share)) if edge < math.inf else float(round(count))
            le = "+Inf" if edge == math.inf else f"{edge:g}"
            self._sample(moment, component, f"{metric}_bucket", "histogram", value, le=le, **labels)

    def _scrapes(self) -> None:
        shape, moment, rows = self.shape, START, []
        done = sorted(self.running)
        reached = 0
        while True:
            while reached < len(done) and done[reached] <= moment:
                reached += 1
            for number in range(shape.apiservers):
                name = f"kube-apiserver-{number}"
                down = number == 0 and self._down(moment)
                rows.append(
                    (name, moment, 0.05, int(not down), "connection refused" if down else None, 0 if down else 90000)
                )
                if not down:
                    self._apiserver(moment, name, reached)
            self._others(moment, reached)
            rows += [
                (name, moment, 0.02, 1, None, 20000)
                for name in ("etcd-0", "kube-scheduler-0", "kube-controller-manager-0", "fleet", "agent")
            ]
            if moment >= self.end:
                break
            moment = min(moment + shape.interval, self.end)
        self.writer.insert("scrapes", rows)
        self.writer.insert("series", self.series)
        self.writer.insert("samples", self.samples)

    def _down(self, moment: float) -> bool:
        return bool(
            self.shape.outage and self.load + self.shape.outage[0] <= moment <= self.load + self.shape.outage[1]
        )

    def _renewals(self, moment: float) -> float:
        total = (moment - START + 30) * self.shape.nodes / 10 * self.shape.lease_share
        if self.shape.outage:
            lost = max(0.0, min(moment - self.load, self.shape.outage[1]) - self.shape.outage[0])
            total -= lost * self.shape.nodes / 10
        return total

    def _apiserver(self, moment: float, name: str, pods: int) -> None:
        shape = self.shape
        for verb, resource, subresource, scope, per_pod, per_node, mean in CALLS:
            count = 20 + per_pod * pods + per_node * shape.nodes * (moment - START + 30)
            if resource == "leases":
                count = self._renewals(moment) + 1.1 * (moment - START)  # leader elections and the server's own
            count = count / shape.apiservers
            labels = {"verb": verb, "resource": resource, "subresource": subresource, "scope": scope}
            busy = 1 + 6 * pods / shape.pods
            self._histogram(
                moment, name, "apiserver_request_sli_duration_seconds", API_BUCKETS, count, mean * busy, **labels
            )
            code = "201" if verb == "POST" else "200"
            self._sample(
                moment,
                name,
                "apiserver_request_total",
                "counter",
                float(round(count)),
                code=code,
                verb=verb,
                resource=resource,
            )
        self._sample(
            moment,
            name,
            "apiserver_request_total",
            "counter",
            float(pods // 900),
            code="409",
            verb="PUT",
            resource="deployments",
        )
        for level, share in (("node-high", 3), ("workload-low", 14), ("leader-election", 1), ("exempt", 1)):
            seats = self.random.randint(0, share)
            self._sample(
                moment,
                name,
                "apiserver_flowcontrol_current_executing_seats",
                "gauge",
                float(seats),
                priority_level=level,
            )
            self._sample(
                moment,
                name,
                "apiserver_flowcontrol_nominal_limit_seats",
                "gauge",
                float(share * 20),
                priority_level=level,
            )
            self._sample(
                moment,
                name,
                "apiserver_flowcontrol_current_inqueue_requests",
                "gauge",
                float(max(0, seats - 12)),
                priority_level=level,
            )
        own = WATCHES if name.endswith("-0") else {}
        for resource, scope in {*WATCHES, *shape.watches}:
            each = (
                own.get((resource, scope), 0) + shape.watches.get((resource, scope), 0) * shape.nodes / shape.apiservers
            )
            labels = {"resource": resource, "scope": scope, "verb": "WATCH"}
            self._sample(moment, name, "apiserver_longrunning_requests", "gauge", each, **labels)
        for kind, number in (("readOnly", 4), ("mutating", 30)):
            self._sample(
                moment,
                name,
                "apiserver_current_inflight_requests",
                "gauge",
                float(self.random.randint(0, number)),
                request_kind=kind,
            )
        self._process(moment, name, 0.0145 * pods / shape.apiservers + 0.1 * (moment - START), 270e6 + 30_000 * pods)

    def _process(self, moment: float, name: str, cpu: float, memory: float) -> None:
        self._sample(moment, name, "process_cpu_seconds_total", "counter", round(cpu, 3))
        self._sample(moment, name, "process_resident_memory_bytes", "gauge", float(int(memory)))

    def _others(self, moment: float, pods: int) -> None:
        shape, age = self.shape, moment - START
        writes = 30 + 9 * pods + shape.nodes / 10 * age
        for metric, mean in (
            ("etcd_disk_wal_fsync_duration_seconds", 0.0009),
            ("etcd_disk_backend_commit_duration_seconds", 0.003),
        ):
            self._histogram(moment, "etcd-0", metric, DISK_BUCKETS, writes, mean)
        size = 20e6 + 9000 * pods + 2000 * shape.nodes
        self._sample(moment, "etcd-0", "etcd_mvcc_db_total_size_in_bytes", "gauge", size)
        self._sample(moment, "etcd-0", "etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", size * 0.7)
        self._sample(moment, "etcd-0", "etcd_server_quota_backend_bytes", "gauge", float(8 << 30))
        self._sample(moment, "etcd-0", "etcd_server_has_leader", "gauge", 1.0)
        self._process(moment, "etcd-0", 0.003 * pods + 0.03 * age, 40e6 + 9000 * pods)
        self._sample(
            moment,
            "kube-scheduler-0",
            "scheduler_schedule_attempts_total",
            "counter",
            float(pods),
            result="scheduled",
            profile="default-scheduler",
        )
        self._sample(
            moment,
            "kube-scheduler-0",
            "scheduler_schedule_attempts_total",
            "counter",
            float(pods // 500),
            result="unschedulable",
            profile="default-scheduler",
        )
        self._histogram(
            moment,
            "kube-scheduler-0",
            "scheduler_pod_scheduling_sli_duration_seconds",
            API_BUCKETS,
            pods,
            0.03,
            attempts="1",
        )
        self._histogram(
            moment, "kube-scheduler-0", "scheduler_scheduling_algorithm_duration_seconds", DISK_BUCKETS, pods, 0.002
        )
        for queue, most in (("active", 40), ("backoff", 3), ("unschedulable", 1)):
            busy = self.random.randint(0, most) if 0 < pods < shape.pods - shape.never else 0
            self._sample(moment, "kube-scheduler-0", "scheduler_pending_pods", "gauge", float(busy), queue=queue)
        self._process(moment, "kube-scheduler-0", 0.0045 * pods, 60e6 + 1500 * pods)
        for queue in ("deployment", "replicaset", "namespace", "serviceaccount", "endpoint"):
            depth = self.random.randint(0, 12) if queue in ("deployment", "replicaset") else 0
            self._sample(moment, "kube-controller-manager-0", "workqueue_depth", "gauge", float(depth), name=queue)
        self._process(moment, "kube-controller-manager-0", 0.003 * pods, 100e6 + 1200 * pods)
        self._sample(
            moment, "fleet", "turbokube_fleet_lease_renewals_total", "counter", float(round(self._renewals(moment)))
        )
        self._sample(moment, "fleet", "turbokube_fleet_lease_interval_seconds", "gauge", 10.0)
        self._sample(
            moment,
            "fleet",
            "turbokube_fleet_lease_oldest_renewal_seconds",
            "gauge",
            round(self.random.uniform(10, 10.4), 2),
        )
        self._sample(
            moment, "fleet", "turbokube_fleet_loop_lag_seconds", "gauge", round(self.random.uniform(0.01, 0.08), 3)
        )
        self._process(moment, "fleet", 0.0009 * pods + 0.0004 * shape.nodes / 10 * age, 31e6 + 300 * pods)
        self._process(moment, "agent", 0.0008 * pods + 0.02 * age, 60e6 + 900 * pods)

    def _seconds(self) -> None:
        shape, rows, lag = self.shape, [], []
        per_second: dict[int, int] = {}
        for index in range(0, shape.pods, 8):
            second = int(self.load + shape.begun(index))
            per_second[second] = per_second.get(second, 0) + 1
        for second, sent in per_second.items():
            rows.append(("create", second, "deployments", "POST", sent, sent, 0, 0, 0, sent * 0.02, 0.09, sent))
        self.writer.insert("requests", rows)
        for second in range(int(self.end - START) + 1):
            lag += [
                (START + second, who, round(most * self.random.uniform(0.1, 1), 4)) for who, most in shape.lag.items()
            ]
        self.writer.insert("lag", lag)
        steps = range(0, int(self.end - START) + 5, 5)
        self.writer.insert("nodes", [(START + step, shape.nodes, shape.nodes, 0) for step in steps])


def make(folder: Path, shape: Shape | None = None) -> Path:
    """Write the bundle of a run; returns its folder."""
    return Maker(folder, shape or Shape()).make()
