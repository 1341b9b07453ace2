"""What a profile asks of the machine that carries it, and what binds first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from turbokube.predict.caps import USABLE, Cap, Cause, Level, caps, order, pod_cost
from turbokube.predict.coefficients import Coefficients, Cost
from turbokube.predict.machine import Machine
from turbokube.profile.schema import Profile, as_options, lease_settings, pod_ranges

GIB = 2**30

# Heartbeats may take so much of the cores: a control plane that gives more to them has no room for the load, and its
# latency is that of a full machine.
HEARTBEAT_SHARE = 0.6
MEMORY_SHARE = 0.9  # of what is available: garbage collectors and the page cache need the rest
STORE_SHARE = 0.8  # of the quota: fragmentation and a late compaction need the rest
# supervisord wants 1,024 (its minfds), and etcd and the API server keep some hundred files and connections open
OPEN_FILES = 1024
# Resident KiB of a vnode's own connections and watches, on top of the coefficients' memory, which is that of fidelity
# lease. Those of the fleet were measured with 110 vnodes; those of the API server by bench/fleet/levels.py from 250 to
# 1,000 vnodes (1.12 and 1.97 MB each), less what the coefficients have for a Node
VNODE_KIB: dict[str, dict[str, float]] = {
    "lease": {},
    "kubelet": {"fleet": 105, "kube-apiserver": 950},
    "node": {"fleet": 130, "kube-apiserver": 1780},
}
VNODE_CONNECTIONS = {"lease": 0, "kubelet": 1, "node": 2}  # a vnode's own, by fidelity
LONGEST_INTERVAL_S = 600  # beyond it a lease says nothing about its node

STORES = ("etcd", "kine")
# One of each: a run on one machine.
ONE_MACHINE = dict.fromkeys(
    ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "fleet", "agent"), 1
)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of a whole run, on one machine. Memory, store and disk in bytes."""

    heartbeats_per_second: float
    heartbeat_cores: float  # CPU for them and for components that idle
    pod_ms: float  # CPU per pod, mean over the steps of growth
    pods_per_second: float  # at most; 0 when no core is left
    bound_by: str
    caps: tuple[Cap, ...]  # all that bind at some rate, the lowest first
    seconds: float  # to create all pods; infinite when no core is left
    memory: float
    store: float  # the store's file; 0 when it is not on this machine
    disk: float
    open_files: int


