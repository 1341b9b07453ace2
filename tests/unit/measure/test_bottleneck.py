"""What bound a load, from bundles of runs that never were: 30 s of load, a scrape each second."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure.bottleneck import Bottleneck, name
from turbokube.measure.series import Metrics

START, LENGTH, OBJECTS, REPLICAS = 1000.0, 30, 60, 8
FSYNC, COMMIT = "etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds"
WAITS = "apiserver_flowcontrol_request_wait_duration_seconds_sum"
LIMITER = "rest_client_rate_limiter_duration_seconds"


@dataclass
class Run:
    """`rates`: what counters rise by per second, `levels`: where gauges stand; by (component, metric, labels)."""

    rate: float = 2.0  # deployments per second; 0: a closed loop
    lasts: float = 30.0  # seconds until the last pod runs
    start: float = 0.1  # from bound to running
    late: float = 0.0
    ran: int = OBJECTS * REPLICAS
    share: float = 1.0  # of the time, from its beginning, in which `rates` rise
    rates: dict[tuple[str, str, str], float] = field(default_factory=dict)
    levels: dict[tuple[str, str, str], float] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)

    def name(self, folder: Path) -> Bottleneck | None:
        """Write the bundle and name what bound it."""
        writer = Writer(folder)
        writer.meta(profile=self.profile, hardware={"cores": 2, "memory_bytes": 2**34})
        spec = msgspec.json.encode({"kind": "create", "rate": self.rate, "concurrency": 4}).decode()
        sql = "INSERT INTO phases(name, kind, spec, started, ended, state) VALUES ('create', 'create', ?, ?, ?, 'done')"
        writer.execute(sql, [(spec, START, START + self.lasts)])
        self._objects(writer)
        self._series(writer)
        writer.close(finish=True)
        with Reader(folder) as reader:
            return name(reader, Metrics(reader))

    def _objects(self, writer: Writer) -> None:
        objects, pods = [], []
        for number in range(OBJECTS):
            due = START + number * (1 / self.rate if self.rate else 0.0)
            objects.append((f"d{number}", due, due + self.late, REPLICAS))
            for pod in range(REPLICAS):
                index = number * REPLICAS + pod
                runs = START + 0.5 + (self.lasts - 0.5) * index / (OBJECTS * REPLICAS - 1)
                if index < self.ran:
                    pods.append((f"p{index}", f"d{number}", runs - self.start, runs))
        writer.execute(
            "INSERT INTO objects(phase, kind, namespace, name, intended, sent, replicas)"
            " VALUES ('create', 'Deployment', 'n', ?, ?, ?, ?)", objects,
        )  # fmt: skip
        writer.execute(
            "INSERT INTO pods(uid, namespace, owner, bound_seen, running_seen) VALUES (?, 'n', ?, ?, ?)", pods
        )

    def _series(self, writer: Writer) -> None:
        rates = {**HEALTHY, **self.rates}
        end = int(self.lasts) + 2
        for number, ((component, metric, labels), value) in enumerate([*rates.items(), *self.levels.items()]):
            kind = component.rpartition("-")[0] or component
            rising = number < len(rates)
            row = (number, component, kind, metric, labels, "counter" if rising else "gauge")
            writer.insert("series", [row])
            until = self.share * end
            writer.insert(
                "samples",
                [(number, START + at, value * min(at + 1, until) if rising else value) for at in range(-1, end)],
            )
        components = {component for component, _, _ in [*rates, *self.levels]}
        for component in components:
            writer.insert("scrapes", [(component, START + at, 0.01, 1, None, 1) for at in range(-1, end)])


def full(component: str, metric: str, value: float, labels: str = "{}") -> dict[tuple[str, str, str], float]:
    """One series."""
    return {(component, metric, labels): value}


HEALTHY = {
    **full("etcd-0", f"{FSYNC}_sum", 0.1),
    **full("etcd-0", f"{COMMIT}_sum", 0.05),
    **full("kube-apiserver-0", "process_cpu_seconds_total", 0.5),
    **full("kube-apiserver-0", WAITS, 0.0, '{"priority_level":"workload-high"}'),
    **full("kube-controller-manager-0", "process_cpu_seconds_total", 0.1),
    **full("kube-controller-manager-0", f"{LIMITER}_sum", 0.0),
    **full("kube-controller-manager-0", "workqueue_work_duration_seconds_sum", 1.0, '{"name":"replicaset"}'),
    **full("kube-scheduler-0", "process_cpu_seconds_total", 0.2),
    **full("kube-scheduler-0", f"{LIMITER}_sum", 0.0),
    **full("kube-scheduler-0", "scheduler_scheduling_algorithm_duration_seconds_sum", 0.1),
    **full("agent", "turbokube_machine_cpu_seconds_total", 1.0, '{"mode":"busy"}'),
    **full("agent", "turbokube_machine_cpu_seconds_total", 1.0, '{"mode":"idle"}'),
}
ONE_CORE = full("kube-apiserver-0", "go_sched_gomaxprocs_threads", 1.0)
QUEUE = full("kube-apiserver-0", "go_sched_latencies_seconds_sum", 2.5)
STORE = full("etcd-0", f"{FSYNC}_sum", 0.95)
SEATS = full("kube-apiserver-0", WAITS, 12.0, '{"priority_level":"workload-high"}')
WORKERS = full(
    "kube-controller-manager-0", "workqueue_work_duration_seconds_sum", 4.9, '{"name":"replicaset"}'
)  # fmt: skip
FULL = {
    **full("agent", "turbokube_machine_cpu_seconds_total", 1.98, '{"mode":"busy"}'),
    **full("agent", "turbokube_machine_cpu_seconds_total", 0.02, '{"mode":"idle"}'),
}
BUSY = {**FULL, **full("kube-apiserver-0", "process_cpu_seconds_total", 1.5)}


@pytest.mark.parametrize(
    ("cause", "rates", "levels"),
    [
        ("store", STORE, {}),
        ("store", full("etcd-0", f"{COMMIT}_sum", 0.9), {}),
        (
            "store",
            {},
            full("etcd-0", "etcd_mvcc_db_total_size_in_bytes", 99.0)
            | full("etcd-0", "etcd_server_quota_backend_bytes", 100.0),
        ),
        ("apiserver-cpu", full("kube-apiserver-0", "process_cpu_seconds_total", 0.95), ONE_CORE),
        ("apiserver-cpu", QUEUE, ONE_CORE),
        ("", QUEUE, {}),  # on all of the machine's cores they wait for the machine
        ("apf-seats", SEATS, {}),
        (
            "apf-seats",
            full("kube-apiserver-0", "apiserver_flowcontrol_rejected_requests_total", 5, '{"priority_level":"x"}'),
            {},
        ),
        ("controller-manager-qps", full("kube-controller-manager-0", f"{LIMITER}_sum", 7.0), {}),
        ("scheduler-qps", full("kube-scheduler-0", f"{LIMITER}_sum", 90.0), {}),
        ("scheduler-cpu", full("kube-scheduler-0", "scheduler_scheduling_algorithm_duration_seconds_sum", 0.97), {}),
        (
            "controller-manager-cpu",
            full("kube-controller-manager-0", "process_cpu_seconds_total", 0.9),
            full("kube-controller-manager-0", "go_sched_gomaxprocs_threads", 1.0),
        ),
        ("controller-syncs", WORKERS, {}),
        ("machine", BUSY, {}),
        ("other-work", FULL, {}),
    ],
)
def test_each_cause_is_named(tmp_path: Path, cause: str, rates: dict[Any, float], levels: dict[Any, float]) -> None:
    found = Run(lasts=60, rates=rates, levels=levels).name(tmp_path)
    assert found is not None
    assert found.cause == cause
    assert (found.score or 0.0) > 0.9 or not cause
    assert all(other.score < 0.5 for other in found.others)
    assert found.offered == pytest.approx(16)
    assert found.achieved == pytest.approx(8, rel=0.05)
    assert "pods/s were reached of 16.0 offered" in found.words


def test_nothing_is_named_when_the_offered_rate_was_reached(tmp_path: Path) -> None:
    found = Run(rates={**BUSY, **STORE}).name(tmp_path)
    assert found is not None
    assert (found.cause, found.score, found.evidence) == ("", None, ())
    assert found.words == "nothing: 16.0 pods/s were reached of 16.0 offered"
    assert found.others[0].cause == "store"  # what was full is told all the same


def test_what_fell_short_for_no_known_reason_is_not_blamed_on_anything(tmp_path: Path) -> None:
    found = Run(lasts=60).name(tmp_path)
    assert found is not None
    assert found.cause == ""
    assert found.words.startswith("not known: ")


def test_pods_that_never_ran_are_no_reached_rate(tmp_path: Path) -> None:
    found = Run(ran=OBJECTS * REPLICAS - 1, rates=STORE).name(tmp_path)
    assert found is not None
    assert found.cause == "store"


def test_of_all_that_is_full_the_deepest_is_named(tmp_path: Path) -> None:
    found = Run(lasts=60, rates={**WORKERS, **SEATS, **STORE, **BUSY}).name(tmp_path)
    assert found is not None
    assert found.cause == "store"
    assert [other.cause for other in found.others[:3]] == ["apf-seats", "controller-syncs", "machine"]


def test_a_closed_loop_is_bound_by_itself_when_nothing_is_full(tmp_path: Path) -> None:
    found = Run(rate=0.0).name(tmp_path)
    assert found is not None
    assert (found.cause, found.offered) == ("generator", None)
    assert found.evidence == ("a closed loop of 4 at once, and nothing else was full for 100% of the time",)
    beside = Run(rate=0.0, rates=FULL).name(tmp_path / "beside")
    assert beside is not None
    assert beside.cause == "generator"
    assert beside.words.endswith("; other work took the machine's cores meanwhile")
    busy = Run(rate=0.0, rates=BUSY).name(tmp_path / "busy")
    assert busy is not None
    assert busy.cause == "machine"


def test_late_sendings_and_slow_vnodes(tmp_path: Path) -> None:
    late = Run(lasts=60, late=5.0).name(tmp_path / "late")
    assert late is not None
    assert (late.cause, late.evidence[0]) == (
        "generator", "100% of the objects were sent more than 1 s late, at most 5.0 s"
    )  # fmt: skip
    slow = Run(lasts=60, start=12.0).name(tmp_path / "slow")
    assert slow is not None
    assert slow.cause == "fleet"
    assert slow.evidence[0].startswith("from bound to running 12.00 s of ")


def test_components_elsewhere_do_not_fill_this_machine(tmp_path: Path) -> None:
    found = Run(lasts=60, rates=full("kube-apiserver-0", "process_cpu_seconds_total", 12.0)).name(tmp_path)
    assert found is not None
    (machine,) = [other for other in found.others if other.cause == "machine"]
    assert (machine.score, machine.evidence[0]) == (0.0, "the run's processes use 50% of 2 cores")


@pytest.mark.parametrize(("share", "cause"), [(0.4, ""), (0.6, "store")])
def test_half_of_the_time_decides(tmp_path: Path, share: float, cause: str) -> None:
    found = Run(lasts=60, share=share, rates=STORE).name(tmp_path)
    assert found is not None
    assert found.cause == cause
    score = found.score or found.others[0].score
    assert score == pytest.approx(share, abs=0.05)


def test_the_prediction_is_told_beside(tmp_path: Path) -> None:
    settings = {"turbokube_controller_manager_args": {"kube-api-qps": 10, "kube-api-burst": 30}, "turbokube_rate": 2}
    rates = full("kube-controller-manager-0", f"{LIMITER}_sum", 7.0)
    found = Run(lasts=60, rates=rates, profile=settings).name(tmp_path)
    assert found is not None
    assert found.predicted_by == "turbokube_client_qps 10 in kube-controller-manager"
    assert found.predicted == pytest.approx(8, rel=0.1)
    assert found.ratio == pytest.approx(1, rel=0.1)


def test_without_pods_there_is_nothing_to_name(tmp_path: Path) -> None:
    Writer(tmp_path).close()
    with Reader(tmp_path) as reader:
        assert name(reader, Metrics(reader)) is None
