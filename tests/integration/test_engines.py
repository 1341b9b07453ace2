"""Engines of others on a real control plane: each joins, carries pods, renews, shrinks and leaves nothing behind.

KWOK and kubemark come from the cache that `make test-all` fills, virtual-kubelet by a path: TURBOKUBE_VIRTUAL_KUBELET.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane, binaries
from tests.integration.fleets import Fleet, wait_for
from turbokube.api.target import load_target
from turbokube.daemon import process
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec, SpecError

COUNT, PODS = 20, 40
SPEC = Spec(run="engines", count=COUNT, placement="cluster", pods=110, connections=4)
ENGINES: dict[str, dict[str, Any]] = {
    "kwok": {},
    "kubemark": {"fidelity": "kubelet", "cpu": "1", "memory": "3840Mi"},
    "virtual_kubelet": {"status_interval": 60.0},
}
# kubemark's recorder is a fake one ("With real recorder we attempt to read /dev/kmsg"), and the mock provider has none
TELL_OF_STARTS = ("kwok",)
SAY_READY_TO_START = ("kwok", "kubemark")
BAND = (0.97, 1.03)  # renewals made over nodes / interval; jitter and latency make it 0.98

pytestmark = pytest.mark.slow


def binary(engine: str) -> str:
    """The path of an engine's binary; skips where it cannot be had."""
    if engine == "virtual_kubelet":
        path = os.environ.get("TURBOKUBE_VIRTUAL_KUBELET", "")
        if not path:
            pytest.skip("no pinned module of virtual-kubelet is held: TURBOKUBE_VIRTUAL_KUBELET names its binary")
        return path
    found = binaries().get(engine)
    if found is None:
        pytest.fail(f"no {engine}: `python tests/stages.py engines` builds it")
    return found


class Foreign(Fleet):
    """A fleet of such an engine."""

    def __init__(self, plane: ControlPlane, engine: str) -> None:
        spec = msgspec.structs.replace(SPEC, engine=engine, binary=binary(engine), **ENGINES[engine])
        super().__init__(plane, spec, timeout=240)
        self.engine = engine

    def nodes(self) -> list[dict[str, Any]]:
        return self.items("nodes", "-l", f"turbokube.io/run={SPEC.run}")

    def leases(self) -> list[dict[str, Any]]:
        return self.items("leases", "-n", "kube-node-lease", "-l", f"turbokube.io/run={SPEC.run}")

    def ready(self) -> set[str]:
        return {
            node["metadata"]["name"]
            for node in self.nodes()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        }

    def renewals(self) -> dict[str, float]:
        """When each vnode's Lease was renewed last, in seconds."""
        return {
            lease["metadata"]["name"]: datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp()
            for lease in self.leases()
        }

    def processes(self) -> list[process.Process]:
        """The engine's, without the daemon."""
        prefix = self.engine.replace("_", "-")
        return [one for one in process.marked(self.plane.state) if one.name.startswith(f"{prefix}-")]


@pytest.fixture(scope="module", params=sorted(ENGINES))
def vnodes(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Foreign]:
    it = Foreign(plane, request.param)
    it.present()
    try:
        yield it
    finally:
        it.absent()


@pytest.fixture(scope="module")
def load(vnodes: Foreign) -> Iterator[list[dict[str, Any]]]:
    """The pods of a Deployment that runs."""
    with vnodes.carrying(PODS, 120):
        yield vnodes.pods()


# of one engine each, before the fleets of all


@pytest.mark.parametrize("delay", ["2", "uniform(1,3)", "exponential(1)", "lognormal(0.5,0.2)"])
def test_kwok_starts_pods_when_it_is_told_to(plane: ControlPlane, delay: str) -> None:
    it = Foreign(plane, "kwok")
    it.present()
    try:
        with it.carrying(PODS, start_delay=delay):
            took = [_seconds(pod["status"]["startTime"]) - _bound(pod) for pod in it.pods()]
            assert 0.5 <= sum(took) / PODS <= 3.0  # whole seconds at both ends
    finally:
        it.absent()


def test_an_engine_that_does_not_live_says_why(plane: ControlPlane, tmp_path: Path) -> None:
    broken = tmp_path / "kwok"
    broken.write_text("#!/bin/sh\necho this kwok is broken >&2\nexit 3\n")
    broken.chmod(0o755)
    spec = msgspec.structs.replace(SPEC, engine="kwok", binary=str(broken), count=2)
    target = load_target(plane.target)
    with pytest.raises(fleet.FleetError, match=r"(?s)kwok-0 ended with code 3 after .*this kwok is broken"):
        fleet.present(lambda: target, plane.state, spec, timeout=60)
    fleet.absent(target, plane.state, spec)


def test_what_an_engine_cannot_do_is_refused(plane: ControlPlane) -> None:
    spec = msgspec.structs.replace(SPEC, engine="kwok", binary=binary("kwok"), fidelity="node")
    with pytest.raises(SpecError, match="fidelity 'node' \\(allowed is lease\\)"):
        fleet.present(lambda: load_target(plane.target), plane.state, spec)


