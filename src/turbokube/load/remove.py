"""Removing a run's load from a target that lives on: only what carries the run's label."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import msgspec

from turbokube.api.http1 import Http1
from turbokube.api.target import Target
from turbokube.api.transport import Transport

from .phase import RUN_LABEL

_AT_ONCE = 8
_LOOK_EVERY_S = 1.0


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    deletion_timestamp: str | None = None
    continue_: str = msgspec.field(default="", name="continue")


class _Item(msgspec.Struct):
    metadata: _Metadata


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[_Item] | None = None


async def remove(target: Target, run: str, wait: float, *, check: bool = False) -> dict[str, int]:
    """Delete the run's namespaces and wait at most `wait` seconds until they and their pods are gone.

    Gives `deleted` (asked for now), the `namespaces` that are left, and once that is 0 the `pods` that are.
    With `check`, deletes nothing.
    Raises ApiError or Unreachable.
    """
    credential = target.credential("load")
    transport = Http1(credential, target.addresses(credential), size=_AT_ONCE, user_agent="turbokube-load")
    end = time.monotonic() + wait
    try:
        items = await _items(transport, "/api/v1/namespaces", run)
        doomed = [item.metadata.name for item in items if item.metadata.deletion_timestamp is None]
        if not check:
            await _delete(transport, doomed)
        while True:
            left = len(await _items(transport, "/api/v1/namespaces", run))
            if check or time.monotonic() > end:
                return {"deleted": len(doomed), "namespaces": left}
            if not left:  # a namespace goes after all that is in it
                pods = len(await _items(transport, "/api/v1/pods", run))
                return {"deleted": len(doomed), "namespaces": 0, "pods": pods}
            await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        await transport.close()


async def _delete(transport: Transport, names: list[str]) -> None:
    async def some(own: list[str]) -> None:
        for name in own:
            answer = await transport.request("DELETE", f"/api/v1/namespaces/{name}")
            if answer.status != 404:
                answer.checked()

    await asyncio.gather(*(some(names[start::_AT_ONCE]) for start in range(_AT_ONCE)))


async def _items(transport: Transport, path: str, run: str) -> list[_Item]:
    found: list[_Item] = []
    query = f"{path}?limit=1000&labelSelector={quote(f'{RUN_LABEL}={run}')}"
    token = ""
    while True:
        answer = await transport.request("GET", query + (f"&continue={token}" if token else ""))
        page = msgspec.json.decode(answer.checked().body, type=_List)
        found += page.items or []
        if not (token := page.metadata.continue_):
            return found
