"""The engine: nodes, leases and pods of all vnodes of a run on one event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..api.build import Build, server_build
from ..api.credentials import Credential
from ..api.http1 import Http1
from ..api.transport import ApiError, Unreachable
from .client import Client
from .clock import Agenda
from .crew import Crew, transient
from .faults import Faults
from .metrics import Counts, exposition
from .nodes import Nodes, Vnode
from .pods import Pods
from .renewals import Renewals
from .spec import Spec

if TYPE_CHECKING:
    from .kubelet.members import Kubelets
    from .server.endpoints import Server

_LEASE_TIMEOUT, _TIMEOUT = 10.0, 30.0  # seconds; the kubelet's for its heartbeats, client-go's usual for the rest

# At most so many leases at once. Connections are opened only as answers take long, and closed when idle: 100 renewals/s
# need one where an answer takes 5 ms, and 50 where a server at its limit takes half a second, as real kubelets would
_LEASE_CONNECTIONS = 64
# Seconds for which watches' events are gathered; a kubelet's first word of a pod comes 0.03 to 0.15 s after its binding
_PACE = 0.1
# Pods' requests under way at once above `lease`, where each kubelet has a connection of its own and waits for no other
_POD_REQUESTS = 256


class Engine:
    """Keeps the fleet as the spec wants it. Make it inside a running loop; `run` for ever, then `close`."""

    def __init__(
        self,
        spec: Spec,
        credential: Credential,
        servers: list[str],
        build: Build,
        *,
        identities: Path | None = None,
        serving: str = "",
        folder: Path | None = None,
    ) -> None:
        """`identities`: the folder of what vnodes are known by, above `lease`.

        `serving`: path of the PEM file that vnodes serve with, where the spec says that they do.
        `folder`: where this process keeps what the one after it must know.
        """
        self.spec = spec
        self.counts = Counts()
        self.agenda = Agenda()
        self._agent = f"turbokube-fleet/{spec.run}"
        self._transports: list[Http1] = []
        self._credential, self._servers = credential, servers
        self._crew = Crew(spec.connections)
        self._client = self._connect(spec.connections, _TIMEOUT)
        self.renewals: Renewals | None = None
        self.nodes = self._alike(build) if spec.fidelity == "lease" else self._apart(build, identities)
        self._pod_crew = self._crew if spec.fidelity == "lease" else Crew(_POD_REQUESTS)
        self.pods = Pods(spec, self._client, self._pod_crew, self.nodes.by_name, self.agenda)
        self.nodes.pods = self.pods
        self.faults = Faults(spec, self.nodes, self.pods, folder / "faults.json" if folder else None)
        self.server = self._serve(serving, credential.ca, build.git_version) if spec.serve else None
        self.counts.watch_restarts = lambda: (
            self.nodes.watch.restarts + self.pods.watch.restarts + self.counts.rewatches
        )

    def _alike(self, build: Build) -> Nodes:
        """Vnodes that share connections, watches and an identity."""
        # leases have connections of their own: a burst of pods must not make them late
        leases = self._connect(_LEASE_CONNECTIONS, _LEASE_TIMEOUT)
        self.renewals = Renewals(self.spec, leases, Crew(_LEASE_CONNECTIONS))
        nodes = Nodes(self.spec, build.git_version, self._client, self._crew)
        nodes.on_joined, nodes.on_left = self.renewals.enter, self.renewals.leave
        return nodes

    def _apart(self, build: Build, identities: Path | None) -> Kubelets:
        """Vnodes of which each has its own."""
        from .kubelet.members import Identities, Kubelets  # here: it is memory that `lease` can do without

        assert identities is not None
        who = Identities(self._credential, identities, self._servers, build.git_version, build.git_commit)
        return Kubelets(self.spec, who, self._client, self._crew, self.agenda)

    def _connect(self, size: int, timeout: float) -> Client:
        """A client of the fleet's own identity."""
        transport = Http1(self._credential, self._servers, size=size, user_agent=self._agent, pace=_PACE)
        self._transports.append(transport)
        return Client(transport, self.counts, timeout)

    async def run(self) -> None:
        """Run for ever. Raises what cannot be mended by waiting: a refused credential, a missing permission."""
        async with asyncio.TaskGroup() as group:
            for crew in {self._crew, self._pod_crew}:
                group.create_task(crew.run())
            if self.spec.faults:  # before the nodes, so that those of an earlier engine's faults do not speak
                group.create_task(self.faults.run())
            group.create_task(self.nodes.run())
            group.create_task(self.nodes.report())
            group.create_task(self.agenda.run())
            if self.renewals is not None:
                group.create_task(self.renewals.run())
            if self.server is not None:
                group.create_task(self.server.run())
            while not self.nodes.synced:
                await asyncio.sleep(0.05)
            if self.spec.fidelity == "lease":  # else each vnode watches its own
                group.create_task(self.pods.run())

    async def close(self) -> None:
        await self.nodes.close()
        for transport in self._transports:
            await transport.close()

    def scale(self, count: int) -> None:
        """Let vnodes join or leave; `status` tells how far it is."""
        self.spec = msgspec.structs.replace(self.spec, count=count)
        if self.nodes.synced:
            self.faults.rebase()
            self.nodes.scale(count)
        else:
            self.nodes.spec = self.spec

    def status(self) -> dict[str, Any]:
        """The fleet now: counts, and seconds."""
        vnodes = self.nodes.by_name.values()
        lateness = self.counts.lateness
        return {
            "synced": self.nodes.synced,
            "wanted": len(self.spec.indices),
            "present": len(vnodes),
            "joined": sum(vnode.joined for vnode in vnodes),
            "ready": sum(vnode.ready for vnode in vnodes),
            "conflict": self.nodes.conflict,
            "excused": self.nodes.excused,
            "faults": self.faults.status(),
            "pods": self.pods.phases(),
            "renewals": self.counts.renewals,
            "renewal_errors": self.counts.renewal_errors,
            "lateness_p99": min(lateness.quantile(0.99), 3600.0),
            "oldest_renewal": self._oldest(list(vnodes)),
            "pod_starts": self.counts.pod_starts,
            "watch_restarts": self.counts.watch_restarts(),
            "waiting": sum(len(crew) for crew in {self._crew, self._pod_crew}),
        }

    def metrics(self) -> str:
        """One scrape."""
        vnodes = list(self.nodes.by_name.values())
        gauges = {
            'vnodes{state="wanted"}': len(self.spec.indices),
            'vnodes{state="joined"}': sum(vnode.joined for vnode in vnodes),
            'vnodes{state="ready"}': sum(vnode.ready for vnode in vnodes),
            f'info{{engine="builtin",fidelity="{self.spec.fidelity}"}}': 1,
            "watches": self.counts.watches,
            "connections": self._connections(vnodes),
            "lease_interval_seconds": self.spec.lease_interval,
            "lease_oldest_renewal_seconds": self._oldest(vnodes),
            **{f'faulty_vnodes{{action="{action}"}}': count for action, count in self.faults.status().items()},
            **{f'pods{{phase="{phase}"}}': count for phase, count in self.pods.phases().items()},
        }
        lag = self.renewals.wheel.worst_lag() if self.renewals is not None else self.agenda.worst_lag()
        return exposition(self.counts, gauges, lag)

    def _serve(self, certificate: str, authority: str | None, version: str) -> Server:
        from .server.endpoints import Server  # here: it is memory that a fleet which does not serve can do without

        server = Server(self.spec, self.nodes.by_name, version, certificate, authority)
        self.pods.on_seen, self.pods.on_gone = server.usage.see, server.usage.forget
        return server

    def _connections(self, vnodes: list[Vnode]) -> int:
        """How many to the API servers are open."""
        own = sum(vnode.kubelet.connections for vnode in vnodes if vnode.kubelet is not None)
        return own + sum(len(transport.connections) for transport in self._transports)

    def _oldest(self, vnodes: list[Vnode]) -> float:
        """Seconds since the renewal that is longest ago."""
        now = time.time()
        return max((now - vnode.renewed for vnode in vnodes if vnode.joined), default=0.0)


async def await_build(credential: Credential, servers: list[str]) -> Build:
    """The control plane's version, which the vnodes' kubelets have too; waits for a server that is away."""
    transport = Http1(credential, servers, size=1)
    try:
        while True:
            try:
                return await server_build(transport, _TIMEOUT)
            except Unreachable:
                pass
            except ApiError as error:
                if not transient(error):
                    raise
            await asyncio.sleep(0.5)
    finally:
        await transport.close()


def settle() -> None:
    """Call it once all that lives for ever lives: the collector need not look at it again.

    New cycles are few (a failed request's traceback), so it may look seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
