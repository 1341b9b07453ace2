"""What the preflight looks at around the prediction: runs, folders, ports, the cache."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from turbokube.bundle import runs, trace
from turbokube.predict import machine
from turbokube.predict.machine import Machine
from turbokube.predict.preflight import Preflight, preflight
from turbokube.profile.schema import validate

GIB = 2**30
ROOMY = Machine(cores=16, memory=64 * GIB, home_free=100 * GIB, cache_free=100 * GIB, open_files=20000)


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with room, and a cache of its own."""
    monkeypatch.setenv("TURBOKUBE_CACHE", str(tmp_path / "cache"))
    change(monkeypatch)


def change(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    """Pretend that the machine is another."""
    monkeypatch.setattr(machine, "look", lambda *_: replace(ROOMY, **values))


def check(home: Path, **settings: object) -> Preflight:
    return preflight({f"turbokube_{name}": value for name, value in settings.items()}, home)


def test_a_new_run(tmp_path: Path) -> None:
    found = check(tmp_path, namespaces="4", schedulers=2)
    assert (found.problems, found.refusals, found.warnings) == ([], [], [])
    assert (found.run, found.run_state) == ("quickstart", "new")
    assert found.state_dir == str(tmp_path / ".turbokube" / "quickstart")
    assert found.bundle == str(tmp_path / "runs" / "quickstart")
    assert found.plan == [
        f"run: quickstart is new; its record is {tmp_path}/runs/quickstart",
        "target: Kubernetes 1.36.3: 1 etcd, 1 kube-apiserver, 1 kube-controller-manager, 1 kube-scheduler and 2 extra",
        "fleet: 32 vnodes, 8 for each of 4 namespaces; engine builtin, fidelity lease, a lease renewed every 10 s",
        "load: 128 deployments of 8 replicas, 1024 pods, 4 namespaces at once",
    ]
    assert list(tmp_path.iterdir()) == []  # it only reads


def test_phases_are_told_one_by_one_and_their_files_are_looked_at(tmp_path: Path) -> None:
    base = {"kind": "create", "name": "base", "objects": [{"count": 2, "replicas": 3}, {"template": "service"}]}
    side = [
        {"kind": "churn", "of": "base", "share": 0.25, "rate": {"ramp": [1, 5, 60]}, "duration": 90},
        {"kind": "read", "verb": "watch", "held": 50, "duration": 90},
    ]
    found = check(tmp_path, namespaces=4, phases=[base, {"together": side}, {"kind": "pause", "duration": 5}])
    assert found.problems == []
    assert found.plan[3:] == [
        "phase 1: base: create 2 x deployment of 3 replicas, 1 x service in each of 4 namespaces (24 pods), 4 at once",
        "phase 2: churn: delete and re-create 25% of the objects of base for 90 s, 1 to 5 a second in 60 s",
        "phase 2: read: hold 50 watches of pods in the cluster for 90 s",
        "phase 3: pause: pause for 5 s",
    ]
    own = {"kind": "create", "objects": [{"template": f"{tmp_path}/own.j2"}]}
    assert check(tmp_path, phases=[own]).problems == [
        f"turbokube_phases cannot be carried out, since in phase create: {tmp_path}/own.j2 cannot be read: "
        "No such file or directory"
    ]


def test_bad_settings_end_it_there(tmp_path: Path) -> None:
    found = check(tmp_path, namespaces=-1, namespace=3)
    assert len(found.problems) == 2
    assert found.plan == found.forecast == []


def test_a_finished_run_makes_this_the_next(tmp_path: Path) -> None:
    runs.write(tmp_path / "runs" / "trial", {"finished": 1.0})
    found = check(tmp_path, run="trial")
    assert (found.run, found.run_state, found.problems) == ("trial-2", "new", [])


def test_a_finished_run_whose_processes_live_is_warned_about(tmp_path: Path) -> None:
    runs.write(tmp_path / "runs" / "trial", {"finished": 1.0})
    state = tmp_path / ".turbokube" / "trial"
    state.mkdir(parents=True)
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    environment = {**os.environ, "TURBOKUBE_STATE": str(state)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout
        sleeper.stdout.readline()
        found = check(tmp_path, run="trial")
        sleeper.kill()
    assert found.warnings == [
        "run trial is finished, but its processes still run and share this machine; "
        "playbooks/teardown.yml -e turbokube_run=trial ends them"
    ]


def test_an_interrupted_run_goes_on_only_with_its_profile(tmp_path: Path) -> None:
    before = validate({"turbokube_namespaces": 4}).settings()
    runs.write(tmp_path / "runs" / "quickstart", {"profile": before})
    same = check(tmp_path, namespaces=4, preflight="warn")
    assert (same.run, same.run_state, same.problems) == ("quickstart", "unfinished", [])
    assert same.plan[0].startswith("run: quickstart goes on where it stopped;")
    (problem,) = check(tmp_path, namespaces=5).problems
    assert problem.startswith("turbokube_run is quickstart, but run quickstart is unfinished and has another profile")
    assert "turbokube_namespaces 4 → 5" in problem


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (problem,) = check(file / "below").problems
    assert problem == f"turbokube_home is {file}/below, but {file} must be a folder that you may write to"


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (problem,) = check(tmp_path, ports={"kube-apiserver-0": port}).problems
    assert problem.startswith(f"turbokube_ports has {port} for kube-apiserver-0, but pid {os.getpid()} (")
    assert problem.endswith(" listens on it; give another, or none to have a free one")


def test_a_port_of_the_same_run_is_not_taken(tmp_path: Path) -> None:
    state = tmp_path / ".turbokube" / "quickstart"
    state.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (state / "ports.json").write_text(json.dumps({"etcd-0-client": port}))
        assert check(tmp_path, ports={"etcd-0": port}).problems == []


def test_files_that_are_missing_are_refused(tmp_path: Path) -> None:
    found = check(tmp_path, kubeconfig="/nowhere/config", template="/nowhere/t.j2", binaries="/nowhere/bin")
    assert found.problems == [
        "turbokube_binaries is /nowhere/bin, but it must be a folder that holds them",
        "turbokube_template is /nowhere/t.j2, but it must be a file that you may read",
        "turbokube_kubeconfig is /nowhere/config, but kubeconfig /nowhere/config cannot be read: No such file or "
        "directory",
    ]


def test_a_cluster_of_someone_else_leaves_this_machine_fleet_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443'}}]\nusers: [{name: u, user: {token: t}}]\n"
    )
    change(monkeypatch, cores=2, memory=2 * GIB, cache_free=0)
    found = check(tmp_path, kubeconfig=str(kubeconfig), namespaces=1024, deployments_per_namespace=1)
    assert (found.problems, found.refusals) == ([], [])
    assert not any(line.startswith("store") for line in found.forecast)


def test_what_the_machine_lacks_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, cores=2)
    found = check(tmp_path, namespaces=1024)
    assert found.problems == []
    (refusal,) = found.refusals
    assert "this machine does not carry profile quickstart with turbokube_namespaces 1024" in refusal


