"""How many objects there are, by each who can say: the store itself, the API, the observer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import msgspec

from turbokube.api.target import Store
from turbokube.api.transport import PROTOBUF, Transport

# resource → the API server's prefix in its store, and its collection in the API
_WHERE = {
    "pods": ("/registry/pods/", "/api/v1/pods"),
    "nodes": ("/registry/minions/", "/api/v1/nodes"),
    "leases": ("/registry/leases/kube-node-lease/", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
}


_EMPTY = 200  # bytes: more than a list with nothing in it
_COUNT = re.compile(rb'^"Count" : (\d+)$', re.MULTILINE)


class CountError(Exception):
    """The store would not say; the message is its tool's last line."""


class _Meta(msgspec.Struct, rename="camel"):
    remaining_item_count: int = 0
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _Meta
    items: list[msgspec.Raw] | None = None


async def bytes_each(transport: Transport, selector: str) -> dict[str, int]:
    """How large one object of each kind is as protobuf, which is what the store keeps; kinds without any are left out.

    `selector` is of labels. Raises ApiError or Unreachable.
    """
    found = {}
    for resource, (_, path) in _WHERE.items():
        answer = await transport.request("GET", f"{path}?limit=1&labelSelector={selector}", accept=PROTOBUF)
        if (size := len(answer.checked().body)) > _EMPTY:
            found[resource] = size
    return found


async def of_store(store: Store) -> dict[str, int]:
    """The store's own counts, by etcdctl, which kine answers too. Empty where no etcdctl is known."""
    if not store.etcdctl:
        return {}
    return {resource: await _etcdctl(store, prefix) for resource, (prefix, _) in _WHERE.items()}


async def _etcdctl(store: Store, prefix: str) -> int:
    files = {"cacert": store.ca_file, "cert": store.certificate_file, "key": store.key_file}
    options = [f"--{name}={path}" for name, path in files.items() if path]
    process = await asyncio.create_subprocess_exec(
        str(store.etcdctl), f"--endpoints={','.join(store.endpoints)}", *options,
        "get", prefix, "--prefix", "--count-only", "--write-out=fields", "--command-timeout=60s",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        raise CountError(f"etcdctl: {said[-1] if said else process.returncode}")
    counted = _COUNT.search(out)
    if counted is None:
        raise CountError("etcdctl gave no count")
    return int(counted[1])


async def of_api(transport: Transport, selector: str | None) -> dict[str, int]:
    """The API's counts; of all objects without a selector. Raises ApiError or Unreachable."""
    count: Callable[[str], Awaitable[int]]
    if selector is None:
        count = lambda path: _remaining(transport, path)  # noqa: E731
    else:
        count = lambda path: _paged(transport, f"{path}?labelSelector={selector}")  # noqa: E731
    return {resource: await count(path) for resource, (_, path) in _WHERE.items()}


async def _remaining(transport: Transport, path: str) -> int:
    """One object and how many more there are: exact, since a list with a limit is read from the store."""
    answer = await transport.request("GET", f"{path}?limit=1")
    found = msgspec.json.decode(answer.checked().body, type=_List)
    return len(found.items or []) + found.metadata.remaining_item_count


async def _paged(transport: Transport, path: str) -> int:
    """Counted one by one: the API does not say how many a selector leaves."""
    total, token = 0, ""
    while True:
        answer = await transport.request("GET", f"{path}&limit=1000" + (f"&continue={token}" if token else ""))
        found = msgspec.json.decode(answer.checked().body, type=_List)
        total, token = total + len(found.items or []), found.metadata.continue_
        if not token:
            return total
