"""Vnodes and pods as the engine hands them to the server side."""

from __future__ import annotations

from typing import Any

import msgspec
from vnode_fakes import FakeTransport

from turbokube.api.transport import Response
from turbokube.vnode import objects
from turbokube.vnode.client import Client
from turbokube.vnode.clock import rfc3339
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Vnode

CLIENT = Client(FakeTransport(lambda *_: Response(200, b"{}")), Counts(), 1.0)


def vnode(index: int = 0) -> Vnode:
    return Vnode(index, f"vnode-{index:05d}", CLIENT)


def pod(
    number: int = 1,
    phase: str = "Running",
    began: float = 0.0,
    memory: str = "32Mi",
    states: list[tuple[str, float]] | None = None,
    **notes: str,
) -> objects.Pod:
    """A pod of one container; `notes` are annotations of usage, `states` what its status says of the container."""
    requests = {"requests": {"memory": memory}} if memory else {}
    raw: dict[str, Any] = {
        "metadata": {
            "name": f"p{number}",
            "namespace": "ns",
            "uid": f"u{number}",
            "annotations": {f"turbokube.io/{name}-usage": text for name, text in notes.items()},
        },
        "spec": {"nodeName": "vnode-00000", "containers": [{"name": "a", "image": "pause", "resources": requests}]},
        "status": {
            "phase": phase,
            "startTime": rfc3339(began) if began else "",
            "containerStatuses": [
                {"name": "a", "state": {state: {"startedAt": rfc3339(at)} if at else {}}} for state, at in states or ()
            ],
        },
    }
    return msgspec.convert(raw, objects.Pod)
