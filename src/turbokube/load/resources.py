"""Which collection of the API an object belongs to: known here, said by a CustomResourceDefinition, or asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from turbokube.api.transport import Response, Transport, Unreachable

from .phase import LoadError

CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object. `version` is its apiVersion, `plural` its name in paths."""

    version: str
    kind: str
    plural: str
    namespaced: bool = True

    def collection(self, namespace: str = "") -> str:
        """Path of all of its objects, or of those in a namespace."""
        within = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{root(self.version)}{within}/{self.plural}"


KNOWN = (
    Resource("v1", "Pod", "pods"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "Secret", "secrets"),
    Resource("v1", "ReplicationController", "replicationcontrollers"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Resource("v1", "Event", "events"),
    Resource("v1", "Namespace", "namespaces", namespaced=False),
    Resource("v1", "Node", "nodes", namespaced=False),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("apps/v1", "ReplicaSet", "replicasets"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("apps/v1", "DaemonSet", "daemonsets"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("batch/v1", "CronJob", "cronjobs"),
    Resource("coordination.k8s.io/v1", "Lease", "leases"),
    Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    Resource(*CRD, "customresourcedefinitions", namespaced=False),
)
_BY_KIND = {(one.version, one.kind): one for one in KNOWN}


class _Listed(msgspec.Struct, rename="camel"):
    name: str
    kind: str = ""
    namespaced: bool = False
    verbs: list[str] = []


class _Resources(msgspec.Struct):
    resources: list[_Listed] = []


class _Version(msgspec.Struct, rename="camel"):
    group_version: str = ""


class _Group(msgspec.Struct, rename="camel"):
    preferred_version: _Version = msgspec.field(default_factory=_Version)


class _Groups(msgspec.Struct):
    groups: list[_Group] = []


def root(version: str) -> str:
    """Path below which an apiVersion is served."""
    return f"/{'apis' if '/' in version else 'api'}/{version}"


def known(version: str, kind: str) -> Resource | None:
    """A kind that Kubernetes itself has and that is known without asking."""
    return _BY_KIND.get((version, kind))


def defined(crd: dict[str, Any]) -> list[Resource]:
    """What a CustomResourceDefinition will make known, one of each version that it serves. Raises LoadError."""
    try:
        spec = crd["spec"]
        names, namespaced = spec["names"], spec["scope"] == "Namespaced"
        versions = [f"{spec['group']}/{version['name']}" for version in spec["versions"] if version["served"]]
        return [Resource(version, names["kind"], names["plural"], namespaced) for version in versions]
    except (KeyError, TypeError):
        raise LoadError("template of a CustomResourceDefinition must have group, names, scope and versions") from None


async def discover(transport: Transport, version: str) -> list[Resource]:
    """What the API server serves under an apiVersion; nothing if it has none such. Raises ApiError."""
    answer = await _get(transport, root(version))
    return [] if answer.status == 404 else [one for one, _ in _served(version, answer.checked().body)]


async def deletable(transport: Transport) -> list[Resource]:
    """All kinds of objects that are kept, in the versions that the API server prefers. Raises ApiError, Unreachable."""
    answer = await transport.request("GET", "/apis")
    groups = msgspec.json.decode(answer.checked().body, type=_Groups).groups
    found = []
    for version in ["v1", *(group.preferred_version.group_version for group in groups)]:
        answer = await transport.request("GET", root(version))
        if answer.ok:  # another server, behind this one, may be away
            found += [one for one, verbs in _served(version, answer.body) if {"list", "delete"} <= verbs]
    return found


def _served(version: str, body: bytes) -> list[tuple[Resource, set[str]]]:
    found = msgspec.json.decode(body, type=_Resources).resources
    whole = [one for one in found if "/" not in one.name]
    return [(Resource(version, one.kind, one.name, one.namespaced), set(one.verbs)) for one in whole]


async def named(transport: Transport, name: str) -> Resource:
    """The resource of a plural, or plural.group, in the version that the server prefers.

    Raises LoadError if there is none, ApiError.
    """
    plural, _, group = name.partition(".")
    if found := _plural(KNOWN, plural, group):
        return found
    version = "v1"
    if group:
        answer = await _get(transport, f"/apis/{group}")
        if answer.status != 404:
            version = msgspec.json.decode(answer.checked().body, type=_Group).preferred_version.group_version
    if found := _plural(await discover(transport, version), plural, group):
        return found
    raise LoadError(f"the API server serves no resource {name}; one is named by its plural, or plural.group")


def _plural(resources: Iterable[Resource], plural: str, group: str) -> Resource | None:
    """The one of that plural; without a group, of Kubernetes' own by any."""
    for one in resources:
        if one.plural == plural and (not group or one.version.partition("/")[0] == group):
            return one
    return None


async def _get(transport: Transport, path: str) -> Response:
    """An answer of a server that is there and not too busy, whatever it is."""
    while True:
        try:
            answer = await transport.request("GET", path)
            if answer.status != 429 and answer.status < 500:
                return answer
        except Unreachable:
            pass
        await asyncio.sleep(0.5)
