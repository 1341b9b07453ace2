"""Removing a run's load from a target that lives on: only what carries the run's label."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import quote

import msgspec

from turbokube.api.http1 import Http1
from turbokube.api.target import Target
from turbokube.api.transport import Response, Transport, Unreachable

from . import resources
from .phase import RUN_LABEL

_AT_ONCE = 8
_FLEETS = {"nodes", "csinodes"}  # what vnodes have; it goes with them
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


class _Patient:
    """Asks again while an API server that has answered is away: a load may have been too much for it."""

    def __init__(self, transport: Transport, end: float) -> None:
        self.transport, self._end = transport, end
        self._answered = False

    async def request(self, method: str, path: str) -> Response:
        while True:
            late = time.monotonic() > self._end
            try:
                answer = await self.transport.request(method, path)
                if answer.status < 500 or late:
                    self._answered = True
                    return answer
            except Unreachable:
                if late or not self._answered:
                    raise
            await asyncio.sleep(_LOOK_EVERY_S)


async def remove(target: Target, run: str, wait: float, *, check: bool = False) -> dict[str, int]:
    """Delete what carries the run's label: its namespaces, and then what is in none, such as definitions of kinds.

    Waits at most `wait` seconds until all is gone. Gives `deleted` (asked for now), the `namespaces` that are left, and
    once that is 0 the `pods` and the `others`. With `check`, deletes nothing and looks no further.
    Raises ApiError or Unreachable.
    """
    credential = target.credential("load")
    connections = Http1(credential, target.addresses(credential), size=_AT_ONCE, user_agent="turbokube-load")
    end = time.monotonic() + wait
    transport = _Patient(connections, end)
    try:
        doomed = await _doomed(transport, "/api/v1/namespaces", run)
        if not check:
            await _delete(transport, doomed)
        while True:
            left = len(await _items(transport, "/api/v1/namespaces", run))
            if check or (left and time.monotonic() > end):
                return {"deleted": len(doomed), "namespaces": left}
            if not left:  # a namespace goes after all that is in it
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        pods = len(await _items(transport, "/api/v1/pods", run))
        others = await _remove_others(transport, run, end)
        return {"deleted": len(doomed), "namespaces": 0, "pods": pods, "others": others}
    finally:
        await connections.close()


async def _remove_others(transport: _Patient, run: str, end: float) -> int:
    """Delete what is in no namespace; how much of it is left in the end."""
    while True:
        collections = [
            one.collection() for one in await resources.deletable(transport.transport)
            if not one.namespaced and one.plural not in _FLEETS | {"namespaces"}
        ]  # fmt: skip
        left = 0
        for collection in collections:
            left += len(await _items(transport, collection, run))
            await _delete(transport, await _doomed(transport, collection, run))
        if not left or time.monotonic() > end:
            return left
        await asyncio.sleep(_LOOK_EVERY_S)


async def _doomed(transport: _Patient, collection: str, run: str) -> list[str]:
    """Paths of what is not being deleted yet."""
    items = await _items(transport, collection, run)
    return [f"{collection}/{item.metadata.name}" for item in items if item.metadata.deletion_timestamp is None]


async def _delete(transport: _Patient, paths: list[str]) -> None:
    async def some(own: list[str]) -> None:
        for path in own:
            answer = await transport.request("DELETE", path)
            if answer.status != 404:
                answer.checked()

    await asyncio.gather(*(some(paths[start::_AT_ONCE]) for start in range(_AT_ONCE)))


async def _items(transport: _Patient, path: str, run: str) -> list[_Item]:
    found: list[_Item] = []
    query = f"{path}?limit=1000&labelSelector={quote(f'{RUN_LABEL}={run}')}"
    token = ""
    while True:
        answer = await transport.request("GET", query + (f"&continue={token}" if token else ""))
        if answer.status == 404:  # a kind that has just gone with its definition
            return []
        page = msgspec.json.decode(answer.checked().body, type=_List)
        found += page.items or []
        if not (token := page.metadata.continue_):
            return found
