"""Leases: each vnode's is renewed once per interval at its own moment, and how late it was is kept."""

from __future__ import annotations

import asyncio
import time

from ..api.transport import ApiError, Unreachable
from . import objects
from .client import Client
from .clock import Wheel
from .crew import Crew, transient
from .nodes import LEASES, Vnode
from .spec import Spec


class Renewals:
    """The lease wheel and the crew that answers it, which does nothing else so that pods cannot delay a lease."""

    def __init__(self, spec: Spec, client: Client, crew: Crew) -> None:
        self.wheel: Wheel[Vnode] = Wheel(spec.lease_interval, self._due)
        self._spec = spec
        self._client = client
        self._crew = crew
        self._counts = client.counts

    def enter(self, vnode: Vnode) -> None:
        self.wheel.add(vnode.index, vnode)
        if time.time() - vnode.renewed > self._spec.lease_interval:  # taken over from an engine that is long dead
            self._due(vnode, time.monotonic())

    def leave(self, vnode: Vnode) -> None:
        self.wheel.remove(vnode.index, vnode)

    async def run(self) -> None:
        """Renew for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.wheel.run())
            group.create_task(self._crew.run())

    def _due(self, vnode: Vnode, moment: float) -> None:
        if not vnode.queued and not vnode.silent:  # else the last one is still owed, and its lateness goes on growing
            vnode.queued = True
            self._crew.put(self.renew, vnode, moment)

    async def renew(self, vnode: Vnode, due: float) -> None:
        """One renewal, due at `due` (time.monotonic). Raises what the crew is to try again for."""
        try:
            await self._renew(vnode, due)
        except Unreachable:
            self._counts.renewal_errors += 1
            raise
        except ApiError as error:
            self._counts.renewal_errors += 1
            if transient(error):
                raise
            vnode.queued = False
            raise
        else:
            vnode.queued = False

    async def _renew(self, vnode: Vnode, due: float) -> None:
        if not vnode.joined or vnode.silent:
            return
        sent, now = time.monotonic(), time.time()
        body = objects.lease(self._spec, vnode.name, vnode.uid, vnode.lease_version, now)
        if vnode.lease_version:
            answer = await self._client.call("update", "leases", "PUT", f"{LEASES}/{vnode.name}", body)
        else:
            answer = await self._client.call("create", "leases", "POST", LEASES, body)
        if answer.ok:
            vnode.lease_version = objects.resource_version(answer.body)
            vnode.renewed = now
            self._counts.renew(sent - due, time.monotonic() - sent)
        elif answer.status == 404 and vnode.lease_version:
            vnode.lease_version = b""  # deleted by somebody: create it anew
            await self._renew(vnode, due)
        elif answer.status == 409:
            await self._refresh(vnode)
            await self._renew(vnode, due)
        else:
            raise answer.error()

    async def _refresh(self, vnode: Vnode) -> None:
        """Somebody wrote the lease, or our own last write was not answered: go on from what is there."""
        answer = await self._client.call("get", "leases", "GET", f"{LEASES}/{vnode.name}")
        vnode.lease_version = b"" if answer.status == 404 else objects.resource_version(answer.checked().body)
