"""What a node, a heartbeat and a pod cost: the figures of coefficients.json, which bench/coefficients measures."""

from __future__ import annotations

import importlib.resources
from typing import Any

import msgspec

FILE = "coefficients.json"


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One component. A heartbeat is a renewal of a lease or a report of a node's status."""

    idle_cores: float  # CPU with an empty cluster
    heartbeat_ms: float  # CPU milliseconds per heartbeat
    pod_ms: float  # CPU milliseconds per pod, from creation to Running
    pod_ms_per_1000_nodes: float = 0.0  # and so much more for every 1,000 nodes
    memory_mib: float  # resident, with an empty cluster
    node_kib: float  # resident, per node
    pod_kib: float  # resident, per pod


class LevelCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CPU milliseconds of one component above fidelity `lease`, in the place of those of its Cost.

    What a vnode's own connections and watches take while nothing happens is counted under its heartbeats.
    """

    heartbeat_ms: float
    pod_ms: float


class StoreCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The store's file. Revisions of heartbeats lie in it until they are compacted."""

    node_bytes: float
    pod_bytes: float  # with its share of ReplicaSet, Deployment, Events and revisions
    heartbeat_bytes: float
    kept_s: float  # the API server compacts every 5 minutes what is older than 5 minutes: up to twice that


class DiskCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What else a run writes."""

    member_bytes: float  # WAL and snapshots of a member of the store: 5 segments of 64 MB are kept
    bundle_bytes: float
    pod_bytes: float
    log_bytes: float


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What keeps those busy who wait for answers, on a control plane that has room; 0: not known."""

    write_ms: float = 0.0  # of a write, from sending to answer, without the store's sync
    syncs_per_write: float = 0.0  # what of fdatasync's time a write waits for
    replicaset_writes: float = 0.0  # one after another, by a worker for a ReplicaSet, beside its batches of creations
    deployment_writes: float = 0.0  # the same for a Deployment
    fleet_writes: float = 0.0  # of the fleet for a pod
    namespace_s: float = 0.0  # from a Namespace's creation until its one Deployment's pods run
    namespace_writes: float = 0.0  # of these, one after another
    seat_ms: dict[str, float] = {}  # for which a pod's requests hold a seat, by sender


class Coefficients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it, and how it was come by."""

    provenance: dict[str, Any]
    components: dict[str, Cost]  # by kind; a store that is not here costs what etcd does
    engines: dict[str, Cost] = {}  # instead of `fleet` where another engine runs it: docs/engines.md
    levels: dict[str, dict[str, LevelCost]] = {}  # by fidelity and kind of component
    store: StoreCost
    disk: DiskCost
    requests_per_pod: dict[str, float]  # requests under a component's own client limit
    work: Work = Work()

    def cost(self, kind: str, fidelity: str = "lease") -> Cost:
        """What one component of this kind costs with vnodes of this fidelity."""
        known = kind if kind in self.components else "etcd"
        cost, level = self.components[known], self.levels.get(fidelity, {}).get(known)
        if level is None:
            return cost
        return msgspec.structs.replace(cost, heartbeat_ms=level.heartbeat_ms, pod_ms=level.pod_ms)


def load() -> Coefficients:
    """The figures that the package carries."""
    data = importlib.resources.files(__package__).joinpath(FILE).read_bytes()
    return msgspec.json.decode(data, type=Coefficients)
