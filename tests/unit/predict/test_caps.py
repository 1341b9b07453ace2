"""Caps on pods per second: each by hand, from round figures."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from turbokube.predict import machine as machines
from turbokube.predict.caps import Cap, Cause, Level, bucket_rate, caps, default_levels
from turbokube.predict.coefficients import Coefficients, Cost, DiskCost, StoreCost, Work
from turbokube.predict.machine import Machine
from turbokube.profile.schema import Profile, validate

FREE = Cost(idle_cores=0, heartbeat_ms=0, pod_ms=0, memory_mib=0, node_kib=0, pod_kib=0)
ROUND = Coefficients(
    provenance={},
    components={
        "kube-apiserver": msgspec.structs.replace(FREE, idle_cores=0.1, heartbeat_ms=2, pod_ms=10),
        "kube-scheduler": msgspec.structs.replace(FREE, pod_ms=2, pod_ms_per_1000_nodes=4),
        "kube-controller-manager": msgspec.structs.replace(FREE, pod_ms=5),
        "fleet": msgspec.structs.replace(FREE, heartbeat_ms=1, pod_ms=2),
        "agent": msgspec.structs.replace(FREE, pod_ms=1),
        "etcd": FREE,
    },
    store=StoreCost(node_bytes=0, pod_bytes=0, heartbeat_bytes=0, kept_s=0),
    disk=DiskCost(member_bytes=0, bundle_bytes=0, pod_bytes=0, log_bytes=0),
    requests_per_pod={"kube-controller-manager": 1.25, "kube-scheduler": 1},
    work=Work(
        write_ms=10,
        syncs_per_write=2,
        replicaset_writes=1,
        deployment_writes=4,
        fleet_writes=2,
        namespace_s=0.4,
        namespace_writes=5,
        seat_ms={"kube-controller-manager": 20, "kube-scheduler": 10, "fleet": 10, "load": 1},
    ),
)
ALL = {"etcd": 1, "kube-apiserver": 1, "kube-controller-manager": 1, "kube-scheduler": 1, "fleet": 1, "agent": 1}


def profile(**settings: object) -> Profile:
    """The default profile (8,192 pods, deployments of 8), with variables (without prefix) changed."""
    return validate({f"turbokube_{name}": value for name, value in settings.items()})


def found(
    cause: Cause, wanted: Profile, *, sync_s: float = 0.0, levels: tuple[Level, ...] = (), **here: int
) -> list[Cap]:
    """The caps of a cause on a machine of 4 cores, with 100 heartbeats/s of 500 nodes."""
    carrier = Machine(cores=4, memory=0, home_free=0, cache_free=0, open_files=0, sync_s=sync_s)
    every = caps(wanted, carrier, {**ALL, **here}, ROUND, 100, 500, levels)
    assert list(every) == sorted(every, key=lambda cap: cap.pods_per_second)
    return [cap for cap in every if cap.cause == cause]


def rate(cause: Cause, wanted: Profile, **more: object) -> float:
    """The lowest of them; infinite when there is none."""
    return min((cap.pods_per_second for cap in found(cause, wanted, **more)), default=math.inf)  # type: ignore[arg-type]


def test_a_token_bucket_starts_full() -> None:
    assert bucket_rate(pods=320, requests=1.25, qps=20, burst=0) == pytest.approx(16)
    assert bucket_rate(pods=320, requests=1.25, qps=20, burst=80) == pytest.approx(20)  # 400 requests, 80 of them free
    assert bucket_rate(pods=320, requests=1.25, qps=20, burst=400) == math.inf


def test_client_limits() -> None:
    slow = profile(client_qps=20, client_burst=1)
    assert rate(Cause.CONTROLLER_MANAGER_QPS, slow) == pytest.approx(16, rel=0.01)
    assert rate(Cause.SCHEDULER_QPS, slow) == pytest.approx(20, rel=0.01)
    # a client, and so a bucket, for each extra scheduler
    assert rate(Cause.SCHEDULER_QPS, profile(client_qps=4, client_burst=1, schedulers=3)) == pytest.approx(12, rel=0.01)


def test_a_flag_of_the_controller_manager_wins_over_the_variable() -> None:
    given = profile(controller_manager_args={"kube-api-qps": 40, "kube-api-burst": 1})
    assert rate(Cause.CONTROLLER_MANAGER_QPS, given) == pytest.approx(32, rel=0.01)
    assert rate(Cause.SCHEDULER_QPS, given) == math.inf


def test_processes_are_held_to_their_processors() -> None:
    assert rate(Cause.APISERVER_CPU, profile()) == math.inf  # all cores: the whole machine binds before
    one = profile(apiserver_env={"GOMAXPROCS": "1"})
    assert rate(Cause.APISERVER_CPU, one) == pytest.approx((0.9 - 0.1 - 0.2) * 1000 / 10)
    assert rate(Cause.APISERVER_CPU, one, **{"kube-apiserver": 2}) == pytest.approx(2 * (0.9 - 0.1 - 0.1) * 1000 / 10)
    assert rate(Cause.SCHEDULER_CPU, profile(scheduler_env={"GOMAXPROCS": 1})) == pytest.approx(900 / (2 + 2))
    assert rate(Cause.FLEET, profile(fleet_processes=2, connections=256)) == pytest.approx(2 * (0.9 - 0.05) * 1000 / 2)


def test_workers_wait_for_each_write() -> None:
    # 8 replicas: batches of 1, 2, 4 and 1, and one write more, 10 ms each
    (sets, deployments) = found(Cause.SYNCS, profile())
    assert (sets.name, sets.pods_per_second) == ("concurrent-replicaset-syncs 5", pytest.approx(5 * 8 / 0.05))
    assert (deployments.name, deployments.pods_per_second) == (
        "concurrent-deployment-syncs 5", pytest.approx(5 * 8 / 0.04)
    )  # fmt: skip
    assert rate(Cause.SYNCS, profile(controller_manager_args={"concurrent-replicaset-syncs": 1})) == pytest.approx(160)
    assert rate(Cause.FLEET, profile(connections=2)) == pytest.approx(2 / 0.02)


def test_a_slow_store_is_the_cause_when_its_syncs_are_most_of_a_write() -> None:
    (sets, deployments, fleet) = sorted(
        found(Cause.STORE, profile(connections=64), sync_s=0.1), key=lambda cap: cap.pods_per_second
    )
    assert sets.pods_per_second == pytest.approx(5 * 8 / (5 * 0.21))
    assert "with a store that syncs in 100 ms" in sets.name
    assert deployments.pods_per_second == pytest.approx(5 * 8 / (4 * 0.21))
    assert fleet.pods_per_second == pytest.approx(64 / (2 * 0.21))
    assert found(Cause.STORE, profile(), sync_s=0.001) == []


def test_seats() -> None:
    seats = {level.name: level.seats for level in default_levels(profile())}
    assert seats == {"workload-high": 98, "system": 74, "global-default": 49}  # of 600, as a real API server says
    assert rate(Cause.SEATS, profile()) == pytest.approx(98 / 0.030)
    fewer = profile(max_requests_inflight=20, apiserver_args={"max-mutating-requests-inflight": 10})
    assert rate(Cause.SEATS, fewer) == pytest.approx(5 / 0.030)
    one = (Level(name="one", seats=1, senders=("fleet", "load")),)
    assert rate(Cause.SEATS, profile(), levels=one) == pytest.approx(1 / 0.011)
    assert rate(Cause.SEATS, profile(), **{"kube-apiserver": 0}) == math.inf


def test_the_generator() -> None:
    assert rate(Cause.GENERATOR, profile(rate=1.5)) == 12
    loop = profile(concurrency=1, deployments_per_namespace=1, replicas=2)
    assert rate(Cause.GENERATOR, loop) == pytest.approx(2 / (0.4 + 5 * 0.01))
    late = profile(concurrency=1, deployments_per_namespace=1, replicas=2, start_delay="uniform(1,3)")
    assert rate(Cause.GENERATOR, late) == pytest.approx(2 / (2 + 0.4 + 5 * 0.01))


def test_the_generator_of_phases() -> None:
    sets = [{"template": "deployment", "count": 4, "replicas": 3}]
    phases = [
        {"name": "few", "kind": "create", "rate": 2, "namespaces": 1, "objects": sets},
        {"name": "more", "kind": "create", "rate": {"steps": [[1, 10], [5, 10]]}, "namespaces": 1, "first_namespace": 1,
         "objects": [{"template": "pod", "count": 1}, {"template": "configmap", "count": 1}]},
        {"name": "loop", "kind": "create", "concurrency": 2, "namespaces": 1, "first_namespace": 2,
         "objects": [{"template": "deployment", "count": 1, "replicas": 9}]},
        {"name": "none", "kind": "create", "namespaces": 1, "objects": [{"template": "secret", "count": 9}]},
        {"name": "rest", "kind": "pause", "duration": 5},
    ]  # fmt: skip
    generator = {cap.name: cap.pods_per_second for cap in found(Cause.GENERATOR, profile(phases=phases))}
    assert generator == {
        "rate 5 of phase more": pytest.approx(2.5),
        "rate 2 of phase few": pytest.approx(6),
        "concurrency 2 of phase loop": pytest.approx(2 * 9 / 0.45),
        "the agent's event loop": pytest.approx(900),
    }


def test_the_disk_is_asked_how_long_it_syncs(tmp_path: Path) -> None:
    assert 0 < machines.sync_seconds(tmp_path) < 1
    assert list(tmp_path.iterdir()) == []
    assert machines.sync_seconds(tmp_path / "none") == 0
