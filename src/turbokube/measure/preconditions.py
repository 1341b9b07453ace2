"""Whether a cluster was one that the SLOs are promised for: slos.md's prerequisites and thresholds.md.

An SLO that was not met while a precondition was not met either is not applicable; it has not failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.profile.rules import quantity

from .series import Metrics, Series

# resource (as the API servers count objects) → key in the table of limits
_CLUSTER = {"nodes": "nodes", "pods": "pods", "namespaces": "namespaces", "services": "services"}


@dataclass(frozen=True, slots=True)
class Precondition:
    """One of them. `met` None: not known. `voids`: without it the SLOs promise nothing."""

    name: str
    title: str
    value: str
    limit: str
    met: bool | None
    voids: bool = True


def check(reader: Reader, metrics: Metrics, meta: Mapping[str, Any], rule: Mapping[str, Any]) -> list[Precondition]:
    """All of them but churn, which is judged window by window. `rule`: table preconditions of limits.json."""
    most = objects(metrics)
    # the API servers count once a minute; what the observer saw is never more than there was
    for name, seen in (
        ("nodes", "SELECT MAX(total) FROM nodes"),
        ("pods", "SELECT COUNT(*) FROM pods WHERE deleted_seen IS NULL"),
    ):
        most[name] = max(most.get(name, 0.0), reader.query(seen)[0][0] or 0.0)
    found = []
    for resource, name in _CLUSTER.items():
        found.append(_bound(name, f"{resource.capitalize()} of the cluster", most.get(resource), rule[name]))
    others = {name: count for name, count in most.items() if name not in ("events", *_CLUSTER)}
    most_of = max(others, key=lambda name: others[name], default="")
    found += [
        _bound("objects", f"Objects of one type{f' ({most_of})' if most_of else ''}", others.get(most_of),
               rule["objects"]),
        _bound("events", "Events", most.get("events"), rule["events"]),
        *_by_place(reader, meta, rule),
        *_bytes(meta, most, rule),
        _own_etcd(meta),
    ]  # fmt: skip
    return found


def objects(metrics: Metrics) -> dict[str, float]:
    """The most objects that there were of each resource, as the API servers count them."""
    metric = next(
        (name for name in ("apiserver_resource_objects", "apiserver_storage_objects") if metrics.has(name)), ""
    )
    found: dict[str, float] = {}
    for series, _, value in metrics.samples(metric):
        if name := _resource(series):
            found[name] = max(found.get(name, 0.0), value)
    return found


def _resource(series: Series) -> str:
    """Name of a builtin resource, without its group; older versions write name.group in one label."""
    name, _, group = series.labels.get("resource", "").partition(".")
    group = series.labels.get("group") or group
    return "" if "." in group and not group.endswith(".k8s.io") else name


def _bound(name: str, title: str, value: float | None, limit: float) -> Precondition:
    if value is None:
        return Precondition(name, title, "not known", f"≤ {limit:,}", None)
    return Precondition(name, title, f"{value:,.0f}", f"≤ {limit:,}", value <= limit)


def _by_place(reader: Reader, meta: Mapping[str, Any], rule: Mapping[str, Any]) -> Iterable[Precondition]:
    asked = "SELECT COALESCE(MAX(n), 0) FROM (SELECT {} AS n FROM objects {} GROUP BY namespace)"
    for name, title, what, where in (
        ("pods-namespace", "Pods of a namespace", "SUM(replicas)", ""),
        ("services-namespace", "Services of a namespace", "COUNT(*)", "WHERE kind = 'Service'"),
        ("deployments-namespace", "Deployments of a namespace", "COUNT(*)", "WHERE kind = 'Deployment'"),
    ):
        yield _bound(name, title, reader.query(asked.format(what, where))[0][0], rule[name])
    alive = (
        "SELECT MAX(n) FROM (SELECT COUNT(*) AS n FROM pods WHERE deleted_seen IS NULL AND node != '' GROUP BY node)"
    )
    cores = quantity(str((meta.get("profile") or {}).get("turbokube_vnode_cpu") or "32"))
    limit = min(rule["pods-node"], rule["pods-core"] * cores)
    yield _bound("pods-node", "Pods of a node, at the end", reader.query(alive)[0][0] or 0, round(limit))


def _bytes(meta: Mapping[str, Any], most: Mapping[str, float], rule: Mapping[str, Any]) -> Iterable[Precondition]:
    each = meta.get("object_bytes") or {}
    largest = max(each.values(), default=None)
    yield _bound("object-bytes", "Bytes of one object", largest, rule["object-bytes"])
    totals = [size * most[resource] for resource, size in each.items() if resource in most]
    yield _bound("type-bytes", "Bytes of one type", max(totals, default=None), rule["type-bytes"])


def _own_etcd(meta: Mapping[str, Any]) -> Precondition:
    """It names the configuration that SIG Scalability tests, but many sound clusters are without it: told alone."""
    target = meta.get("target") or {}
    flags = (target.get("flags") or {}).get("kube-apiserver") or {}
    title, limit = "Events are in an etcd of their own", "yes"
    if not target.get("ours"):
        return Precondition("events-etcd", title, "not known", limit, None, voids=False)
    own = "events" in str(flags.get("etcd-servers-overrides", ""))
    return Precondition("events-etcd", title, "yes" if own else "no", limit, own, voids=False)
