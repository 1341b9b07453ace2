"""Real nodes: kubelet and kube-proxy of a release, each pair in namespaces of its own, on a runtime without containers.

Needs root and Linux, and changes nothing of the machine: network, mounts, processes, host name and cgroups are the
node's own, what the kubelet would set in the kernel is shown to it as set already, and it is gone with the node.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.binaries import go
from bench.fidelity.relay import Counts, Relay
from tests.integration.control_plane import cache
from turbokube.api.pki import Authority, Subject

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.36.3"
_MODULE = ROOT / "roles/kube_binaries/files/modules/kubernetes" / VERSION
_CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE = 10.0  # seconds for killed processes to leave their cgroups
_PROXY = "kube-proxy"


@dataclass
class RealNode:
    """One machine as far as the API server can see."""

    name: str
    folder: Path
    counts: Counts
    process: subprocess.Popen[bytes] | None = None
    cgroups: list[Path] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """The name of its network namespace."""
        return f"fidelity-{os.getpid()}-{self.name}"

    @property
    def pids(self) -> list[int]:
        """The processes of its cgroup, as this machine numbers them."""
        return [int(word) for word in (self.cgroups[0] / "cgroup.procs").read_text().split()]

    def close(self) -> None:
        """End its processes, and remove what was made for it."""
        if self.process:
            self.process.kill()  # unshare --kill-child takes the node's process 1 with it, and that all others
            self.process.wait()
        for path in self.cgroups:
            _remove_cgroup(path)
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False, stderr=subprocess.DEVNULL)


class RealNodes:
    """Nodes `real-0`… of one API server, whose relay counts what they send. `pki` holds its ca.crt and ca.key."""

    def __init__(self, folder: Path, pki: Path, port: int, relay: Relay, binaries: Path) -> None:
        self._folder = folder
        self._ca = pki / "ca.crt"
        self._authority = Authority(self._ca, pki / "ca.key")
        self._port = port
        self._relay = relay
        self._binaries = binaries
        self.nodes: list[RealNode] = []

    def start(self, count: int, *, images: int, start: float = 0.0, proxy: bool = True, verbosity: int = 2) -> None:
        """Start so many; `start` is the seconds that a container takes to start."""
        if os.geteuid() != 0:
            sys.exit("real nodes need root: namespaces, mounts and cgroups of their own")
        if proxy and not shutil.which("nft"):
            sys.exit("kube-proxy needs nft in PATH (Debian: apt install nftables), or leave it out with --no-proxy")
        for number in range(count):
            node = RealNode(f"real-{number}", self._folder / f"real-{number}", Counts())
            self.nodes.append(node)
            self._configure(node, number, proxy)
            node.cgroups = _cgroups(node.namespace)
            address = _address(number)
            words = [node.folder, node.name, address, images, f"{start}s", verbosity, self._binaries]
            script = [str(Path(__file__).with_name("node.sh")), *map(str, words)]
            entered = "for path in $CGROUPS; do echo $$ >$path/cgroup.procs; done; exec "
            node.process = subprocess.Popen(
                ["sh", "-c", f'{entered} nsenter --net=/run/netns/{node.namespace} "$@"', "sh", *_UNSHARE, *script],
                env={**os.environ, "CGROUPS": " ".join(map(str, node.cgroups))},
                stdin=subprocess.DEVNULL,
                stdout=open(node.folder / "node.log", "wb"),  # noqa: SIM115 (the process keeps it)
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        """End them all."""
        for node in self.nodes:
            node.close()

    def _configure(self, node: RealNode, number: int, proxy: bool) -> None:
        """Its network namespace, and all files that it starts with."""
        node.folder.mkdir(parents=True)
        _network(node.namespace, _address(number))
        _, node.counts = self._relay.listen(Path("/run/netns") / node.namespace, self._port)
        self._kubeconfig(node, "kubelet", f"system:node:{node.name}", "system:nodes")
        for name in ("manifests", "plugins"):
            (node.folder / name).mkdir()
        files = {"kubelet.yaml": _kubelet(node.folder, self._ca)}
        if proxy:
            self._kubeconfig(node, _PROXY, "system:kube-proxy")
            files[f"{_PROXY}.yaml"] = _kube_proxy(node)
        for name, content in files.items():
            (node.folder / name).write_bytes(msgspec.json.encode(content))

    def _kubeconfig(self, node: RealNode, name: str, user: str, *groups: str) -> None:
        pem = node.folder / f"{name}.pem"
        self._authority.issue(pem, Subject(user, groups))
        (node.folder / f"{name}.conf").write_bytes(kubeconfig(self._port, self._ca, pem))


_UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--mount-proc"]


def _address(number: int) -> str:
    return f"198.51.100.{11 + number % 200}"


def _network(namespace: str, address: str) -> None:
    """Loopback, and an address that leads nowhere: its way to the API server is the relay's listener."""
    run = ["ip", "-n", namespace]
    for command in (
        ["ip", "netns", "add", namespace],
        [*run, "link", "set", "lo", "up"],
        [*run, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0-peer"],
        [*run, "address", "add", f"{address}/24", "dev", "eth0"],
        [*run, "link", "set", "eth0", "up"],
        [*run, "link", "set", "eth0-peer", "up"],
        [*run, "route", "add", "default", "via", "198.51.100.1"],
    ):
        subprocess.run(command, check=True)


def _cgroups(name: str) -> list[Path]:
    """A cgroup of this name below the caller's own in every hierarchy of version 1."""
    made = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        parent = _CGROUPS / (controllers.removeprefix("name=") or "unified") / path.strip("/")
        if not parent.is_dir():
            continue
        (parent / name).mkdir()
        made.append(parent / name)
        if controllers == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (parent / name / file).write_text((parent / file).read_text())
            (parent / name / "cgroup.clone_children").write_text("1")
    if not any(path.parent.parent == _CGROUPS or "memory" in path.parts for path in made):
        raise SystemExit("real nodes are put into cgroups of version 1, and this machine has none")
    return made


def _remove_cgroup(path: Path) -> None:
    """With those below it, once their processes have gone."""
    deadline = time.monotonic() + _PATIENCE
    while path.exists():
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if path.exists():
            if time.monotonic() > deadline:
                print(
                    f"{path} is left: it has processes {(path / 'cgroup.procs').read_text().split()}", file=sys.stderr
                )
                return
            time.sleep(0.05)


def _kubelet(folder: Path, ca: Path) -> dict[str, object]:
    """KubeletConfiguration as kubeadm writes it, but for cgroup version 1 and places."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/cri.sock",
        "rotateCertificates": True,
        "staticPodPath": str(folder / "manifests"),
        "volumePluginDir": str(folder / "plugins"),
        "failCgroupV1": False,
        "failSwapOn": False,
    }


def _kube_proxy(node: RealNode) -> dict[str, object]:
    """KubeProxyConfiguration as kubeadm writes it, but that it leaves the kernel's connection tracking alone."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(node.folder / f"{_PROXY}.conf")},
        "clusterCIDR": "10.0.0.0/8",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def kubeconfig(port: int, ca: Path, pem: Path) -> bytes:
    """Of an identity whose certificate and key are in `pem`."""
    cluster = {"certificate-authority": str(ca), "server": f"https://127.0.0.1:{port}"}
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fidelity", "cluster": cluster}],
            "users": [{"name": "fidelity", "user": {"client-certificate": str(pem), "client-key": str(pem)}}],
            "contexts": [{"name": "fidelity", "context": {"cluster": "fidelity", "user": "fidelity"}}],
            "current-context": "fidelity",
        }
    )