@dataclass(frozen=True)
class Room:
    """Something that a run fills: the share that it takes, and the same in words."""

    share: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a machine carries a profile: `refusal` is one sentence, empty when it does."""

    prediction: Prediction
    refusal: str
    warnings: list[str]


def predict(
    profile: Profile,
    machine: Machine,
    layout: Mapping[str, int],
    coefficients: Coefficients,
    levels: Iterable[Level] = (),
) -> Prediction:
    """`layout`: how many of each kind of component this machine runs, extra schedulers left out.

    `levels`: the target's priority levels where they are not Kubernetes' own.
    """
    here = {kind: count for kind, count in layout.items() if count > 0}
    if "kube-scheduler" in here:
        here["kube-scheduler"] += profile.schedulers
    costs = [
        (_cost(kind, profile, coefficients), count, count if kind in STORES else 1) for kind, count in here.items()
    ]
    heartbeats = profile.leases_per_second + profile.vnodes / profile.status_interval_s
    heartbeat_cores = sum(
        cost.idle_cores * count + cost.heartbeat_ms * work / 1e3 * heartbeats for cost, count, work in costs
    )
    nodes = profile.vnodes * (profile.steps + 1) / (2 * profile.steps)  # mean while the pods of each step are created
    pod_ms = sum(pod_cost(cost, nodes) * work for cost, _, work in costs)
    whole = Cap(
        cause=Cause.MACHINE,
        name="the processor",
        pods_per_second=max(0.0, USABLE * machine.cores - heartbeat_cores) * 1e3 / pod_ms if pod_ms else math.inf,
        why=f"{USABLE:.0%} of {machine.cores:g} cores, {heartbeat_cores:.2f} of them for heartbeats, "
        f"{pod_ms:.0f} ms for each pod",
    )
    found = order([whole, *caps(profile, machine, here, coefficients, heartbeats, nodes, levels)])
    rate = found[0].pods_per_second if found else math.inf
    members = sum(here.get(kind, 0) for kind in STORES)
    store = _store(profile, heartbeats, coefficients) if members else 0.0
    disk = coefficients.disk
    return Prediction(
        heartbeats_per_second=heartbeats,
        heartbeat_cores=heartbeat_cores,
        pod_ms=pod_ms,
        pods_per_second=rate,
        bound_by=found[0].name if found else "nothing",
        caps=found,
        seconds=profile.pods / rate if rate else math.inf,
        memory=_memory(profile, here, coefficients),
        store=store,
        disk=members * (store + disk.member_bytes) + disk.bundle_bytes + disk.pod_bytes * profile.pods + disk.log_bytes,
        open_files=_open_files(profile, here),
    )


def judge(profile: Profile, machine: Machine, layout: Mapping[str, int], coefficients: Coefficients) -> Verdict:
    """Whether the machine carries the profile, and if not, why and what can be done."""
    prediction = predict(profile, machine, layout, coefficients)
    causes = _causes(profile, machine, prediction)
    refusal = ""
    if causes:
        remedies = _remedies(profile, machine, layout, coefficients)
        refusal = (
            f"this machine does not carry profile {profile.profile} with turbokube_namespaces {profile.namespaces}: "
            f"{', and '.join(causes.values())}; what can be done: {', or '.join(remedies)}"
        )
    return Verdict(prediction=prediction, refusal=refusal, warnings=_warnings(profile, prediction))


def describe(profile: Profile, machine: Machine, prediction: Prediction) -> list[str]:
    """The prediction, in lines for a person: pods/s, what caps them, and what the run takes of what there is."""
    pods = (
        f"at most {prediction.pods_per_second:.0f}/s, bound by {prediction.bound_by} ({prediction.pod_ms:.0f} ms of "
        f"CPU per pod), so {profile.pods} take {_duration(prediction.seconds)}"
    )
    ways = ("binds first", "second", "third")
    return [
        f"pods: {pods if prediction.pods_per_second else 'no core is left for them'}",
        *(
            f"cap on pods: {cap.pods_per_second:,.0f}/s by {cap.name}: {cap.why}"
            + (f"; {ways[place]}" if place < len(ways) else "")
            for place, cap in enumerate(prediction.caps)
        ),
        *(room.words for room in rooms(profile, machine, prediction)),
    ]


def rooms(profile: Profile, machine: Machine, prediction: Prediction) -> list[Room]:
    """What a run fills, the fullest first."""
    nodes, addresses = pod_ranges(profile)
    found = [
        Room(
            prediction.heartbeat_cores / machine.cores,
            f"heartbeats: {prediction.heartbeats_per_second:.0f}/s take {prediction.heartbeat_cores:.2f} of "
            f"{machine.cores:g} cores",
        ),
        _room("memory", prediction.memory, machine.memory, "available"),
        _room("disk", prediction.disk, machine.home_free, "free"),
        Room(
            prediction.open_files / max(1, machine.open_files),
            f"open files: {prediction.open_files} of {machine.open_files} in one process",
        ),
        Room(profile.pods_per_vnode / profile.vnode_pods, f"pods of a vnode: {profile.pods_per_vnode} of "
             f"{profile.vnode_pods}"),
    ]  # fmt: skip
    if not profile.kubeconfig:
        found += [
            Room(profile.vnodes / nodes, f"pod ranges: {profile.vnodes} of {nodes} in {profile.pod_subnet}"),
            Room(profile.pods_per_vnode / addresses, f"addresses of a pod range: {profile.pods_per_vnode} of "
                 f"{addresses}"),
        ]  # fmt: skip
    if prediction.store and profile.store == "etcd":
        words = f"store: {prediction.store / GIB:.2f} GiB of a quota of {profile.etcd_quota_bytes / GIB:.1f} GiB"
        found.append(Room(prediction.store / profile.etcd_quota_bytes, words))
    elif prediction.store:
        found.append(Room(0.0, f"store: {prediction.store / GIB:.2f} GiB"))
    return sorted(found, key=lambda room: -room.share)


def _room(name: str, needed: float, there: float, how: str) -> Room:
    words = f"{name}: {needed / GIB:.1f} GiB of {there / GIB:.1f} GiB {how}"
    return Room(needed / there if there else math.inf, words)


def _cost(kind: str, profile: Profile, coefficients: Coefficients) -> Cost:
    """What one component costs; the fleet, what its engine does."""
    cost = coefficients.cost(kind, profile.fidelity)
    return coefficients.engines.get(profile.engine, cost) if kind == "fleet" else cost


def _memory(profile: Profile, here: Mapping[str, int], coefficients: Coefficients) -> float:
    """Of all components. Each holds all nodes and pods, but a process of the fleet only its share of them."""
    memory = 0.0
    for kind, count in here.items():
        cost = _cost(kind, profile, coefficients)
        objects = (cost.node_kib * profile.vnodes + cost.pod_kib * profile.pods) * 2**10
        own = VNODE_KIB[profile.fidelity].get(kind, 0.0) * profile.vnodes * 2**10  # shared out among those of a kind
        memory += cost.memory_mib * 2**20 * count + objects * (1 if kind == "fleet" else count) + own
    return memory


def _open_files(profile: Profile, here: Mapping[str, int]) -> int:
    """Of the process that has the most: vnodes' connections are shared out among API servers as among the fleet's."""
    shares = [here[kind] for kind in ("kube-apiserver",) if kind in here]
    shares += [profile.fleet_processes] if "fleet" in here and profile.engine == "builtin" else []
    own = VNODE_CONNECTIONS[profile.fidelity] * profile.vnodes
    return OPEN_FILES + profile.connections + max((math.ceil(own / share) for share in shares), default=0)


def _store(profile: Profile, heartbeats: float, coefficients: Coefficients) -> float:
    """Size of the store's file: what lives, and the revisions of heartbeats that are not compacted yet."""
    one = coefficients.store
    return (
        one.node_bytes * profile.vnodes + one.pod_bytes * profile.pods + one.heartbeat_bytes * heartbeats * one.kept_s
    )


