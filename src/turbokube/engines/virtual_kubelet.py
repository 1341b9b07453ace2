"""Engine virtual_kubelet: virtual-kubelet's mock provider, one process per node, as the original had it."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import msgspec

from .. import disk
from ..api.transport import MERGE_PATCH
from ..vnode.nodes import NODES
from .foreman import CA, IDENTITY, Foreman
from .members import Member

_COMING = 60.0  # seconds for one to register, while which no more are started than there are connections


def engine(foreman: Foreman) -> VirtualKubelet:
    return VirtualKubelet(foreman)


class VirtualKubelet:
    def __init__(self, foreman: Foreman) -> None:
        self._foreman = foreman

    async def adopt(self) -> None:
        pass

    async def join(self, member: Member) -> None:
        name, children = _name(member), self._foreman.children
        if not member.uid and name not in children:
            await self._foreman.own(member)
        if name not in children:
            children.start(name, self._argv(member), self._environment(member))
        end = time.monotonic() + _COMING
        while not (await self._labelled(member) or member.leaving or time.monotonic() > end):
            await asyncio.sleep(0.2)

    async def leave(self, member: Member) -> None:
        await self._foreman.children.stop(_name(member))

    async def left(self, member: Member) -> None:
        shutil.rmtree(self._folder(member))

    def closed(self) -> None:
        pass

    async def revive(self, name: str) -> None:
        pass

    async def _labelled(self, member: Member) -> bool:
        """Whether its Node is there, and has what virtual-kubelet has no options for."""
        if member.uid:
            return True
        body = msgspec.json.encode({"metadata": {"labels": self._foreman.node(member)["metadata"]["labels"]}})
        path = f"{NODES}/{member.name}"
        answer = await self._foreman.client.call("patch", "nodes", "PATCH", path, body, MERGE_PATCH)
        return answer.status != 404 and answer.checked().ok

    def _folder(self, member: Member) -> Path:
        folder = self._foreman.folder / member.name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _argv(self, member: Member) -> list[str]:
        spec, folder = self._foreman.spec, self._folder(member)
        capacity = {"cpu": spec.cpu, "memory": spec.memory, "pods": str(spec.pods)}
        disk.replace(folder / "mock.json", msgspec.json.encode({member.name: capacity}))
        return [
            spec.binary,
            f"--nodename={member.name}",
            f"--kubeconfig={self._foreman.kubeconfig(folder / 'kubeconfig', member.index)}",
            "--provider=mock",
            f"--provider-config={folder / 'mock.json'}",
        ]

    def _environment(self, member: Member) -> dict[str, str]:
        (taint,) = self._foreman.node(member)["spec"]["taints"]
        folder = self._foreman.folder
        return {
            "VKUBELET_TAINT_KEY": taint["key"],
            "VKUBELET_TAINT_VALUE": taint["value"],
            "VKUBELET_TAINT_EFFECT": taint["effect"],
            "VKUBELET_POD_IP": self._foreman.spec.address(member.index),
            # its port, which it opens on every address: TLS, for who the API server knows
            "KUBELET_PORT": "0",
            "APISERVER_CERT_LOCATION": str(folder / IDENTITY),
            "APISERVER_KEY_LOCATION": str(folder / IDENTITY),
            "APISERVER_CA_CERT_LOCATION": str(folder / CA),
        }


def _name(member: Member) -> str:
    return f"virtual-kubelet-{member.name}"
