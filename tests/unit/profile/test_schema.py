"""The schema: conversion, bounds, what goes together, and what is generated from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from turbokube.bundle import trace
from turbokube.profile.reference import CHOICE, base, variables_page
from turbokube.profile.schema import PREFIX, Profile, ProfileError, as_options, lease_settings, validate, variables

ROOT = Path(__file__).parents[3]
PROFILES = ROOT / "playbooks" / "profiles"


def problems(**settings: object) -> list[str]:
    """The sentences that settings (without prefix) are refused with."""
    with pytest.raises(ProfileError) as caught:
        validate({PREFIX + name: value for name, value in settings.items()})
    return caught.value.problems


def load(name: str) -> dict[str, object]:
    """The settings of a playbook that uses this profile."""
    return {
        **yaml.safe_load((PROFILES / "base.yml").read_text()),
        **yaml.safe_load((PROFILES / f"{name}.yml").read_text()),
        "turbokube_profile": name,
    }


def test_defaults_are_the_quickstart() -> None:
    profile = validate({})
    assert (profile.vnodes, profile.deployments, profile.pods, profile.pods_per_vnode) == (256, 1024, 8192, 32)
    assert profile.leases_per_second == pytest.approx(25.6)


@pytest.mark.parametrize(
    ("name", "vnodes", "pods"), [("quickstart", 256, 8192), ("1k", 1024, 32768), ("8k", 8192, 262144)]
)
def test_profiles_have_the_sizes_they_promise(name: str, vnodes: int, pods: int) -> None:
    profile = validate(load(name))
    assert (profile.vnodes, profile.pods) == (vnodes, pods)


def test_base_holds_every_variable_with_its_default() -> None:
    written = yaml.safe_load((PROFILES / "base.yml").read_text())
    assert written == {name: rule.default for name, rule in variables().items() if name != CHOICE}
    assert (PROFILES / "base.yml").read_text() == base()


def test_reference_is_current() -> None:
    assert (ROOT / "docs" / "variables.md").read_text() == variables_page()


def test_text_from_the_command_line_is_converted() -> None:
    profile = validate(
        {
            "turbokube_namespaces": "32",
            "turbokube_lease_interval_s": "12.5",
            "turbokube_watch_cache": "False",
            "turbokube_apiserver_args": '{"v": 2}',
            "turbokube_vnode_cpu": 16,
        }
    )
    assert profile.namespaces == 32
    assert profile.lease_interval_s == 12.5
    assert profile.watch_cache is False
    assert profile.apiserver_args == {"v": 2}
    assert profile.vnode_cpu == "16"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("namespaces", -1, "turbokube_namespaces is -1, but it must be a whole number from 1 to 65536"),
        ("namespaces", "-1", "turbokube_namespaces is -1, but it must be a whole number from 1 to 65536"),
        ("namespaces", 65537, "turbokube_namespaces is 65537, but it must be a whole number from 1 to 65536"),
        ("namespaces", 1.5, "turbokube_namespaces is 1.5, but it must be a whole number from 1 to 65536"),
        ("namespaces", True, "turbokube_namespaces is True, but it must be a whole number from 1 to 65536"),
        ("namespaces", None, "turbokube_namespaces is null, but it must be a whole number from 1 to 65536"),
        ("rate", "nan", "turbokube_rate is nan, but it must be a number from 0 to 100000"),
        ("placement", "node", "turbokube_placement is node, but it must be one of namespace, cluster"),
        (
            "engine",
            "docker",
            "turbokube_engine is docker, but it must be one of builtin, kwok, kubemark, virtual_kubelet",
        ),
        ("watch_cache", "maybe", "turbokube_watch_cache is maybe, but it must be true or false"),
        (
            "run",
            "../other",
            "turbokube_run is ../other, but it must be lower-case letters, digits and dashes, 50 at most or empty",
        ),
        (
            "pod_memory",
            "32MB",
            "turbokube_pod_memory is 32MB, but it must be a Kubernetes quantity such as 32Mi, 2 or 500m or empty",
        ),
        (
            "etcd_args",
            ["a"],
            'turbokube_etcd_args is ["a"], but it must be a dictionary of names and plain values',
        ),
        ("pod_subnet", "10.128.0.1/9", None),
        ("pod_subnet", "fd00::/48", None),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(name: str, value: object, sentence: str | None) -> None:
    expected = sentence or f"turbokube_pod_subnet is {value}, but it must be an IPv4 network such as 10.128.0.0/9"
    assert problems(**{name: value}) == [expected]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    assert problems(namespace=4) == [
        "turbokube_namespace is not a variable of TurboKube; did you mean turbokube_namespaces?"
    ]
    assert problems(xyzzy=4) == [
        "turbokube_xyzzy is not a variable of TurboKube; docs/variables.md lists those that are."
    ]


def test_ports_are_whole_known_and_different() -> None:
    validate({"turbokube_ports": {"kube-apiserver-0": 6443, "etcd-0": 2379}})
    assert problems(ports={"etcd-0": "2379"}) == [
        "turbokube_ports has '2379' for etcd-0, but it must be a whole number from 1 to 65535"
    ]
    assert problems(ports={"etcd": 2379}) == [
        "turbokube_ports has a port for etcd, but only those of kube-apiserver-0 and etcd-0 can be fixed"
    ]
    assert problems(ports={"kube-apiserver-0": 1, "etcd-0": 1})[0].endswith("but each port must be another one")


def test_all_problems_are_told_at_once() -> None:
    found = problems(namespaces=-1, replica=8, store="mysql")
    assert len(found) == 3


def test_an_interval_near_the_grace_period_is_refused() -> None:
    together = (
        "-e turbokube_lease_interval_s=50 -e turbokube_lease_duration_s=200 -e turbokube_node_monitor_grace_s=250"
    )
    (found,) = problems(lease_interval_s=50, lease_duration_s=200, node_monitor_grace_s=50)
    assert found.startswith("turbokube_node_monitor_grace_s is 50, but with turbokube_lease_interval_s 50 ")
    assert "at least 200" in found
    assert found.endswith(together)
    assert as_options(lease_settings(50)) == together


def test_the_grace_period_holds_one_lost_renewal_and_the_margin() -> None:
    validate({"turbokube_lease_interval_s": 20})  # 2 x 20 + 10 = 50, the default grace period
    assert "at least 52" in problems(lease_interval_s=21, lease_duration_s=42)[0]


def test_a_lease_shorter_than_two_renewals_is_refused() -> None:
    (found,) = problems(lease_interval_s=20, lease_duration_s=39)
    assert found.startswith("turbokube_lease_duration_s is 39, but with a renewal every 20 s it must be at least 40;")


def test_the_demonstration_with_a_longer_lease_is_accepted() -> None:
    profile = validate(
        {**load("8k"), "turbokube_deployments_per_namespace": "1", **{k: str(v) for k, v in lease_settings(50).items()}}
    )
    assert (profile.vnodes, profile.pods, profile.leases_per_second) == (8192, 8192, pytest.approx(163.84))


def test_a_subnet_too_small_for_the_vnodes_is_refused() -> None:
    assert problems(pod_subnet="10.244.0.0/16", namespaces=1024) == [
        "turbokube_pod_subnet is 10.244.0.0/16, which holds 256 nodes with turbokube_node_cidr_mask 24, but the "
        "profile has 8192 vnodes, so its prefix must be at most /11"
    ]
    validate({"turbokube_pod_subnet": "10.160.0.0/11", "turbokube_namespaces": 1024})


def test_a_subnet_without_room_for_the_vnodes_asks_for_fewer() -> None:
    assert problems(namespaces=9000) == [
        "turbokube_namespaces is 9000, which makes 72000 vnodes, but kubeadm's pod subnets hold 65536 nodes at most"
    ]


def test_more_vnodes_than_a_fleet_has_are_refused() -> None:
    assert problems(namespaces=65536, kubeconfig="/k") == [
        "turbokube_namespaces is 65536, which with turbokube_vnodes_per_namespace 8 makes 524288 vnodes, but a fleet "
        "has 100000 at most"
    ]


def test_a_mask_too_small_for_the_pods_of_a_vnode_is_refused() -> None:
    assert problems(node_cidr_mask=28, pod_subnet="10.128.0.0/16") == [
        "turbokube_node_cidr_mask is 28, which gives a vnode 14 addresses, but 32 pods come to each, so it must be at "
        "most 26"
    ]


def test_what_kubeadm_refuses_is_refused_before() -> None:
    assert "from 9 to 25 (a limit of kubeadm)" in problems(node_cidr_mask=26)[0]
    assert "must not overlap that of the services, 10.96.0.0/12" in problems(pod_subnet="10.0.0.0/8")[0]


def test_addresses_of_an_existing_cluster_are_its_own_affair() -> None:
    validate({"turbokube_kubeconfig": "/k", "turbokube_namespaces": 10000})


def test_pods_that_do_not_fit_a_vnode_are_refused() -> None:
    assert "turbokube_vnode_pods is 16, but 32 pods come to each vnode" in problems(vnode_pods=16)[0]
    assert (
        "turbokube_vnode_memory is 64Gi, but the 32 pods of a vnode request 4Gi each" in problems(pod_memory="4Gi")[0]
    )
    assert (
        "turbokube_vnode_cpu is 2, but the 32 pods of a vnode request 100m each"
        in problems(vnode_cpu=2, pod_cpu="100m")[0]
    )


def test_settings_go_there_and_back() -> None:
    profile = validate({"turbokube_namespaces": 3, "turbokube_etcd_env": {"GOGC": "200"}})
    assert validate(profile.settings()) == profile


FAULT = {"after": 60, "share": 0.1, "action": "silence", "duration": 120}


def test_durations_and_faults_are_taken_from_the_inventory_and_from_the_command_line() -> None:
    profile = validate(
        {
            "turbokube_start_delay": 2.5,
            "turbokube_run_time": "lognormal(3.3, 0.4)",
            "turbokube_faults": '[{"after": 60, "share": 0.1, "action": "silence", "duration": 120}]',
        }
    )
    assert (profile.start_delay, profile.run_time, profile.faults) == ("2.5", "lognormal(3.3, 0.4)", [FAULT])
    assert validate({}).faults == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({**FAULT, "share": 2}, "share must be a number from 0 to 1"),
        ({**FAULT, "action": "burn"}, "action must be one of silence, not_ready, disappear"),
        ({"share": 0.1, "action": "silence"}, "after must be a number from 0 to 86400"),
        ({**FAULT, "lasts": 3}, "lasts is none of after, share, action, duration"),
    ],
)
def test_a_fault_that_cannot_be_had_is_named(fault: dict[str, object], why: str) -> None:
    (sentence,) = problems(faults=[fault])
    assert sentence == f"turbokube_faults has {fault}, but {why}"


def test_what_is_no_duration_and_no_list_is_refused_with_what_is_allowed() -> None:
    (sentence,) = problems(run_time="long")
    assert sentence.startswith("turbokube_run_time is long, but it must be seconds from 0 to 86400, or")
    assert sentence.endswith("or empty")
    (sentence,) = problems(faults={"after": 1})
    assert sentence.endswith("but it must be a list of dictionaries of names and plain values")


def test_phases_are_checked_whole_with_everything_else() -> None:
    base = {"kind": "create", "name": "base"}
    churn = {"kind": "churn", "of": "base", "duration": 10}
    assert problems(phases=[base, {**churn, "rate": -1}], namespaces=0) == [
        "turbokube_namespaces is 0, but it must be a whole number from 1 to 65536"
    ]
    assert problems(phases=[base, {**churn, "rate": -1}]) == ["turbokube_phases[1].rate is -1; it must be at least 0"]
    assert problems(phases=[base, churn], phases_override='{"churn.rat": 5}') == [
        "turbokube_phases[1] has rat, which kind churn does not know; did you mean rate?"
    ]
    assert problems(phases="base") == [
        "turbokube_phases is base, but it must be a list of phases as docs/phases.md describes them"
    ]
    assert problems(phases=[base], steps=2) == [
        "turbokube_steps is 2, but it must be 1 where turbokube_phases says what is done"
    ]
    assert problems(phases=[{**base, "namespaces": 4, "first_namespace": 6}], namespaces=8) == [
        "base of turbokube_phases has namespaces up to number 9, but turbokube_namespaces is 8, so that those from 8 "
        "on have no vnodes"
    ]


def test_the_most_pods_follow_from_the_phases() -> None:
    def profile(*phases: dict[str, Any]) -> Profile:
        return validate({"turbokube_namespaces": 4, "turbokube_phases": list(phases)})

    base = {"kind": "create", "name": "base", "objects": [{"count": 2, "replicas": 8}, {"template": "secret"}]}
    jobs = {"kind": "create", "name": "jobs", "namespaces": 1, "objects": [{"template": "job", "replicas": 4}]}
    assert (profile(base).pods, profile(base).pods_per_vnode) == (64, 2)
    assert (profile(base, jobs).pods, profile(base, jobs).pods_per_vnode) == (68, 3)
    grow = {"kind": "scale", "of": "base", "factor": 3, "share": 0.5}
    shrink = {"kind": "scale", "name": "back", "of": "base", "replicas": 1}
    assert (profile(base, grow, shrink).pods, profile(base, grow, shrink).pods_per_vnode) == (128, 4)
    assert profile().pods == 4 * 256


def test_pods_of_replays_are_among_the_most_and_those_that_they_leave_stay(tmp_path: Path) -> None:
    def replay(name: str, *replicas: int) -> dict[str, Any]:
        path = tmp_path / f"{name}.jsonl.gz"
        verbs: tuple[Literal["create", "scale"], ...] = ("create", "scale")
        done = [
            trace.Operation(t=t, verb=verbs[t > 0], kind="Deployment", namespace="a", name="d", replicas=count)
            for t, count in enumerate(replicas)
        ]
        trace.write(trace.make(done, keep_names=False, method="watched", began=0.0, seconds=9.0), path)
        return {"kind": "replay", "name": name, "trace": str(path)}

    def pods(*phases: dict[str, Any]) -> tuple[int, int]:
        profile = validate({"turbokube_namespaces": 4, "turbokube_phases": list(phases)})
        return profile.pods, profile.pods_per_vnode

    base = {"kind": "create", "name": "base", "objects": [{"count": 2, "replicas": 8}]}
    assert pods(replay("first", 320, 160)) == (320, 10)
    assert pods(replay("first", 320, 160), base) == (320, 10)
    assert pods(replay("first", 320, 160), replay("second", 200)) == (360, 12)
    assert pods(base, {"together": [replay("first", 320, 160), replay("second", 200)]}) == (584, 19)
