"""Namespaces get their ServiceAccount and root CA from controllers; only then pods can be admitted at once."""

from __future__ import annotations

import asyncio
import time

import msgspec

from turbokube.api.transport import Transport
from turbokube.api.watch import ListWatch

_NEEDED = (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt"))


class _Metadata(msgspec.Struct):
    namespace: str


class _Object(msgspec.Struct):
    metadata: _Metadata


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

    async def _follow(self, resource: str, name: str) -> None:
        selector = {"fieldSelector": f"metadata.name={name}"}
        async for event in ListWatch(self._transport, f"/api/v1/{resource}", _Object, selector).events():
            if event.object is None or event.type == "DELETED":
                continue
            namespace = event.object.metadata.namespace
            have = self._have.setdefault(namespace, set())
            have.add(resource)
            future = self._future(namespace)
            if len(have) == len(_NEEDED) and not future.done():
                future.set_result(time.time())

    def _future(self, namespace: str) -> asyncio.Future[float]:
        future = self._ready.get(namespace)
        if future is None:
            future = self._ready[namespace] = asyncio.get_running_loop().create_future()
        return future
