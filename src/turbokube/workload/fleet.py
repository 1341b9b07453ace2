"""A fleet as a StatefulSet of another cluster: what module vnode_fleet calls with `stateful_set`. Idempotent; waits."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from .. import disk
from ..api.credentials import Credential
from ..api.target import Component, Target
from ..api.transport import ApiError, Unreachable
from ..predict import coefficients
from ..vnode import replica
from ..vnode.fleet import FleetError, Result, same_birth
from ..vnode.nodes import LEASES, NODES
from ..vnode.spec import Spec, SpecError, Start, check
from . import ground, objects, pods, room
from .cluster import Bare, Cluster, Meta, WorkloadError, at, path_of
from .objects import FLEET
from .pods import PORT, RUN_LABEL, Carrier

_POLL = 0.5  # seconds between two looks
_TOKEN_LIFE_S = 7 * 86400  # of the scraper's: longer than a run
_AT_ONCE = 16  # Nodes and Leases being deleted
# what a pod that waits for one of these waits for in vain
_HOPELESS = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError")
_LOOPBACK = ("127.", "localhost", "::1")


class _SetSpec(msgspec.Struct):
    replicas: int = 0


class _SetStatus(msgspec.Struct, rename="camel"):
    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""


class _Set(msgspec.Struct):
    metadata: Meta
    spec: _SetSpec
    status: _SetStatus = msgspec.field(default_factory=_SetStatus)

    @property
    def there(self) -> bool:
        """Whether all of what is wanted is there, Ready, of this revision, and nothing else."""
        status = self.status
        return (
            status.observed_generation == self.metadata.generation
            and status.replicas == status.ready_replicas == self.spec.replicas
            and status.current_revision == status.update_revision
        )


class _Event(msgspec.Struct, rename="camel"):
    message: str = ""
    last_timestamp: str | None = None


class _Events(msgspec.Struct):
    items: list[_Event]


@dataclasses.dataclass
class Carried(Result):
    """What was done. `components`: each replica as the scraper sees it, through the cluster's API server."""

    components: list[Component] = dataclasses.field(default_factory=list)
    replicas: int = 0


def present(
    target: Callable[[], Target],
    cluster: Credential,
    state: Path,
    spec: Spec,
    carrier: Carrier,
    *,
    pods_per_vnode: float = 0.0,
    wait: bool = True,
    timeout: float = 600.0,
    check_mode: bool = False,
) -> Carried:
    """A fleet of `spec.count` vnodes, `spec.block` on each replica; with `wait` every vnode Ready in the target.

    What it requests is the measured cost of its vnodes with `pods_per_vnode` pods on each. Raises SpecError for a value
    out of bounds, FleetError and WorkloadError when the fleet cannot be had within `timeout` seconds.
    """
    refuse(spec)
    try:
        aim = target()
    except OSError:
        if not check_mode:
            raise
        return Carried(changed=True, after=_facts(spec))
    start, pem = told(spec, aim)
    cpu, memory = requests(spec, pods_per_vnode)
    carrier = msgspec.structs.replace(carrier, cpu=carrier.cpu or cpu, memory=carrier.memory or memory)
    work = _Present(aim, start, pem, carrier, state, spec, time.monotonic() + timeout)
    return asyncio.run(at(cluster, lambda it: work.run(it, wait=wait, check_mode=check_mode)))


def absent(
    target: Target,
    cluster: Credential,
    state: Path,
    spec: Spec,
    namespace: str,
    *,
    timeout: float = 600.0,
    check_mode: bool = False,
) -> Carried:
    """No pod, no namespace, and no Node and no Lease of the run in the target. Of `spec` only the names matter."""
    return asyncio.run(at(cluster, lambda it: _absent(it, target, state, spec, namespace, timeout, check_mode)))


