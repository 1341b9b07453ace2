"""The two that are compared: how each is started, and how its nodes come to be."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bench import binaries
from turbokube.api.http1 import Http1
from turbokube.api.target import Target
from turbokube.engines import kwok
from turbokube.vnode import fleet
from turbokube.vnode.nodes import LEASES, NODES
from turbokube.vnode.spec import Spec

KWOK_VERSION = "0.8.0"
_MODULE = Path(__file__).resolve().parents[2] / "roles/kube_binaries/files/modules/kwok" / KWOK_VERSION
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")  # as kwokctl has them when leases are on
_RUN = "benchfleet"


class Player(Protocol):
    """One that makes nodes and runs their pods."""

    name: str

    def start(self, nodes: int) -> list[int]:
        """Begin; returns the pids of the processes that are measured."""
        ...

    def stop(self) -> None:
        """End the process."""
        ...


class TurboKube:
    """This project's engine, with the settings of a fleet of the 1k profile; `changes` are of its Spec."""

    name = "turbokube"

    def __init__(self, target: Target, state: Path, **changes: Any) -> None:
        """`state`: the control plane's, whose CA signs what vnodes are known by above `lease`."""
        self._target = target
        self._state = state
        spec = Spec(run=_RUN, count=0, placement="cluster", cpu="32", pods=110)
        self._spec = msgspec.structs.replace(spec, **changes)

    def start(self, nodes: int) -> list[int]:
        spec = msgspec.structs.replace(self._spec, count=nodes)
        return fleet.present(lambda: self._target, self._state, spec, wait=False, timeout=1800).pids

    def status(self) -> dict[str, Any]:
        """What the fleet tells of itself."""
        return fleet.info(self._state)

    def stop(self) -> None:
        fleet.absent(self._target, self._state, self._spec, timeout=1800)


class Kwok:
    """KWOK with leases on; its nodes are objects that its user creates, so that is done here."""

    name = "kwok"

    def __init__(self, target: Target, folder: Path, binary: Path, stages: Path) -> None:
        self._target = target
        self._folder = folder
        self._binary = binary
        self._stages = stages
        self._process: subprocess.Popen[bytes] | None = None
        self._nodes = 0

    def start(self, nodes: int) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with open(self._folder / "kwok.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binary),
                    f"--kubeconfig={self._target.kubeconfigs['admin']}",
                    "--manage-all-nodes=false",
                    "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                    "--node-lease-duration-seconds=40",
                    f"--config={self._stages}",
                    f"--server-address=127.0.0.1:{port}",
                    "--cidr=10.0.0.1/16",
                    "--node-ip=172.16.0.1",
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder)},
            )
        self._nodes = nodes
        asyncio.run(self._each("POST", nodes))
        return [self._process.pid]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            asyncio.run(self._each("DELETE", self._nodes))

    async def _each(self, method: str, nodes: int) -> None:
        """Create or delete the nodes over as many connections as the other player has."""
        credential = self._target.credential("admin")
        transport = Http1(credential, self._target.addresses(credential), size=8)
        turns = iter(range(nodes))

        async def work() -> None:
            for index in turns:
                name = f"kwok-{index:05d}"
                if method == "POST":
                    (await transport.request("POST", NODES, json.dumps(_node(name)).encode())).checked()
                else:
                    await transport.request("DELETE", f"{NODES}/{name}")
                    # the next kwok is another holder, and would wait for these to expire
                    await transport.request("DELETE", f"{LEASES}/{name}")

        try:
            await asyncio.gather(*(work() for _ in range(8)))
        finally:
            await transport.close()


def _node(name: str) -> dict[str, Any]:
    capacity = {"cpu": "32", "memory": "64Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/role": "agent", "type": "virtual-kubelet"},
        },
        "spec": {"taints": [{"key": "turbokube.io/vnode", "value": "true", "effect": "NoSchedule"}]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def kwok_binary(given: str) -> Path:
    """The path given, or with `auto` the one in the binary cache."""
    return binaries.built(given, "kwok", KWOK_VERSION, _MODULE, "sigs.k8s.io/kwok/cmd/kwok")


def kwok_stages(folder: Path, same: bool = False) -> Path:
    """KWOK's own stages, out of its module, as one file for its --config; with `same` those of the engine `kwok`."""
    if same:
        config = folder / "same.yaml"
        config.write_text(kwok.stages(Spec(run=_RUN, count=0)))
        return config
    binaries.go(_MODULE, "mod", "download", "sigs.k8s.io/kwok")
    module = Path(binaries.go(_MODULE, "list", "-mod=readonly", "-m", "-f={{.Dir}}", "sigs.k8s.io/kwok").strip())
    files = [
        file
        for stage in _STAGES
        for file in sorted((module / "kustomize/stage" / stage).glob("*.yaml"))
        if file.name != "kustomization.yaml"
    ]
    config = folder / "stages.yaml"
    config.write_text("\n---\n".join(file.read_text() for file in files))
    return config
