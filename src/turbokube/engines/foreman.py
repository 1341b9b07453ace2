"""A fleet whose vnodes somebody else runs: kwok, kubemark or virtual-kubelet, behind the daemon of engine builtin."""

from __future__ import annotations

import asyncio
import importlib
import logging
import shutil
import time
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from .. import disk, procfs
from ..api.credentials import Credential
from ..api.http1 import Http1
from ..api.transport import MERGE_PATCH
from ..vnode import objects
from ..vnode.client import Client
from ..vnode.crew import Crew
from ..vnode.metrics import Counts, exposition
from ..vnode.nodes import LEASES, NODES
from ..vnode.spec import RUN_LABEL, Spec
from .children import Children
from .members import Member, Members

_TIMEOUT = 30.0  # seconds, client-go's usual
CA, IDENTITY = "ca.crt", "identity.pem"  # in the engine's folder: whom to trust, and who the fleet is
_BEAT = 0.25  # seconds between two looks at how late the event loop is
log = logging.getLogger(__name__)


class Engine(Protocol):
    """What differs from one foreign engine to the next. All may be tried again after an ApiError or Unreachable."""

    async def adopt(self) -> None:
        """Prepare files; have what an earlier daemon left taken over."""
        ...

    async def join(self, member: Member) -> None:
        """See to it that it gets a Node; called again for one that has a Node already."""
        ...

    async def leave(self, member: Member) -> None:
        """Before its Node is deleted."""
        ...

    async def left(self, member: Member) -> None:
        """After its Node was deleted, before its Lease is."""
        ...

    async def revive(self, name: str) -> None:
        """Before a process that ended is started again."""
        ...

    def closed(self) -> None:
        """After the last process has ended."""
        ...


class Conflict(Exception):
    """A vnode cannot join, and it is the user who must decide; the message is one for the user."""


