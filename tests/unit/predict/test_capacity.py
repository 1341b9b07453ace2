"""The arithmetic of the prediction against numbers worked out by hand, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml

from turbokube.predict import coefficients as measured
from turbokube.predict.capacity import GIB, ONE_MACHINE, describe, judge, predict
from turbokube.predict.coefficients import Coefficients, Cost, DiskCost, LevelCost, StoreCost
from turbokube.predict.machine import Machine
from turbokube.profile.schema import Profile, validate

PROFILES = Path(__file__).parents[3] / "playbooks" / "profiles"

ROUND = Coefficients(
    provenance={},
    components={
        "etcd": Cost(idle_cores=0.1, heartbeat_ms=1, pod_ms=2, memory_mib=100, node_kib=0, pod_kib=0),
        "kube-apiserver": Cost(idle_cores=0.1, heartbeat_ms=2, pod_ms=10, memory_mib=200, node_kib=64, pod_kib=32),
        "kube-scheduler": Cost(
            idle_cores=0, heartbeat_ms=0, pod_ms=4, pod_ms_per_1000_nodes=4, memory_mib=50, node_kib=0, pod_kib=16
        ),
    },
    store=StoreCost(node_bytes=1000, pod_bytes=2000, heartbeat_bytes=100, kept_s=600),
    disk=DiskCost(member_bytes=1e6, bundle_bytes=2e6, pod_bytes=10, log_bytes=3e6),
    requests_per_pod={"kube-controller-manager": 1.25, "kube-scheduler": 1},
)
THREE = {"etcd": 1, "kube-apiserver": 1, "kube-scheduler": 1}


def profile(name: str = "quickstart", **settings: object) -> Profile:
    """A shipped profile, with variables (without prefix) changed."""
    written = yaml.safe_load((PROFILES / f"{name}.yml").read_text())
    return validate({**written, "turbokube_profile": name, **{f"turbokube_{k}": v for k, v in settings.items()}})


def machine(cores: float, gib: float, **changes: int) -> Machine:
    """A machine with disk and files enough, unless told otherwise."""
    whole = Machine(cores=cores, memory=int(gib * GIB), home_free=100 * GIB, cache_free=100 * GIB, open_files=20000)
    return replace(whole, **changes)


# 1,000 vnodes, 8,000 pods, 100 leases/s and 10 reports of status/s
SMALL = {"namespaces": 125, "deployments_per_namespace": 8, "status_interval_s": 100}


def test_by_hand() -> None:
    found = predict(profile(**SMALL), machine(2, 22), THREE, ROUND)
    assert found.heartbeats_per_second == pytest.approx(110)
    assert found.heartbeat_cores == pytest.approx(0.2 + 110 * 0.003)  # 0.53
    assert found.pod_ms == pytest.approx(2 + 10 + 4 + 4)  # 4 more at 1,000 nodes
    assert found.pods_per_second == pytest.approx((0.9 * 2 - 0.53) / 0.020)  # 63.5
    assert found.bound_by == "the processor"
    assert found.seconds == pytest.approx(8000 / 63.5)
    assert found.memory == pytest.approx(350 * 2**20 + 1000 * 64 * 2**10 + 8000 * 48 * 2**10)
    assert found.store == pytest.approx(1000 * 1000 + 8000 * 2000 + 110 * 600 * 100)  # 23.6 MB
    assert found.disk == pytest.approx(23.6e6 + 1e6 + 2e6 + 8e4 + 3e6)


def test_members_of_the_store_each_do_the_work_and_api_servers_share_it() -> None:
    found = predict(profile(**SMALL), machine(8, 22), {"etcd": 3, "kube-apiserver": 2, "kube-scheduler": 1}, ROUND)
    assert found.heartbeat_cores == pytest.approx(3 * 0.1 + 2 * 0.1 + 110 * (3 * 0.001 + 0.002))
    assert found.pod_ms == pytest.approx(3 * 2 + 10 + 8)
    assert found.memory == pytest.approx(
        (3 * 100 + 2 * 200 + 50) * 2**20 + 2 * 1000 * 64 * 2**10 + 8000 * (2 * 32 + 16) * 2**10
    )
    assert found.disk == pytest.approx(3 * (23.6e6 + 1e6) + 2e6 + 8e4 + 3e6)


def test_kine_costs_what_etcd_does_and_has_no_quota() -> None:
    settings = {**SMALL, "store": "kine", "etcd_quota_bytes": 67108864, "namespaces": 1024, "vnodes_per_namespace": 1}
    layout = {"kine": 1, "kube-apiserver": 1, "kube-scheduler": 1}
    verdict = judge(profile(**settings), machine(4, 22), layout, ROUND)
    assert verdict.prediction.store > 0.8 * 67108864
    assert verdict.refusal == ""


def test_steps_take_the_mean_number_of_nodes() -> None:
    found = predict(profile(**SMALL, steps=4), machine(2, 22), THREE, ROUND)
    assert found.pod_ms == pytest.approx(16 + 4 * (250 + 500 + 750 + 1000) / 4 / 1000)


def test_client_limits_bind_and_are_named() -> None:
    slow = predict(profile(client_qps=20, client_burst=30), machine(16, 64), ONE_MACHINE, measured.load())
    assert slow.pods_per_second == pytest.approx(16, rel=0.1)  # as the original saw with the defaults
    assert slow.bound_by == "turbokube_client_qps 20 in kube-controller-manager"
    paced = predict(profile(rate=1.5), machine(16, 64), ONE_MACHINE, measured.load())
    assert (paced.pods_per_second, paced.bound_by) == (12, "turbokube_rate 1.5")


def test_processes_of_a_fleet_share_its_vnodes() -> None:
    cost = Cost(idle_cores=0, heartbeat_ms=1, pod_ms=1, memory_mib=30, node_kib=2, pod_kib=1)
    fleet = msgspec.structs.replace(ROUND, components={**ROUND.components, "fleet": cost})
    one, four = (predict(profile(**SMALL), machine(2, 22), {**THREE, "fleet": count}, fleet).memory for count in (1, 4))
    assert four - one == pytest.approx(3 * 30 * 2**20)


def test_vnodes_with_connections_of_their_own_take_memory_in_the_fleet_and_in_the_api_server() -> None:
    lease, kubelet, node = (
        predict(profile(**SMALL, fidelity=fidelity), machine(2, 22), ONE_MACHINE, measured.load()).memory / 2**20
        for fidelity in ("lease", "kubelet", "node")
    )
    assert kubelet - lease == pytest.approx(1000 * (105 + 950) / 1024)
    assert node - lease == pytest.approx(1000 * (130 + 1780) / 1024)


def test_above_lease_heartbeats_and_pods_cost_what_they_do_at_that_level() -> None:
    levels = {"kubelet": {"etcd": LevelCost(heartbeat_ms=2, pod_ms=4), "fleet": LevelCost(heartbeat_ms=1, pod_ms=3)}}
    fleet = Cost(idle_cores=0.1, heartbeat_ms=0, pod_ms=1, memory_mib=30, node_kib=2, pod_kib=1)
    known = msgspec.structs.replace(ROUND, levels=levels, components={**ROUND.components, "fleet": fleet})
    lease, kubelet, node = (
        predict(profile(**SMALL, fidelity=fidelity), machine(2, 22), {**THREE, "fleet": 1}, known)
        for fidelity in ("lease", "kubelet", "node")
    )
    assert kubelet.pod_ms == pytest.approx(lease.pod_ms + 2 + 2)
    assert kubelet.heartbeat_cores == pytest.approx(lease.heartbeat_cores + 110 * (0.001 + 0.001))
    assert [cap.why for cap in kubelet.caps if "fleet_processes" in cap.name] == [
        "90% of 1 cores, 0.21 of them for heartbeats, 3.0 ms for each pod"
    ]
    assert node.pod_ms == lease.pod_ms  # of a level that nothing is known of, what is known of lease
    kine = {"kine": 1, "kube-apiserver": 1, "kube-scheduler": 1, "fleet": 1}
    settings = {**SMALL, "store": "kine", "fidelity": "kubelet"}
    assert predict(profile(**settings), machine(2, 22), kine, known).pod_ms == kubelet.pod_ms


@pytest.mark.parametrize(
    ("settings", "apiservers", "files"),
    [
        ({}, 1, 1024 + 8),
        ({"fidelity": "kubelet"}, 1, 1024 + 8 + 256),
        ({"fidelity": "node"}, 1, 1024 + 8 + 512),
        ({"fidelity": "node", "fleet_processes": 4}, 1, 1024 + 8 + 512),  # the one API server has them all
        ({"fidelity": "node", "fleet_processes": 4}, 2, 1024 + 8 + 256),
    ],
)
def test_vnodes_with_connections_of_their_own_take_open_files(
    settings: dict[str, object], apiservers: int, files: int
) -> None:
    layout = {**ONE_MACHINE, "kube-apiserver": apiservers}
    assert predict(profile(**settings), machine(16, 64), layout, measured.load()).open_files == files


def test_extra_schedulers_take_memory() -> None:
    one, five = (
        predict(profile(schedulers=number), machine(16, 64), ONE_MACHINE, measured.load()).memory for number in (0, 4)
    )
    assert five - one > 4 * 60 * 2**20


@pytest.mark.parametrize("name", ["quickstart", "1k"])
def test_the_small_profiles_are_carried_by_two_cores(name: str) -> None:
    verdict = judge(profile(name), machine(2, 22), ONE_MACHINE, measured.load())
    assert (verdict.refusal, verdict.warnings) == ("", [])


def test_8k_is_refused_by_two_cores_with_what_can_be_done() -> None:
    here = machine(2, 22)
    refusal = judge(profile("8k"), here, ONE_MACHINE, measured.load()).refusal
    assert refusal.startswith(
        "this machine does not carry profile 8k with turbokube_namespaces 1024: 8192 vnodes that "
    )
    assert "renew their leases every 10 s take" in refusal
    assert "-e turbokube_lease_interval_s=" in refusal
    assert "-e turbokube_node_monitor_grace_s=" in refusal
    assert refusal.endswith("or -e turbokube_preflight=warn to try it all the same")
    fewer = int(refusal.partition("turbokube_namespaces=")[2].partition(")")[0])
    assert judge(profile("8k", namespaces=fewer), here, ONE_MACHINE, measured.load()).refusal == ""
    assert judge(profile("8k", namespaces=fewer + 1), here, ONE_MACHINE, measured.load()).refusal


def test_8k_is_carried_by_sixteen_cores() -> None:
    assert judge(profile("8k"), machine(16, 96), ONE_MACHINE, measured.load()).refusal == ""


def test_8k_with_fewer_pods_and_a_longer_lease_is_carried_by_two_cores() -> None:
    longer = {"lease_interval_s": 50, "lease_duration_s": 200, "node_monitor_grace_s": 250}
    verdict = judge(profile("8k", deployments_per_namespace=1, **longer), machine(2, 22), ONE_MACHINE, measured.load())
    assert (verdict.refusal, verdict.warnings) == ("", [])


def test_the_suggested_lease_is_carried_and_valid() -> None:
    tight = profile("8k", deployments_per_namespace=1)
    refusal = judge(tight, machine(2, 22), ONE_MACHINE, measured.load()).refusal
    options = dict(
        word.split("=") for word in refusal.partition("moved with it (")[2].partition(")")[0].split() if "=" in word
    )
    suggested = validate({**tight.settings(), **options})
    assert judge(suggested, machine(2, 22), ONE_MACHINE, measured.load()).refusal == ""


@pytest.mark.parametrize(
    ("here", "settings", "cause"),
    [
        (machine(16, 1), {}, "its processes need 1.2 GiB of memory, where 1.0 GiB are available and 90% of them"),
        (
            machine(16, 22, home_free=GIB // 10),
            {},
            "it writes 0.7 GiB to turbokube_home, where 0.1 GiB are free",
        ),
        (
            machine(16, 22, open_files=1024),
            {},
            "a process of it opens up to 1032 files, where the hard limit (ulimit -Hn) is 1024",
        ),
        (
            machine(16, 22),
            {"etcd_quota_bytes": 134217728},
            "etcd's file grows to 0.2 GiB, where turbokube_etcd_quota_bytes is 134217728 and 80% of it may be used",
        ),
    ],
)
def test_what_a_machine_lacks_is_named(here: Machine, settings: dict[str, object], cause: str) -> None:
    known = Coefficients(  # the shipped figures change with every measurement; these do not
        provenance={},
        components={"etcd": Cost(idle_cores=0, heartbeat_ms=1, pod_ms=1, memory_mib=1228.8, node_kib=0, pod_kib=0)},
        store=StoreCost(node_bytes=0, pod_bytes=0.2 * GIB / 8192, heartbeat_bytes=0, kept_s=600),
        disk=DiskCost(member_bytes=0.5 * GIB, bundle_bytes=0, pod_bytes=0, log_bytes=0),
        requests_per_pod={},
    )
    refusal = judge(profile(**settings), here, {"etcd": 1}, known).refusal
    assert f": {cause}" in refusal
    assert refusal.count("where ") == 1  # nothing else is lacking


def test_a_deadline_that_will_pass_is_warned_about() -> None:
    (warning,) = judge(profile(deadline_s=60), machine(2, 22), ONE_MACHINE, measured.load()).warnings
    assert warning.startswith("turbokube_deadline_s is 60, but a step of the load is predicted to take ")


def test_lines_for_a_person() -> None:
    here = machine(2, 22)
    wanted = profile(**SMALL)
    assert describe(wanted, here, predict(wanted, here, THREE, ROUND)) == [
        "pods: at most 64/s, bound by the processor (20 ms of CPU per pod), so 8000 take 2 min",
        "cap on pods: 64/s by the processor: 90% of 2 cores, 0.53 of them for heartbeats, 20 ms for each pod; binds "
        "first",
        "heartbeats: 110/s take 0.53 of 2 cores",
        "open files: 1032 of 20000 in one process",
        "memory: 0.8 GiB of 22.0 GiB available",
        "addresses of a pod range: 8 of 254",
        "pod ranges: 1000 of 32768 in 10.128.0.0/9",
        "pods of a vnode: 8 of 1024",
        "store: 0.02 GiB of a quota of 8.0 GiB",
        "disk: 0.0 GiB of 100.0 GiB free",
    ]
    full = profile("8k", status_interval_s=10)
    found = predict(full, here, ONE_MACHINE, measured.load())
    assert math.isinf(found.seconds)
    assert describe(full, here, found)[0] == "pods: no core is left for them"


def test_the_shipped_coefficients_say_how_they_came_about() -> None:
    found = measured.load()
    assert {"date", "machine", "versions", "command", "note"} <= found.provenance.keys()
    assert set(ONE_MACHINE) == set(found.components)
    assert set(found.engines) == {"kwok", "kubemark", "virtual_kubelet"}


def test_another_engine_costs_what_it_does() -> None:
    found = measured.load()
    costs = found.engines["kubemark"]
    own, other = (predict(profile(engine=one), machine(2, 24), {"fleet": 1}, found) for one in ("builtin", "kubemark"))
    assert other.memory - own.memory > 256 * (costs.node_kib - 10) * 2**10
    assert other.heartbeat_cores > own.heartbeat_cores
