"""When what was created is ready: namespaces have what controllers give them, objects their pods."""

from __future__ import annotations

import asyncio
import time

import msgspec

from turbokube.api.transport import Transport
from turbokube.api.watch import ListWatch
from turbokube.bundle.ledger import Entry

from . import resources
from .phase import RUN_LABEL
from .states import Watches, scheduled
from .templates import Manifest
from .work import Witness

# A namespace gets these from controllers; only then pods can be admitted at once
_NEEDED = (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt"))
NAMESPACES = "/api/v1/namespaces"
_LOOK_EVERY_S = 0.2


class _Metadata(msgspec.Struct):
    namespace: str


class _Object(msgspec.Struct):
    metadata: _Metadata


def namespace_body(name: str, run: str) -> bytes:
    """What creates a namespace of a run."""
    labels = {"app": "turbokube", RUN_LABEL: run}
    return msgspec.json.encode({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


class NamespacesReady:
    """Two watches for all namespaces, so that none is polled."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._have: dict[str, set[str]] = {}
        self._ready: dict[str, asyncio.Future[float]] = {}

    async def watch(self) -> None:
        """Follow both collections for ever; raises ApiError when that is refused."""
        async with asyncio.TaskGroup() as group:
            for resource, name in _NEEDED:
                group.create_task(self._follow(resource, name))

    async def wait(self, namespace: str) -> float:
        """Wall-clock time at which the namespace was seen to have what it needs, awaited."""
        return await asyncio.shield(self._future(namespace))

    def forget(self, namespace: str) -> None:
        """It is gone: what is seen from now on is of the next of its name."""
        self._have.pop(namespace, None)
        self._ready.pop(namespace, None)

    async def _follow(self, resource: str, name: str) -> None:
        selector = {"fieldSelector": f"metadata.name={name}"}
        async for event in ListWatch(self._transport, f"/api/v1/{resource}", _Object, selector).events():
            if event.object is None:
                continue
            namespace = event.object.metadata.namespace
            have = self._have.setdefault(namespace, set())
            future = self._future(namespace)
            if event.type == "DELETED":
                have.discard(resource)
                continue
            have.add(resource)
            if len(have) == len(_NEEDED) and not future.done():
                future.set_result(time.time())

    def _future(self, namespace: str) -> asyncio.Future[float]:
        future = self._ready.get(namespace)
        if future is None:
            future = self._ready[namespace] = asyncio.get_running_loop().create_future()
        return future


class Ready:
    """Tells of each kind of object in its own way when it is ready. `watches` are those of the phase."""

    def __init__(self, transport: Transport, witness: Witness, watches: Watches) -> None:
        self._transport = transport
        self._witness = witness
        self._watches = watches

    async def wait(self, entry: Entry, made: Manifest) -> float:
        """When all pods of an object ran, or what else it is for is there, awaited. Sets replicas that were not known.

        Raises ApiError when the API server refuses to tell.
        """
        if made.awaits == "pods":
            return await self._witness.pods_run(entry.namespace, entry.name, entry.replicas)
        if made.awaits == "job":
            return await self._witness.pods_ran(entry.namespace, entry.name, entry.replicas)
        if made.awaits == "daemonset":
            states = self._watches.of(made.all)
            await states.until(entry.namespace, entry.name, scheduled)
            entry.replicas = states.get(entry.namespace, entry.name).status.desired_number_scheduled
            return await self._witness.pods_run(entry.namespace, entry.name, entry.replicas)
        if made.awaits == "established":
            for resource in resources.defined(msgspec.json.decode(made.body)):
                await self._served(resource)
            return time.time()
        return entry.accepted or time.time()

    async def _served(self, resource: resources.Resource) -> None:
        """Wait until the API server knows of a kind."""
        while True:
            if resource in await resources.discover(self._transport, resource.version):
                return
            await asyncio.sleep(_LOOK_EVERY_S)