def test_vnodes_are_ready_labelled_and_tainted_and_have_leases(vnodes: Foreign) -> None:
    assert vnodes.ready() == {SPEC.name(index) for index in range(COUNT)}
    for node in vnodes.nodes():
        assert node["metadata"]["labels"]["turbokube.io/run"] == SPEC.run
        assert "node.kubernetes.io/exclude-from-external-load-balancers" in node["metadata"]["labels"]
        assert {taint["key"] for taint in node["spec"]["taints"]} == {"turbokube.io/vnode"}
    leases = {lease["metadata"]["name"]: lease for lease in vnodes.leases()}
    assert leases.keys() == vnodes.ready()
    assert all(lease["spec"]["leaseDurationSeconds"] == SPEC.lease_duration for lease in leases.values())


def test_leases_are_renewed_at_the_rate_of_nodes(vnodes: Foreign) -> None:
    """From renewal to renewal of each vnode, since those of so few come in clumps that a window cuts."""
    wait_for(lambda: len(vnodes.renewals()) == COUNT)
    before, first = vnodes.metric("turbokube_fleet_lease_renewals_total"), vnodes.renewals()
    last, made = dict(first), 0
    for _ in range(15):
        time.sleep(4.0)  # no two renewals of a vnode are as near to each other
        now = vnodes.renewals()
        made += sum(now[name] != last[name] for name in first)
        last = now
    rate = made / sum(last[name] - first[name] for name in first)
    assert BAND[0] <= rate * SPEC.lease_interval <= BAND[1]
    assert vnodes.metric("turbokube_fleet_lease_renewals_total") - before == pytest.approx(made, abs=COUNT)
    assert vnodes.metric("turbokube_fleet_lease_oldest_renewal_seconds") < SPEC.lease_interval * 1.04 + 2


def test_pods_run_and_tell_what_measuring_tools_look_for(vnodes: Foreign, load: list[dict[str, Any]]) -> None:
    assert len(load) == PODS
    for pod in load:
        true = {c["type"] for c in pod["status"]["conditions"] if c["status"] == "True"}
        assert {"Ready", "Initialized"} <= true
        if vnodes.engine in SAY_READY_TO_START:
            assert "PodReadyToStartContainers" in true
        assert all(c["ready"] and "running" in c["state"] for c in pod["status"]["containerStatuses"])
    if vnodes.engine in TELL_OF_STARTS:
        uids = {pod["metadata"]["uid"] for pod in load}

        def told() -> set[str]:
            events = vnodes.items("events", "--field-selector", "reason=Started")
            return {event["involvedObject"]["uid"] for event in events}

        wait_for(lambda: uids <= told())  # Events come behind statuses
    wait_for(lambda: vnodes.status()["pods"]["Running"] == PODS)


def test_present_changes_nothing_the_second_time(vnodes: Foreign) -> None:
    assert not vnodes.present().changed


def test_fleet_shrinks_and_grows(vnodes: Foreign) -> None:
    vnodes.present(count=10)
    assert vnodes.ready() == {SPEC.name(index) for index in range(10)}
    assert len(vnodes.leases()) == 10
    vnodes.present(count=COUNT)
    assert len(vnodes.ready()) == COUNT


def test_processes_end_with_the_daemon_and_the_next_takes_over(vnodes: Foreign) -> None:
    nodes = {node["metadata"]["name"]: node["metadata"]["uid"] for node in vnodes.nodes()}
    daemon = process.find(vnodes.plane.state, "fleet")
    assert daemon is not None
    assert vnodes.processes()
    daemon.signal(signal.SIGKILL)
    wait_for(lambda: not vnodes.processes(), 10)
    assert vnodes.present().changed
    assert {node["metadata"]["name"]: node["metadata"]["uid"] for node in vnodes.nodes()} == nodes
    before = vnodes.metric("turbokube_fleet_lease_renewals_total")
    wait_for(lambda: vnodes.metric("turbokube_fleet_lease_renewals_total") >= before + COUNT, 30)


def test_a_process_that_ends_is_started_again(vnodes: Foreign) -> None:
    time.sleep(11)  # one that ends sooner ends the daemon
    victim = vnodes.processes()[0]
    victim.signal(signal.SIGKILL)
    wait_for(lambda: vnodes.status()["process_restarts"] == 1, 20)
    wait_for(lambda: victim.name in {one.name for one in vnodes.processes()}, 20)


def test_nothing_is_left(vnodes: Foreign) -> None:
    assert vnodes.absent().changed
    assert not vnodes.nodes()
    assert not vnodes.leases()
    assert not vnodes.processes()
    assert not vnodes.absent().changed
    vnodes.present()  # who ends the pods that fixture `load` deletes


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def _bound(pod: dict[str, Any]) -> float:
    (scheduled,) = (c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
    return _seconds(scheduled["lastTransitionTime"])