def _causes(profile: Profile, machine: Machine, prediction: Prediction) -> dict[str, str]:
    """What the machine lacks: resource → words."""
    causes = {}
    if prediction.heartbeat_cores > HEARTBEAT_SHARE * machine.cores:
        causes["processor"] = (
            f"{profile.vnodes} vnodes that renew their leases every {profile.lease_interval_s:g} s take "
            f"{prediction.heartbeat_cores:.1f} cores before the first pod, where {machine.cores:g} are available and "
            f"{HEARTBEAT_SHARE * machine.cores:.1f} may go to that"
        )
    if prediction.memory > MEMORY_SHARE * machine.memory:
        causes["memory"] = (
            f"its processes need {prediction.memory / GIB:.1f} GiB of memory, where {machine.memory / GIB:.1f} GiB are "
            f"available and {MEMORY_SHARE:.0%} of them may be used"
        )
    if profile.store == "etcd" and prediction.store > STORE_SHARE * profile.etcd_quota_bytes:
        causes["store"] = (
            f"etcd's file grows to {prediction.store / GIB:.1f} GiB, where turbokube_etcd_quota_bytes is "
            f"{profile.etcd_quota_bytes} and {STORE_SHARE:.0%} of it may be used"
        )
    if prediction.disk > machine.home_free:
        causes["disk"] = (
            f"it writes {prediction.disk / GIB:.1f} GiB to turbokube_home, where {machine.home_free / GIB:.1f} GiB are "
            "free"
        )
    if prediction.open_files > machine.open_files:
        causes["files"] = (
            f"a process of it opens up to {prediction.open_files} files, where the hard limit (ulimit -Hn) is "
            f"{machine.open_files}"
        )
    return causes


def _remedies(profile: Profile, machine: Machine, layout: Mapping[str, int], coefficients: Coefficients) -> list[str]:
    """What would make the causes go away, as options of ansible-playbook."""

    def lacks(other: Profile) -> dict[str, str]:
        return _causes(other, machine, predict(other, machine, layout, coefficients))

    remedies = []
    low, high = 0, profile.namespaces  # low is carried (or 0), high is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if not lacks(replace(profile, namespaces=middle)) else (low, middle)
    if low:
        remedies.append(f"fewer namespaces (-e turbokube_namespaces={low})")
    if "processor" in lacks(profile):
        for interval in range(5 * (int(profile.lease_interval_s) // 5 + 1), LONGEST_INTERVAL_S + 1, 5):
            longer = replace(profile, lease_interval_s=float(interval))
            if "processor" not in lacks(longer):
                alone = "" if not lacks(longer) else " for the leases alone,"
                options = as_options(lease_settings(interval))
                remedies.append(f"{alone} a longer lease with the grace period moved with it ({options})".strip())
                break
    remedies.append("-e turbokube_preflight=warn to try it all the same")
    return remedies


def _warnings(profile: Profile, prediction: Prediction) -> list[str]:
    step = prediction.seconds / profile.steps
    if step <= profile.deadline_s or math.isinf(step):
        return []
    return [
        f"turbokube_deadline_s is {profile.deadline_s}, but a step of the load is predicted to take {_duration(step)} "
        f"({prediction.pods_per_second:.0f} pods/s, bound by {prediction.bound_by})"
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
