"""Engine kubemark: hollow nodes, the kubelet's code over a fake runtime, one process each or two with kube-proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from pathlib import Path

from ..vnode import identity
from ..vnode.nodes import NODES
from ..vnode.spec import RUN_LABEL
from .foreman import Foreman
from .members import Member

_COMING = 60.0  # seconds for one to become Ready, while which no more are started than there are connections
# labels that the kubelet sets anyway, and those that NodeRestriction lets it set (plugin/pkg/admission/noderestriction)
_ITS_OWN = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch")
_ALLOWED = (RUN_LABEL, "type", "node.kubernetes.io/exclude-from-external-load-balancers")


def engine(foreman: Foreman) -> Kubemark:
    return Kubemark(foreman)


class Kubemark:
    def __init__(self, foreman: Foreman) -> None:
        self._foreman = foreman

    async def adopt(self) -> None:
        _remove_sockets()

    async def join(self, member: Member) -> None:
        names, children = self._names(member), self._foreman.children
        if not member.uid and not await self._foreman.own(member):
            await children.stop(*names)  # one whose Node was deleted registers at its start only
        for name in names:
            if name not in children:
                children.start(name, self._argv(name, member), {"TMPDIR": str(self._folder(member))})
        end = time.monotonic() + _COMING
        while not (member.ready or member.leaving or time.monotonic() > end):
            await asyncio.sleep(0.1)
        if member.uid:
            body = {"metadata": {"labels": self._forbidden(member)}}
            await self._foreman.patch("nodes", f"{NODES}/{member.name}", body)

    async def leave(self, member: Member) -> None:
        await self._foreman.children.stop(*self._names(member))

    async def left(self, member: Member) -> None:
        shutil.rmtree(self._folder(member))
        _remove_sockets()

    def closed(self) -> None:
        _remove_sockets()

    async def revive(self, name: str) -> None:
        pass

    def _names(self, member: Member) -> list[str]:
        proxies = [f"kubemark-proxy-{member.name}"] if self._foreman.spec.fidelity == "node" else []
        return [f"kubemark-{member.name}", *proxies]

    def _folder(self, member: Member) -> Path:
        folder = self._foreman.folder / member.name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _argv(self, name: str, member: Member) -> list[str]:
        spec = self._foreman.spec
        proxy = name.startswith("kubemark-proxy-")
        pem = self._foreman.pem(identity.PROXY if proxy else member.name)
        config = self._foreman.kubeconfig(self._folder(member) / f"{name}.conf", member.index, pem)
        common = [spec.binary, f"--name={member.name}", f"--kubeconfig={config}"]
        if proxy:
            return [*common, "--morph=proxy"]
        node = self._foreman.node(member)
        labels = ",".join(f"{key}={node['metadata']['labels'][key]}" for key in _ALLOWED)
        taints = ",".join(f"{taint['key']}={taint['value']}:{taint['effect']}" for taint in node["spec"]["taints"])
        return [
            *common,
            "--morph=kubelet",
            f"--node-labels={labels}",
            f"--register-with-taints={taints}",
            f"--max-pods={spec.pods}",
            # it listens on every address, and asks nobody who they are: at least on a port that nobody knows
            "--kubelet-port=0",
            "--kubelet-read-only-port=0",
            "--use-host-image-service=false",
        ]

    def _forbidden(self, member: Member) -> dict[str, str]:
        """Labels that a fleet's Nodes have and no kubelet may give itself."""
        labels: dict[str, str] = self._foreman.node(member)["metadata"]["labels"]
        return {key: value for key, value in labels.items() if key not in (*_ITS_OWN, *_ALLOWED)}


def _remove_sockets() -> None:
    """The fake runtime's (k8s.io/cri-client/pkg/fake: in /tmp, whatever TMPDIR says), where nobody listens any more."""
    for path in Path("/tmp").glob("kubelet_remote_*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if path.stat().st_uid != os.getuid():
                continue
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