def test_a_cache_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, cache_free=400_000_000)
    (refusal,) = check(tmp_path).refusals
    assert refusal.startswith(
        f"the cache of binaries, {tmp_path}/cache, has 0.4 GB free, but the binaries take 0.5 GB;"
    )
    change(monkeypatch, cache_free=2_000_000_000)
    found = check(tmp_path)
    assert found.refusals == []
    assert "enough for a download but not for a build" in found.warnings[0]
    assert check(tmp_path, binaries=str(tmp_path)).warnings == []


def test_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = machine.look(tmp_path / "not" / "there", tmp_path, tmp_path)
    assert 0 < found.cores <= (os.cpu_count() or 1)
    assert 2**20 < found.memory < 2**50
    assert 0 < found.home_free == pytest.approx(found.cache_free, rel=0.01)
    assert found.open_files >= 256


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"turbokube_engine": "kwok"}, ""),
        (
            {"turbokube_engine": "kubemark"},
            "turbokube_engine is kubemark, not to be had with turbokube_fidelity lease, turbokube_vnode_cpu 32, "
            "turbokube_vnode_memory 64Gi; what belongs together is -e turbokube_fidelity=kubelet "
            "-e turbokube_vnode_cpu=1 -e turbokube_vnode_memory=3840Mi",
        ),
        (
            {"turbokube_engine": "kwok", "turbokube_lease_interval_s": 5},
            "turbokube_engine is kwok, not to be had with turbokube_lease_interval_s 5.0; "
            "what belongs together is -e turbokube_lease_interval_s=10.0",
        ),
        (
            {"turbokube_engine": "virtual_kubelet"},
            "turbokube_engine_binary is empty, but turbokube_engine is virtual_kubelet: it must be the binary's path",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_told_with_what_would_be_right(
    tmp_path: Path, settings: dict[str, object], sentence: str
) -> None:
    found = preflight({"turbokube_namespaces": 1, **settings}, tmp_path)
    assert found.problems == ([sentence] if sentence else [])


def test_hollow_kubelets_that_listen_to_everybody_are_warned_of(tmp_path: Path) -> None:
    hollow = {"engine": "kubemark", "fidelity": "kubelet", "vnode_cpu": "1", "vnode_memory": "3840Mi"}
    (warning,) = check(tmp_path, namespaces=1, **hollow).warnings
    assert "listen on every address, to everybody and without TLS" in warning
    assert check(tmp_path, namespaces=1, fidelity="kubelet").warnings == []


def test_pods_of_a_replay_are_told_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def operation(t: float, verb: Any, name: str, replicas: int | None = None) -> trace.Operation:
        return trace.Operation(t=t, verb=verb, kind="Deployment", namespace="a", name=name, replicas=replicas)

    path = tmp_path / "cluster.jsonl"
    done = [operation(0, "create", "a", 500), operation(30, "delete", "a"), operation(60, "create", "b", 70_000)]
    trace.write(trace.make(done, keep_names=False, method="watched", began=0.0, seconds=120.0), path)
    replay = {"kind": "replay", "trace": str(path), "speed": 4}
    found = check(tmp_path, namespaces=16, phases=[replay])
    (sentence,) = found.problems
    assert sentence.startswith("turbokube_node_cidr_mask is 24, which gives a vnode 254 addresses, but 547 pods come")
    found = check(tmp_path, namespaces=16, node_cidr_mask=22, phases=[replay])
    assert found.problems == []
    assert found.plan[3].endswith("(3 operations in 30 s, at most 70000 pods at once)")
    assert "so 70000 take" in found.forecast[0]
    assert found.refusals == []
    change(monkeypatch, memory=8 * GIB)
    assert "GiB of memory" in check(tmp_path, namespaces=16, node_cidr_mask=22, phases=[replay]).refusals[0]
    absent = {**replay, "trace": str(tmp_path / "none")}
    assert check(tmp_path, namespaces=16, phases=[absent]).plan[3].endswith("its speed")
