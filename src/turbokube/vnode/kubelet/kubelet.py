"""One vnode's kubelet: a connection of its own, the watches on it, and the cadence of its Lease and its status.

Who does what when is kubelet 1.36's: pkg/kubelet/kubelet_node_status.go for the status, component-helpers'
apimachinery/lease/controller.go for the Lease; docs/fidelity.md compares.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from ...api import protobuf
from ...api.transport import PROTOBUF, STRATEGIC_PATCH, ApiError, Response, Unreachable
from .. import objects
from ..clock import JITTER, Agenda
from ..crew import transient
from ..metrics import Counts
from ..nodes import LEASES, NODES, Vnode
from . import machine
from .proxy import Proxy
from .reflector import Kind, Reflector

if TYPE_CHECKING:
    from .members import Kubelets

ACCEPT = f"{PROTOBUF},application/json"
_CHECK = 10.0  # seconds between two looks at whether the status has changed or is due (nodeStatusUpdateFrequency)
_TRIES = 5  # of a renewal or a report, one after the other (maxUpdateRetries, nodeStatusUpdateRetry)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 7.0  # seconds between two tries to have a Lease (backoffEnsureLease)
_TIMEOUT = 10.0  # seconds, of a heartbeat; the path says so too, as client-go's

log = logging.getLogger(__name__)


class Kubelet:
    """What one vnode has at fidelity `kubelet` beyond what it has at `lease`. Owner of its reflectors."""

    __slots__ = (
        "_backoff",
        "_due",
        "_fleet",
        "_lease",
        "_objects",
        "_report_at",
        "_watches",
        "proxy",
        "vnode",
    )
    accept = ACCEPT

    def __init__(self, fleet: Kubelets, vnode: Vnode) -> None:
        self.vnode = vnode
        self.proxy: Proxy | None = None
        self._fleet = fleet
        self._watches: list[Reflector] = []
        self._objects: dict[tuple[str, str, str], tuple[Reflector, int]] = {}  # by resource, namespace, name
        self._lease = b""  # the server's last word of it, which the next renewal sends back
        self._due = self._report_at = 0.0  # time.monotonic of the next renewal, the next report
        self._backoff = 0.0  # seconds until the next try to have a Lease

    # Owner

    @property
    def streams(self) -> Any:
        return self.vnode.client.transport

    @property
    def agenda(self) -> Agenda:
        return self._fleet.agenda

    @property
    def counts(self) -> Counts:
        return self._fleet.counts

    @property
    def connections(self) -> int:
        """How many are open: one, and one of kube-proxy."""
        return len(self.streams.connections) + (len(self.proxy.streams.connections) if self.proxy is not None else 0)

    # beginning and end

    def start(self) -> None:
        """Open the watches; that of the pods follows once the Node's has shown everything."""
        if not self._watches:
            for kind in self._fleet.kinds:
                self._watch(kind)

    def watch_pods(self) -> None:
        """Follow the pods, from now on."""
        if len(self._watches) == len(self._fleet.kinds):
            self._watch(self._fleet.pod_kind)

    def enter(self) -> None:
        """Renew and report from now on."""
        spec, now = self._fleet.spec, time.monotonic()
        age = time.time() - self.vnode.renewed
        if age < spec.lease_interval:
            self._renew_at(now - age + spec.lease_interval * random.uniform(1.0, 1.0 + JITTER))
        else:  # taken over late: at once, but not thousands in one moment
            slack = min((spec.lease_duration - age) / 2, spec.lease_interval)
            self._renew_at(now + random.uniform(0.0, max(slack, 0.0)))
        self._report_later()
        self.agenda.at(self._report_at, self._report_due)

    def close(self) -> None:
        """Send nothing more, and hear nothing more."""
        for watch in (*self._watches, *(watch for watch, _ in self._objects.values())):
            watch.stop()
        self._watches.clear()
        self._objects.clear()
        if self.proxy is not None:
            self.proxy.close()
            self.proxy = None
        self._fleet.spawn(self.vnode.client.transport.close())

    pause = close  # a machine that is cut off, until `resume`

    def resume(self) -> None:
        """The machine is there again, as after a restart of its network."""
        self._fleet.connect(self.vnode)
        self.start()
        self.start_proxy()

    def start_proxy(self) -> None:
        """Have a kube-proxy beside it, where the fidelity asks for one."""
        if self._fleet.spec.fidelity == "node" and self.proxy is None:
            self.proxy = Proxy(self._fleet, self.vnode)
            self.proxy.start()

    def _watch(self, kind: Kind) -> None:
        watch = Reflector(self, kind, self.vnode.name)
        self._watches.append(watch)
        watch.start()

    # what pods refer to

    def refer(self, pod: objects.Pod) -> None:
        """Watch each ConfigMap and Secret that a pod names, for as long as one pod does."""
        for resource, name in objects.references(pod):
            key = resource, pod.metadata.namespace, name
            if key in self._objects:
                watch, count = self._objects[key]
                self._objects[key] = watch, count + 1
            else:
                watch = Reflector(self, self._fleet.object_kind(resource, pod.metadata.namespace), name)
                self._objects[key] = watch, 1
                watch.start()

    def unrefer(self, pod: objects.Pod) -> None:
        """The pod is gone: its part in `refer` ends."""
        for resource, name in objects.references(pod):
            key = resource, pod.metadata.namespace, name
            if key not in self._objects:
                continue
            watch, count = self._objects[key]
            if count > 1:
                self._objects[key] = watch, count - 1
            else:
                del self._objects[key]
                watch.stop()

    # the Lease

    def _renew_at(self, moment: float) -> None:
        self._due = moment
        self.agenda.at(moment, self._renew_due)

    def _renew_due(self) -> None:
        if self.vnode.silent:
            self._renew_at(time.monotonic() + self._fleet.spec.lease_interval)
        elif self.vnode.joined:
            self._fleet.spawn(self._sync())

    async def _sync(self) -> None:
        """One turn of the lease controller; it ends with the next one planned, if the vnode is still there."""
        spec = self._fleet.spec
        try:
            if not (self._lease and await self._update()) and self.vnode.joined and not await self.have_lease():
                await self._update()
        except (Unreachable, ApiError) as error:
            self._lease = b""
            self._backoff = min(2 * self._backoff or _FIRST_PAUSE, _LONGEST_PAUSE)
            least = error.retry_after if isinstance(error, ApiError) else 0.0
            self.agenda.after(max(least, self._backoff), self._renew_due)
            if isinstance(error, ApiError) and not transient(error):
                log.warning("the lease of %s: %s", self.vnode.name, error)
            return
        self._backoff = 0.0
        self._renew_at(time.monotonic() + spec.lease_interval * random.uniform(1.0, 1.0 + JITTER))

    async def have_lease(self) -> bool:
        """Get the Lease, or create it. Whether it was created, and so is renewed. Raises Unreachable, ApiError."""
        vnode, now = self.vnode, time.time()
        answer = await self._heartbeat("get", "leases", "GET", f"{LEASES}/{vnode.name}")
        created = answer.status == 404
        if created:
            await self._heartbeat("get", "nodes", "GET", f"{NODES}/{vnode.name}")
            body = machine.lease(self._fleet.spec, vnode.name, vnode.uid, now)
            answer = await self._heartbeat("create", "leases", "POST", LEASES, body)
        if not answer.ok:
            self.counts.renewal_errors += 1
            raise answer.error()
        self._lease = answer.body
        if created:
            vnode.renewed = now
        return created

    async def _update(self) -> bool:
        """Write the Lease with as many tries as the lease controller. Whether one succeeded."""
        vnode, path = self.vnode, f"{LEASES}/{self.vnode.name}"
        for _ in range(_TRIES):
            if not vnode.joined or vnode.silent:
                return False
            sent, now = time.monotonic(), time.time()
            try:
                answer = await self._heartbeat("update", "leases", "PUT", path, protobuf.renewed(self._lease, now))
            except Unreachable:
                self.counts.renewal_errors += 1
                continue
            if answer.ok:
                self._lease = answer.body
                vnode.renewed = now
                self.counts.renew(sent - self._due, time.monotonic() - sent)
                return True
            if answer.status == 409:
                await self.have_lease()
                continue
            self.counts.renewal_errors += 1
            await asyncio.sleep(answer.retry_after)
        return False

    # the status

    def _report_later(self) -> None:
        """After a change, the next report comes after a random part of the interval (calculateDelay)."""
        self._report_at = time.monotonic() + self._fleet.spec.status_interval * random.uniform(0.5, 1.5)

    def _report_due(self) -> None:
        if not self.vnode.joined:
            return
        if time.monotonic() < self._report_at - 0.1:  # there was a change meanwhile
            self.agenda.at(self._report_at, self._report_due)
        elif self.vnode.silent:
            self.agenda.after(_CHECK, self._report_due)
        else:
            self._fleet.spawn(self._report())

    async def _report(self) -> None:
        """The heartbeat of the conditions. That it is due is seen at the next look only."""
        sent = await self.patch_status(objects.node_heartbeat(time.time()))
        wait = self._fleet.spec.status_interval if sent else 0.0
        self._report_at = time.monotonic() + wait + _CHECK * random.uniform(0.0, 1.0 + JITTER)
        self.agenda.at(self._report_at, self._report_due)

    async def report_change(self, body: bytes) -> bool:
        """Send what has changed of the status. Whether the server took it."""
        sent = await self.patch_status(body)
        if sent:
            self._report_later()
        return sent

    async def patch_status(self, body: bytes) -> bool:
        """Whether the server took it, with as many tries as the kubelet makes."""
        vnode, path = self.vnode, f"{NODES}/{self.vnode.name}"
        for attempt in range(_TRIES):
            if not vnode.joined or vnode.silent:
                return False
            try:
                if attempt:
                    await self._heartbeat("get", "nodes", "GET", path)
                answer = await self._heartbeat(
                    "patch", "nodes/status", "PATCH", f"{path}/status", body, STRATEGIC_PATCH
                )
            except Unreachable:
                continue
            if answer.ok or answer.status == 404:  # deleted by somebody else, of which the watch tells
                return answer.ok
            await asyncio.sleep(answer.retry_after)
        return False

    async def _heartbeat(
        self, verb: str, resource: str, method: str, path: str, body: bytes = b"", content_type: str = PROTOBUF
    ) -> Response:
        return await self.vnode.client.call(
            verb, resource, method, f"{path}?timeout=10s", body, content_type, timeout=_TIMEOUT
        )
