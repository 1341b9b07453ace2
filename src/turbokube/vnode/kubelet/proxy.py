"""One vnode's kube-proxy: its own connection as system:kube-proxy, and its watches (fidelity `node`).

Which ones: cmd/kube-proxy/app/server.go and pkg/proxy/node.go of Kubernetes 1.36.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from ...api.http2 import Http2
from ...api.transport import PROTOBUF, Unreachable
from ..client import Client
from ..clock import Agenda
from ..metrics import Counts
from ..nodes import NODES, Vnode
from . import machine
from .reflector import Kind, Reflector

if TYPE_CHECKING:
    from .members import Kubelets

_EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
_TIMEOUT = 30.0  # seconds

_NODE = Kind(NODES, fields="metadata.name={name}", synced=lambda proxy: proxy.watch_all())
_ALL = (
    Kind("/apis/networking.k8s.io/v1/servicecidrs"),
    Kind("/api/v1/services", fields="spec.clusterIP!=None", labels="!service.kubernetes.io/service-proxy-name"),
    Kind("/apis/discovery.k8s.io/v1/endpointslices", labels="!service.kubernetes.io/headless"),
)


class Proxy:
    """What one vnode has at fidelity `node` beyond what it has at `kubelet`. Owner of its reflectors."""

    __slots__ = ("_fleet", "_name", "_watches", "streams")
    accept = f"{PROTOBUF}, */*"

    def __init__(self, fleet: Kubelets, vnode: Vnode) -> None:
        assert fleet.proxy_credential is not None
        self.streams: Any = Http2(
            fleet.proxy_credential,
            fleet.who.servers,
            user_agent=fleet.proxy_user_agent,
            index=vnode.index,
            gate=fleet.proxy_gate,
        )
        self._fleet = fleet
        self._name = vnode.name
        self._watches: list[Reflector] = []

    @property
    def agenda(self) -> Agenda:
        return self._fleet.agenda

    @property
    def counts(self) -> Counts:
        return self._fleet.counts

    def start(self) -> None:
        """Watch the Node; the rest follows once it is seen, as kube-proxy waits for its addresses."""
        self._watch(_NODE)

    def watch_all(self) -> None:
        """Follow all that it routes, from now on; and say that it has started."""
        if len(self._watches) == 1:
            for kind in _ALL:
                self._watch(kind)
            self._fleet.spawn(self._tell())

    def close(self) -> None:
        """Send nothing more, and hear nothing more."""
        for watch in self._watches:
            watch.stop()
        self._fleet.spawn(self.streams.close())

    async def _tell(self) -> None:
        """What fails is not tried again."""
        body = machine.proxy_event(self._name, time.time())
        client = Client(self.streams, self.counts, _TIMEOUT, self.accept)
        with contextlib.suppress(Unreachable):
            await client.call("create", "events", "POST", _EVENTS, body, PROTOBUF)

    def _watch(self, kind: Kind) -> None:
        watch = Reflector(self, kind, self._name)
        self._watches.append(watch)
        watch.start()
