"""The roles etcd, control_plane, scheduler and teardown, on real components."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import stat
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.integration.control_plane import (
    REPOSITORY,
    SHARED,
    ControlPlane,
    PlaybookFailed,
    binaries,
    control_plane,
    provision,
    teardown,
)
from turbokube.api.target import Target, load_target
from turbokube.daemon import process
from turbokube.supervise import listening, recorded_ports


def _changed(results: dict[str, dict[str, int]]) -> dict[str, int]:
    return {host: counts["changed"] for host, counts in results.items() if counts["changed"]}


def _flags(words: list[str]) -> dict[str, str]:
    pairs = [word.removeprefix("--").partition("=") for word in words]
    assert len({name for name, _, _ in pairs}) == len(pairs), "a flag is given twice"
    return {name: value for name, _, value in pairs}


def _running(state: Path, name: str) -> list[str]:
    found = process.find(state, name)
    assert found is not None, name
    return Path(f"/proc/{found.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")


def _environment(state: Path, name: str) -> list[str]:
    found = process.find(state, name)
    assert found is not None, name
    return Path(f"/proc/{found.pid}/environ").read_bytes().decode().split("\0")


def _scrape(target: Target, name: str) -> str:
    """A component's metrics, read as the scraper reads them."""
    component = next(one for one in target.components if one.name == name)
    context = target.credential("scraper").ssl_context()
    if component.ca_file:
        context.load_verify_locations(component.ca_file)
    tls: ssl.SSLContext | None = context if component.url.startswith("https") else None
    with urllib.request.urlopen(component.url + component.metrics_path, timeout=20, context=tls) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("name", "pod", "row"),
    [
        ("etcd-0", "etcd/etcd-0/*/*/etcd.yaml", "etcd"),
        ("kube-apiserver-0", "control_plane/kube-apiserver-0/*/*/kube-apiserver.yaml", "kube-apiserver"),
        (
            "kube-controller-manager-0",
            "control_plane/kube-apiserver-0/*/*/kube-controller-manager.yaml",
            "kube-controller-manager",
        ),
        ("kube-scheduler-0", "control_plane/kube-apiserver-0/*/*/kube-scheduler.yaml", "kube-scheduler"),
        ("kube-scheduler-extra-0", "control_plane/kube-apiserver-0/*/*/kube-scheduler.yaml", "kube-scheduler-extra"),
    ],
)
def test_a_command_line_is_kubeadms_but_for_the_table(plane: ControlPlane, name: str, pod: str, row: str) -> None:
    table = yaml.safe_load((REPOSITORY / "roles/control_plane/vars/overrides.yml").read_text())
    (manifest,) = plane.state.glob(pod)
    words = yaml.safe_load(manifest.read_text())["spec"]["containers"][0]["command"]
    rendered, runs = _flags(words[1:]), _flags(_running(plane.state, name)[1:])
    differ = {flag for flag in rendered.keys() | runs.keys() if rendered.get(flag) != runs.get(flag)}
    assert differ <= set(table["_control_plane_overrides"][row])
    assert set(rendered) - differ, "nothing of kubeadm's is left"


def test_nothing_listens_but_on_loopback(plane: ControlPlane) -> None:
    ours = {link.name: one.name for one in process.marked(plane.state) for link in _sockets(one.pid)}
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in ours:
                addresses.append((ours[fields[9]], fields[1].partition(":")[0]))
    assert len(addresses) >= 6
    assert {address for _, address in addresses} == {"0100007F"}, addresses


def _sockets(pid: int) -> list[Path]:
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return [Path(link[8:-1]) for link in links if link.startswith("socket:[")]


def test_each_component_can_be_scraped_with_its_own_credential(plane: ControlPlane) -> None:
    target = load_target(plane.target)
    assert target.ours
    kinds = sorted(component.kind for component in target.components)
    assert kinds == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-scheduler"]
    for component in target.components:
        assert "process_cpu_seconds_total" in _scrape(target, component.name), component.name


def test_the_tuning_arrives(plane: ControlPlane) -> None:
    manager = _flags(_running(plane.state, "kube-controller-manager-0")[1:])
    assert manager["kube-api-qps"] == "16000"
    assert manager["kube-api-burst"] == "24000"
    assert manager["node-monitor-grace-period"] == "50s"
    assert manager["allocate-node-cidrs"] == "true"
    assert "GOGC=150" in _environment(plane.state, "kube-controller-manager-0")
    assert _flags(_running(plane.state, "etcd-0")[1:])["quota-backend-bytes"] == "8589934592"