def refuse(spec: Spec) -> None:
    """Raise SpecError for what a StatefulSet cannot have."""

    def need(good: bool, option: str, value: object, allowed: str) -> None:
        if not good:
            raise SpecError(f"{option} is {value!r}, and the fleet is a StatefulSet; allowed is {allowed}")

    need(spec.engine == "builtin", "engine", spec.engine, "'builtin'")
    need(spec.fidelity == "lease", "fidelity", spec.fidelity, "'lease'")
    need(not spec.serve, "serve", spec.serve, "False")
    need(spec.processes == 1, "processes", spec.processes, "1, since each pod is a process: set vnodes_per_pod")
    need(spec.block >= 1, "vnodes_per_pod", spec.block, "1 or more")
    low = spec.count // spec.block * spec.block
    need(low == spec.count, "count", spec.count, f"a multiple of vnodes_per_pod: {low} or {low + spec.block}")
    check(spec)


def told(spec: Spec, target: Target) -> tuple[Start, str]:
    """What the replicas are told, the same whatever their number is; certificate and key apart, as PEM.

    Raises SpecError for a target that they cannot reach.
    """
    credential = target.credential("fleet")
    servers = target.addresses(credential)
    for server in servers:
        if (urlsplit(server).hostname or "").startswith(_LOOPBACK):
            raise SpecError(
                f"the target's API server is {server}, which is each pod's own; allowed is a host's address"
            )
    pem = f"{credential.certificate}\n{credential.key}\n" if credential.certificate and credential.key else ""
    place = str(replica.FOLDER / objects.PEM) if pem else None
    bare = dataclasses.replace(credential, certificate=None, key=None, pem_file=place)
    return Start(msgspec.structs.replace(spec, count=0, shard=0), bare, servers), pem


def requests(spec: Spec, pods_per_vnode: float) -> tuple[str, str]:
    """CPU and memory of a replica, as quantities, by predict/coefficients.json."""
    cost = coefficients.load().cost("fleet")
    heartbeats = spec.block * (1 / spec.lease_interval + 1 / spec.status_interval)
    cores = cost.idle_cores + heartbeats * cost.heartbeat_ms / 1000
    kib = spec.block * (cost.node_kib + pods_per_vnode * cost.pod_kib)
    return f"{max(1, round(cores * 1000))}m", f"{-(-int(cost.memory_mib * 1024 + kib) // 1024)}Mi"


def _facts(spec: Spec) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(spec)
    del facts["shard"]
    return facts


