"""What a cluster holds before it is loaded."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from turbokube.api.build import server_build
from turbokube.api.http1 import Http1
from turbokube.api.target import Target
from turbokube.api.transport import Transport

from . import counts

_RUN_LABEL = "turbokube.io/run"


class _Metadata(msgspec.Struct):
    name: str = ""
    labels: dict[str, str] = {}
    continue_: str = msgspec.field(default="", name="continue")


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Node(msgspec.Struct):
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _Nodes(msgspec.Struct):
    metadata: _Metadata
    items: list[_Node] | None = None


async def census(target: Target, run: str) -> dict[str, Any]:
    """Version, nodes (total, ready, of this run, foreign: of no run or another's) and counts of objects.

    Raises CredentialError, ApiError or Unreachable.
    """
    credential = target.credential("observer")
    transport = Http1(credential, target.addresses(credential), size=2, user_agent="turbokube-observer")
    try:
        build = await server_build(transport, timeout=15.0)
        nodes = await _nodes(transport)
        foreign = [node.metadata.name for node in nodes if node.metadata.labels.get(_RUN_LABEL) != run]
        ready = sum(any(c.type == "Ready" and c.status == "True" for c in node.status.conditions) for node in nodes)
        return {
            "version": build.git_version,
            "servers": len(target.addresses(credential)),
            "nodes": {"total": len(nodes), "ready": ready, "own": len(nodes) - len(foreign), "foreign": len(foreign)},
            "foreign_nodes": foreign[:10],
            "counts": await counts.of_api(transport, None),
        }
    finally:
        await transport.close()


async def _nodes(transport: Transport) -> list[_Node]:
    found: list[_Node] = []
    token = ""
    while True:
        path = "/api/v1/nodes?limit=500" + (f"&continue={quote(token)}" if token else "")
        page = msgspec.json.decode((await transport.request("GET", path)).checked().body, type=_Nodes)
        found += page.items or []
        if not (token := page.metadata.continue_):
            return found