class Foreman:
    """Keeps a foreign engine's fleet as the spec wants it. Make it in a running loop; `run` for ever, then `close`."""

    def __init__(self, spec: Spec, credential: Credential, servers: list[str], version: str, state: Path) -> None:
        self.spec = spec
        self.credential = credential
        self.servers = servers
        self.version = version
        self.state = state
        self.conflict = ""
        self.begun = False  # what an earlier daemon left is known and taken over
        self.counts = Counts()
        self._transport = Http1(credential, servers, size=spec.connections, user_agent=f"turbokube-fleet/{spec.run}")
        self.client = Client(self._transport, self.counts, _TIMEOUT)
        self.members = Members(spec, self.client)
        self.crew = Crew(spec.connections)
        self._lag = 0.0
        module = importlib.import_module(f".{spec.engine}", __package__)
        self._engine: Engine = module.engine(self)
        self.children = Children(state, self._engine.revive)
        self.counts.watch_restarts = lambda: self.members.restarts
        self.members.on_node_gone = self._node_gone
        self.members.on_stray_node = lambda name: self.crew.put(self.delete, "nodes", NODES, name)
        self.members.on_stray_lease = lambda name: self.crew.put(self.delete, "leases", LEASES, name)
        self.members.on_bare_lease = lambda name: self.crew.put(self._label_lease, name)

    @property
    def folder(self) -> Path:
        """Where the engine keeps files of its own; removed with the run's state."""
        folder = self.state / "fleet" / self.spec.engine
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    async def run(self) -> None:
        """Run for ever. Raises what cannot be mended by waiting: a refused credential, a process that does not live."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.crew.run())
            group.create_task(self.members.run())
            group.create_task(self._beat())
            await self.members.synced.wait()
            self._keep_identity()
            await self._engine.adopt()
            group.create_task(self.children.watch())
            self.begun = True
            for member in list(self.members.by_name.values()):
                self.crew.put(self._join, member)
            self.scale(self.spec.count)

    async def close(self) -> None:
        """End the engine's processes; Nodes stay where they are."""
        await self.children.stop_all()
        await self._transport.close()
        self._engine.closed()
        shutil.rmtree(self.folder, ignore_errors=True)

    def scale(self, count: int) -> None:
        """Let vnodes join or leave until there are `count`, those of the highest numbers last and first."""
        self.spec = msgspec.structs.replace(self.spec, count=count)
        self.conflict = ""
        if not self.begun:
            return
        for index in range(count):
            member = self.members.by_name.get(self.spec.name(index))
            if member is None:
                self.crew.put(self._join, self.members.add(index))
            elif member.leaving:
                member.leaving = False  # its job sees that
        for member in list(self.members.by_name.values()):
            if member.index >= count and not member.leaving:
                member.leaving = True
                self.crew.put(self._leave, member)

    def kubeconfig(self, path: Path, number: int, pem: str | None = None) -> Path:
        """Write a kubeconfig, 0600, of the fleet's identity or of the one in file `pem`; server `number` of them."""
        own = pem or str(self.folder / IDENTITY)
        user = {"client-certificate": own, "client-key": own}
        if pem is None and self.credential.token:
            user = {"token": self.credential.token}
        cluster: dict[str, Any] = {"server": self.servers[number % len(self.servers)]}
        if self.credential.ca:
            cluster["certificate-authority"] = str(self.folder / CA)
        elif not self.credential.verify:
            cluster["insecure-skip-tls-verify"] = True
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "target", "cluster": cluster}],
            "users": [{"name": "fleet", "user": user}],
            "contexts": [{"name": "fleet", "context": {"cluster": "target", "user": "fleet"}}],
            "current-context": "fleet",
        }
        disk.replace(path, msgspec.json.encode(config))
        return path

    def _keep_identity(self) -> None:
        """What kubeconfigs refer to, before the first process reads it."""
        disk.replace(self.folder / CA, (self.credential.ca or "").encode())
        if self.credential.certificate:
            disk.replace(self.folder / IDENTITY, f"{self.credential.certificate}\n{self.credential.key}\n".encode())

    def pem(self, name: str) -> str:
        """The file with the certificate and key of a vnode or of all kube-proxies; who started this made them."""
        return str(self.state / "fleet" / "pki" / f"{name}.pem")

    def node(self, member: Member) -> dict[str, Any]:
        """Its Node as engine builtin would register it."""
        made = objects.node(self.spec, member.index, self.version, time.time())
        return cast(dict[str, Any], msgspec.json.decode(made))

    async def own(self, member: Member) -> bool:
        """Whether there is a Node of its name. Raises Conflict when there is one that is not of this run."""
        answer = await self.client.call("get", "nodes", "GET", f"{NODES}/{member.name}")
        if answer.status == 404:
            return False
        node = msgspec.json.decode(answer.checked().body, type=objects.Node)
        if node.metadata.labels.get(RUN_LABEL) != self.spec.run:
            raise Conflict(self.spec.conflict(member.name))
        return True

    # jobs

    async def _join(self, member: Member) -> None:
        if member.leaving:
            return
        try:
            await self._engine.join(member)
        except Conflict as conflict:
            self.conflict = str(conflict)

    async def _leave(self, member: Member) -> None:
        if not member.leaving:  # wanted again before this began, or between two tries
            return await self._join(member)
        await self._engine.leave(member)
        if member.ours:
            await self.delete("nodes", NODES, member.name)
        await self._engine.left(member)
        if member.ours:
            await self.delete("leases", LEASES, member.name)
        self.members.remove(member)
        if member.index < self.spec.count:  # wanted again meanwhile
            self.crew.put(self._join, self.members.add(member.index))

    def _node_gone(self, member: Member) -> None:
        """Its Node was deleted by somebody else: a machine that is there registers again."""
        if not member.leaving:
            self.crew.put(self._join, member)

    async def delete(self, resource: str, collection: str, name: str) -> None:
        answer = await self.client.call("delete", resource, "DELETE", f"{collection}/{name}")
        if answer.status != 404:
            answer.checked()

    async def patch(self, resource: str, path: str, body: dict[str, Any]) -> None:
        """A merge patch of an object, if it is there."""
        answer = await self.client.call("patch", resource, "PATCH", path, msgspec.json.encode(body), MERGE_PATCH)
        if answer.status != 404:
            answer.checked()

    async def _label_lease(self, name: str) -> None:
        """Foreign engines do not label Leases; what bears the run's label is what teardown counts."""
        if name in self.members.by_name:
            await self.patch("leases", f"{LEASES}/{name}", {"metadata": {"labels": {RUN_LABEL: self.spec.run}}})

    async def _beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_BEAT)
            self._lag = max(self._lag, time.monotonic() - before - _BEAT)

    # what is told

    def status(self) -> dict[str, Any]:
        """The fleet now: counts, and seconds. The keys are those of engine builtin."""
        members = self.members.by_name.values()
        return {
            "synced": self.begun,
            "wanted": self.spec.count,
            "present": len(members),
            "joined": sum(member.joined for member in members),
            "ready": sum(member.ready for member in members),
            "conflict": self.conflict,
            "pods": self.members.phases(),
            "renewals": self.counts.renewals,
            "renewal_errors": self.counts.renewal_errors,
            "lateness_p99": min(self.counts.lateness.quantile(0.99), 3600.0),
            "oldest_renewal": self.members.oldest(),
            "pod_starts": self.counts.pod_starts,
            "watch_restarts": self.counts.watch_restarts(),
            "waiting": len(self.crew),
            "processes": len(self.children),
            "process_restarts": self.children.restarts,
        }

    def metrics(self) -> str:
        """One scrape. CPU and memory are the daemon's and all its processes'."""
        members = self.members.by_name.values()
        gauges = {
            'vnodes{state="wanted"}': self.spec.count,
            'vnodes{state="joined"}': sum(member.joined for member in members),
            'vnodes{state="ready"}': sum(member.ready for member in members),
            "lease_interval_seconds": self.spec.lease_interval,
            "lease_oldest_renewal_seconds": self.members.oldest(),
            "processes": len(self.children),
            "process_restarts": self.children.restarts,
            **{f'pods{{phase="{phase}"}}': count for phase, count in self.members.phases().items()},
        }
        lag, self._lag = self._lag, 0.0
        cpu, memory = self.children.usage()
        return exposition(self.counts, gauges, lag, time.process_time() + cpu, procfs.memory().resident + memory)