class _Present:
    """One bringing about."""

    def __init__(
        self, target: Target, start: Start, pem: str, carrier: Carrier, state: Path, spec: Spec, deadline: float
    ) -> None:
        self._target = target
        self._start, self._pem = start, pem
        self._carrier = carrier
        self._state = state
        self._spec = spec
        self._deadline = deadline
        self._replicas = spec.count // spec.block
        self._set = path_of("StatefulSet", FLEET, carrier.namespace)
        self._pods = f"/api/v1/namespaces/{carrier.namespace}/pods"

    async def run(self, cluster: Cluster, *, wait: bool, check_mode: bool) -> Carried:
        carrier, spec = self._carrier, self._spec
        before = await cluster.find("StatefulSet", FLEET, carrier.namespace, _Set)
        result = Carried(after=_facts(spec), replicas=self._replicas)
        if before is not None:
            result.before = self._compare(before)
        await self._assert_room(cluster)
        wanted = [
            *await ground.wanted(cluster, spec.run, carrier.namespace),
            objects.secret(self._start, self._pem, carrier.namespace),
            objects.stateful_set(self._start, self._pem, carrier, self._replicas),
        ]
        for one in wanted:
            result.changed |= await cluster.apply(one, dry_run=check_mode)
        if check_mode:
            return result
        if wait:
            await self._wait(cluster)
            result.status = await self._in_target()
        result.components = await self._components(cluster)
        return result

    def _compare(self, before: _Set) -> dict[str, Any]:
        """What a diff tells of the fleet that is there. Raises FleetError where the new one cannot follow it."""
        try:
            old = msgspec.json.decode(objects.spec_of(before.metadata.annotations), type=Spec)
        except msgspec.MsgspecError:
            return {}
        old = msgspec.structs.replace(old, count=before.spec.replicas * old.block)
        same_birth(old, self._spec)
        if old.block != self._spec.block and old.count:
            raise FleetError(
                f"vnodes_per_pod is {self._spec.block}, but the pods of this fleet were made with {old.block}; "
                f"allowed is {old.block} until the fleet has been absent"
            )
        return _facts(old)

    async def _assert_room(self, cluster: Cluster) -> None:
        nodes = await cluster.items("/api/v1/nodes", room.Node)
        there = await cluster.items("/api/v1/pods", room.Pod)
        mine = pods.labels(self._spec.run, FLEET).items()
        others = [
            pod
            for pod in there
            if pod.metadata.namespace != self._carrier.namespace or not mine <= pod.metadata.labels.items()
        ]
        need = room.Need(room.quantity(self._carrier.cpu), room.quantity(self._carrier.memory))
        where = self._carrier.node_selector, self._carrier.tolerations
        found = room.rooms(nodes, others, need, *where)
        closed = {node.metadata.name: words for node in nodes if (words := room.obstacle(node, *where))}
        if words := room.problem(found, self._replicas, self._spec.block, closed):
            raise WorkloadError(words)

    # waiting

    async def _wait(self, cluster: Cluster) -> None:
        """Until every replica is Ready."""
        while True:
            now = await cluster.find("StatefulSet", FLEET, self._carrier.namespace, _Set)
            if now is not None and now.there:
                return
            there = await cluster.items(self._pods, room.Pod, pods.selector(self._spec.run, FLEET))
            await ground.release(cluster, there)
            late = [pod for pod in there if not pod.ready and not pod.metadata.deletion_timestamp]
            if words := next(filter(None, map(_hopeless, there)), ""):
                raise WorkloadError(words)
            if time.monotonic() > self._deadline:
                ready = now.status.ready_replicas if now else 0
                words = f"in time only {ready} of {self._replicas} pods of {self._spec.block} vnodes are Ready"
                raise WorkloadError(f"{words}{await self._why(cluster, late[0]) if late else ''}")
            await asyncio.sleep(_POLL)

    async def _why(self, cluster: Cluster, pod: room.Pod) -> str:
        """What a pod says of itself, and its last words."""
        path = f"{self._pods}/{pod.metadata.name}"
        if not pod.spec.node_name:
            return f"; {pod.metadata.name} is on no worker yet"
        if not pod.started:
            return f"; {pod.metadata.name} on {pod.spec.node_name} does not run: {await self._warning(cluster, pod)}"
        said = await cluster.text(f"{path}:{PORT}/proxy/readyz")
        log = await cluster.text(f"{path}/log?tailLines=5")
        return f"; {pod.metadata.name} on {pod.spec.node_name}: {said[:300]}; its last lines:\n{log[-1000:]}"

    async def _warning(self, cluster: Cluster, pod: room.Pod) -> str:
        """The last that was warned of a pod."""
        query = urlencode({"fieldSelector": f"involvedObject.uid={pod.metadata.uid},type=Warning"})
        path = f"/api/v1/namespaces/{self._carrier.namespace}/events?{query}"
        answer = await cluster.request("GET", path)
        if not answer.ok:
            return f"its events are not to be had ({answer.status})"
        told = msgspec.json.decode(answer.body, type=_Events).items
        return max(told, key=lambda one: one.last_timestamp or "", default=_Event("no reason is told")).message[:300]

    # the target

    async def _in_target(self) -> dict[str, Any]:
        """Remove what replicas that are gone have left, then see that all others' Nodes are Ready."""
        async with _asking(self._target) as api:
            while True:
                nodes = await api.items(NODES, room.Node, f"{RUN_LABEL}={self._spec.run}")
                if len(nodes) > self._spec.count:
                    await _sweep(api, self._spec)
                ready = sum(node.ready for node in nodes)
                if ready == len(nodes) == self._spec.count:
                    return {"joined": len(nodes), "ready": ready}
                if time.monotonic() > self._deadline:
                    raise FleetError(
                        f"in time only {ready} of {self._spec.count} vnodes are Ready in the target, which has "
                        f"{len(nodes)} of run {self._spec.run}"
                    )
                await asyncio.sleep(_POLL)

    async def _components(self, cluster: Cluster) -> list[Component]:
        """The replicas for the scraper, which is given a token for that alone."""
        path = f"{path_of('ServiceAccount', ground.SCRAPER, self._carrier.namespace)}/token"
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_LIFE_S},
        }
        answer = msgspec.json.decode((await cluster.request("POST", path, asked)).checked().body)
        folder = self._state / "fleet"
        for one in (self._state, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.replace(folder / "scraper.token", answer["status"]["token"].encode())
        if cluster.credential.ca:
            disk.replace(folder / "scraper.ca", cluster.credential.ca.encode())
        return [
            Component(
                name=f"{FLEET}-{number}",
                kind="fleet",
                url=cluster.credential.server,
                metrics_path=f"{self._pods}/{FLEET}-{number}:{PORT}/proxy/metrics",
                ca_file=str(folder / "scraper.ca") if cluster.credential.ca else None,
                token_file=str(folder / "scraper.token"),
            )
            for number in range(self._replicas)
        ]


async def _absent(
    cluster: Cluster, target: Target, state: Path, spec: Spec, namespace: str, timeout: float, check_mode: bool
) -> Carried:
    found = await ground.there(cluster, spec.run, namespace)
    async with _asking(target) as api:
        left = await _labelled(api, spec.run)
        result = Carried(changed=bool(found) or any(left.values()))
        result.before = {"namespace": ("Namespace", namespace) in found, **left}
        result.after = {"namespace": False, "nodes": 0, "leases": 0}
        if check_mode or not result.changed:
            return result
        await ground.clear(cluster, spec.run, namespace, timeout)
        await _sweep(api, msgspec.structs.replace(spec, count=0))
        left = await _labelled(api, spec.run)
    if any(left.values()):
        raise FleetError(
            f"{left['nodes']} nodes and {left['leases']} leases of run {spec.run} are left, whose names do not begin "
            f"with name_prefix {spec.name_prefix!r}; give the prefix that they were made with"
        )
    for name in ("scraper.token", "scraper.ca"):
        (state / "fleet" / name).unlink(missing_ok=True)
    return result


@contextlib.asynccontextmanager
async def _asking(target: Target) -> AsyncIterator[Cluster]:
    """The target's API server, as the fleet."""
    credential = target.credential("fleet")
    api = Cluster(credential, target.addresses(credential), size=_AT_ONCE)
    try:
        yield api
    except (ApiError, Unreachable) as error:
        raise FleetError(f"the target cannot be asked for the nodes of the run: {error}") from None
    finally:
        await api.close()


async def _labelled(api: Cluster, run: str) -> dict[str, int]:
    """How many Nodes and Leases carry the run's label."""
    return {
        kind: len(await api.items(path, Bare, f"{RUN_LABEL}={run}"))
        for kind, path in (("nodes", NODES), ("leases", LEASES))
    }


async def _sweep(api: Cluster, spec: Spec) -> None:
    """Remove Nodes and Leases of vnodes that no replica has: those beyond the spec's count."""
    for path in (NODES, LEASES):
        names = [one.metadata.name for one in await api.items(path, Bare, f"{RUN_LABEL}={spec.run}")]
        beyond = [name for name in names if (index := spec.index(name)) is not None and index >= spec.count]
        await asyncio.gather(*(api.delete(f"{path}/{name}") for name in beyond))


def _hopeless(pod: room.Pod) -> str:
    for one in pod.status.container_statuses:
        waiting = one.state.waiting
        if waiting is not None and waiting.reason in _HOPELESS:
            return f"pod {pod.metadata.name} on {pod.spec.node_name} cannot start: {waiting.reason}, {waiting.message}"
    return ""