def test_who_may_do_what(plane: ControlPlane) -> None:
    def may(actor: str, *what: str) -> bool:
        file = f"{plane.state}/kubeconfigs/{actor}.conf"
        return subprocess.run(
            [binaries()["kubectl"], f"--kubeconfig={file}", "auth", "can-i", "-q", *what], check=False
        ).returncode == 0  # fmt: skip

    assert may("fleet", "update", "leases", "-n", "kube-node-lease")
    assert may("fleet", "patch", "pods", "--subresource=status", "-n", "default")
    assert not may("fleet", "update", "leases", "-n", "kube-system")
    assert not may("fleet", "create", "pods", "-n", "default")
    assert may("load", "create", "deployments", "-n", "default")
    assert not may("load", "delete", "nodes")
    assert may("load", "list", "configmaps", "-A")
    assert not may("load", "create", "clusterroles")
    assert not may("load", "create", "serviceaccounts", "--subresource=token", "-n", "kube-system")
    assert may("observer", "watch", "pods", "-A")
    assert not may("observer", "delete", "pods", "-A")
    assert may("scraper", "get", "/metrics")
    assert not may("scraper", "list", "pods", "-A")


def test_secrets_are_their_owners_only(plane: ControlPlane) -> None:
    assert stat.S_IMODE(plane.state.stat().st_mode) == 0o700
    secret = [path for path in plane.state.rglob("*") if path.suffix in (".key", ".conf", ".json", ".sh", ".log")]
    assert len(secret) > 15
    assert [path for path in secret if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    assert "PRIVATE KEY" not in plane.target.read_text()


def test_a_second_time_changes_nothing_and_a_check_neither(plane: ControlPlane) -> None:
    before = {one.pid for one in process.marked(plane.state)}
    assert _changed(provision(plane.state, **SHARED).results) == {}
    assert _changed(provision(plane.state, check=True, **SHARED).results) == {}
    assert {one.pid for one in process.marked(plane.state)} == before


def test_a_check_of_a_bare_machine_starts_and_leaves_nothing(tmp_path: Path) -> None:
    provision(tmp_path / "state", check=True)
    assert not (tmp_path / "state").exists()
    assert process.marked(tmp_path / "state") == []


@pytest.mark.slow
def test_three_members_two_api_servers_and_what_kills_of_supervisord_leave() -> None:
    with control_plane(etcd=3, apiservers=2, scheduler_extra=2) as plane:
        target = load_target(plane.target)
        assert len(target.servers) == 2
        assert target.store is not None
        assert len(target.store.endpoints) == 3
        assert sorted(one.name for one in process.marked(plane.state)) == [
            "etcd-0", "etcd-1", "etcd-2", "kube-apiserver-0", "kube-apiserver-1", "kube-controller-manager-0",
            "kube-scheduler-0", "kube-scheduler-extra-0", "kube-scheduler-extra-1", "supervisord",
        ]  # fmt: skip
        for number, server in enumerate(target.servers):
            plane.kubectl("create", "namespace", f"by-{number}", f"--server={server}")
        assert {f"namespace/by-{n}" for n in range(2)} <= set(plane.kubectl("get", "ns", "--output=name").split())
        assert "etcd_server_has_leader 1" in _scrape(target, "etcd-2")

        with pytest.raises(PlaybookFailed, match="has the members etcd-0, etcd-1, etcd-2, but"):
            provision(plane.state, etcd=1, apiservers=2)

        ports = recorded_ports(plane.state)
        keeper = process.find(plane.state, "supervisord")
        assert keeper is not None
        keeper.signal(signal.SIGKILL)
        assert process.find(plane.state, "etcd-1") is not None
        assert _changed(teardown(plane.state))
        assert process.marked(plane.state) == []
        assert not plane.state.exists()
        assert {name: listening(port) for name, port in ports.items() if listening(port)} == {}
        assert _changed(teardown(plane.state)) == {}


@pytest.mark.slow
def test_kine_on_sqlite_and_refusals_with_the_components_own_words() -> None:
    if "kine" not in binaries():
        pytest.skip("no kine among the binaries")
    with control_plane(etcd_store="kine") as plane:
        assert (plane.state / "etcd/kine-0/state.db").exists()
        assert plane.kubectl("create", "namespace", "kept").strip() == "namespace/kept created"
        target = load_target(plane.target)
        assert target.store is not None
        assert target.store.kind == "kine"
        assert "kine_" in _scrape(target, "kine-0")

        begun = time.monotonic()
        with pytest.raises(PlaybookFailed, match="kube-apiserver-0 ended: Error: unknown flag: --foo"):
            provision(plane.state, etcd_store="kine", control_plane_apiserver_args={"foo": "bar"})
        assert time.monotonic() - begun < 180, "supervisord's retries were awaited"
        found = process.find(plane.state, "kube-apiserver-0")
        assert found is None


def test_a_port_that_is_taken_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PlaybookFailed, match=f"port {port}, asked for etcd-0-client, is taken by pid"):
            provision(tmp_path / "state", etcd_client_port=port)
    assert process.marked(tmp_path / "state") == []


def test_what_is_no_state_of_a_run_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text(json.dumps("mine"))
    with pytest.raises(PlaybookFailed, match="nothing was removed"):
        teardown(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