def binaries(folder: Path, given: Path | None) -> Path:
    """A folder with kubelet, kube-proxy and cri: links to those `given` or in the cache, and the runtime built here."""
    place = folder / "bin"
    place.mkdir()
    for name in ("kubelet", _PROXY):
        found = _find(name, given)
        (place / name).symlink_to(found)
    _build(place / "cri", folder / "module")
    return place


def _find(name: str, given: Path | None) -> Path:
    found = (given or cache() / f"kubernetes-{VERSION}") / name
    if found.exists():
        return found.resolve()
    names = '{"kube_binaries_names": ["kubelet", "kube-proxy"]}'
    sys.exit(f"there is no {name}; have it with: ansible-playbook playbooks/binaries.yml -e '{names}', or --binaries")


def _build(path: Path, module: Path) -> None:
    """The runtime, from source beside this file and the modules that role kube_binaries pins for Kubernetes."""
    shutil.copytree(_MODULE, module)
    shutil.copytree(Path(__file__).with_name("cri"), module / "cri")
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"]
    go(module, "build", *flags, f"-o={path}", "./cri", GOTOOLCHAIN="local", GOWORK="off")


@contextlib.contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM is an exception within, so that what was begun is removed."""

    def leave(*_: object) -> None:
        sys.exit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
