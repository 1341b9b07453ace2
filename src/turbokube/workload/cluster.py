"""The cluster whose workers carry a run's vnodes or load: what is read of it, and objects applied to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from ..api.credentials import Credential
from ..api.http1 import Http1
from ..api.transport import ApiError, Response, Unreachable
from ..daemon.control import ControlError

T = TypeVar("T")
Object = dict[str, Any]

_MANAGER = "turbokube"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_PAGE = 500
# plural and group of each kind that is written, with what comes before its namespace
_PATHS = {
    "Namespace": ("/api/v1", "namespaces"),
    "Secret": ("/api/v1", "secrets"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "Job": ("/apis/batch/v1", "jobs"),
}


class WorkloadError(ControlError):
    """What a cluster cannot carry; the message is one for the user."""


class Meta(msgspec.Struct, rename="camel"):
    """Of an object's metadata, what is looked at."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    continue_: str = msgspec.field(default="", name="continue")


class Bare(msgspec.Struct):
    """An object of any kind."""

    metadata: Meta


class _Page(msgspec.Struct):
    metadata: Meta
    items: list[msgspec.Raw] = []


class Cluster:
    """A cluster's API server, by one credential. Make it inside a running event loop; `close` it."""

    def __init__(self, credential: Credential, servers: list[str] | None = None, size: int = 8) -> None:
        self.credential = credential
        self._transport = Http1(credential, servers or [credential.server], size=size, user_agent="turbokube-workload")

    async def close(self) -> None:
        await self._transport.close()

    async def request(self, method: str, path: str, body: Object | None = None, timeout: float = 30.0) -> Response:
        """One request, whatever its answer. Raises Unreachable."""
        data = msgspec.json.encode(body) if body is not None else b""
        return await self._transport.request(method, path, data, timeout=timeout)

    async def find(self, kind: str, name: str, namespace: str, as_: type[T]) -> T | None:
        """An object, or None where there is none."""
        answer = await self.request("GET", path_of(kind, name, namespace))
        return None if answer.status == 404 else msgspec.json.decode(answer.checked().body, type=as_)

    async def items(self, path: str, as_: type[T], selector: str = "") -> list[T]:
        """Every object of a collection, with this label selector; none where there is no such namespace."""
        found: list[T] = []
        token = ""
        while True:
            query = {"limit": _PAGE, "labelSelector": selector, "continue": token}
            answer = await self.request(
                "GET", f"{path}?{urlencode({key: text for key, text in query.items() if text})}"
            )
            page = msgspec.json.decode(answer.checked().body, type=_Page)
            found += [msgspec.json.decode(item, type=as_) for item in page.items]
            if not (token := page.metadata.continue_):
                return found

    async def apply(self, wanted: Object, *, dry_run: bool = False) -> bool:
        """Have an object as it is wanted, by server-side apply; whether that changes it. Raises ApiError."""
        meta = wanted["metadata"]
        path = path_of(wanted["kind"], meta["name"], meta.get("namespace", ""))
        before = await self.find(wanted["kind"], meta["name"], meta.get("namespace", ""), Bare)
        query = {"fieldManager": _MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        answer = await self._transport.request(
            "PATCH", f"{path}?{urlencode(query)}", msgspec.json.encode(wanted), _APPLY
        )
        if dry_run and answer.status == 404:
            return True  # its namespace is not there yet
        after = msgspec.json.decode(answer.checked().body, type=Bare)
        # a dry run makes up no version, so that of one which would change is the old one: what it would be is compared
        if dry_run and before is not None:
            return _content(await self.request("GET", path)) != _content(answer)
        return before is None or before.metadata.resource_version != after.metadata.resource_version

    async def delete(self, path: str, *, grace_s: int | None = None) -> None:
        """Delete an object; that there is none is no error."""
        options = {"propagationPolicy": "Background"} | ({} if grace_s is None else {"gracePeriodSeconds": grace_s})
        answer = await self.request("DELETE", path, options)
        if answer.status not in (404, 409):
            answer.checked()

    async def text(self, path: str) -> str:
        """What an API server passes on from a pod; its refusal in words."""
        answer = await self.request("GET", path)
        return answer.body.decode(errors="replace").strip()


async def at(credential: Credential, work: Callable[[Cluster], Awaitable[T]]) -> T:
    """What is done at a cluster, for a while. Raises WorkloadError where it refuses or is away."""
    cluster = Cluster(credential)
    try:
        return await work(cluster)
    except Unreachable as error:
        raise WorkloadError(f"the fleet cluster at {credential.server}: {error}") from None
    except ApiError as error:
        raise WorkloadError(f"the fleet cluster at {credential.server} refuses: {error}") from None
    finally:
        await cluster.close()


def path_of(kind: str, name: str, namespace: str = "") -> str:
    """The path of an object."""
    group, plural = _PATHS[kind]
    middle = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"{group}{middle}/{plural}/{quote(name)}"


def _content(answer: Response) -> Object:
    """An object without what the server writes of it."""
    value: Object = msgspec.json.decode(answer.checked().body)
    value.pop("status", None)
    for name in ("managedFields", "resourceVersion", "generation"):
        value["metadata"].pop(name, None)
    return value
