"""Every cap on pods per second that settings and machine set, and which one binds first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from turbokube.predict.coefficients import Coefficients, Cost
from turbokube.predict.machine import Machine
from turbokube.profile.distribution import parse
from turbokube.profile.phases import Create, Shape, objects_of, pods_of
from turbokube.profile.schema import Profile

# Defaults of kube-controller-manager and kube-apiserver 1.36 (their --help)
CONCURRENT_SYNCS = 5
REQUESTS_INFLIGHT, MUTATING_INFLIGHT = 400, 200
# apiserver/pkg/apis/flowcontrol/bootstrap/default.go, 1.36: nominal concurrency shares of the levels
SHARES = {
    "system": 30,
    "node-high": 40,
    "leader-election": 10,
    "workload-high": 40,
    "workload-low": 100,
    "global-default": 20,
    "catch-all": 5,
}
# What closed loops get of the cores that bind them: runs of quickstart and 1k on two cores reached 0.75 to 1.07 of what
# all of both would give, an API server with GOMAXPROCS 1 0.63 to 0.90
USABLE = 0.9
# Who sends what a pod takes, by the level that its requests come to (the same file's flow schemas)
SENDERS = {
    "workload-high": ("kube-controller-manager", "kube-scheduler"),
    "system": ("fleet",),
    "global-default": ("load",),
}


class Cause(StrEnum):
    """What can bind; the preflight predicts by these names and the report names what did by them."""

    CONTROLLER_MANAGER_QPS = "controller-manager-qps"
    SCHEDULER_QPS = "scheduler-qps"
    APISERVER_CPU = "apiserver-cpu"
    CONTROLLER_MANAGER_CPU = "controller-manager-cpu"
    SCHEDULER_CPU = "scheduler-cpu"
    SYNCS = "controller-syncs"
    SEATS = "apf-seats"
    STORE = "store"
    FLEET = "fleet"
    GENERATOR = "generator"
    MACHINE = "machine"
    OTHERS = "other-work"  # nothing of the run's: no preflight knows of it


@dataclass(frozen=True, kw_only=True)
class Cap:
    """One cap: `name` is the setting or the part that sets it, `why` the arithmetic."""

    cause: Cause
    name: str
    pods_per_second: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """A priority level of API Priority and Fairness: its seats, and whose requests come to it."""

    name: str
    seats: int
    senders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What all caps are computed from."""

    profile: Profile
    machine: Machine
    here: Mapping[str, int]
    coefficients: Coefficients
    heartbeats: float  # per second
    nodes: float  # mean, while pods are created
    levels: tuple[Level, ...]

    def flag(self, owner: str, name: str, default: float) -> float:
        """A flag of a component as the profile gives it."""
        return float(getattr(self.profile, f"{owner}_args").get(name, default))

    @property
    def write_s(self) -> float:
        """Seconds of a write whose way is free: it waits for the store's sync under way, then for its own."""
        work = self.coefficients.work
        return work.write_ms / 1e3 + work.syncs_per_write * self.machine.sync_s


def caps(
    profile: Profile,
    machine: Machine,
    here: Mapping[str, int],
    coefficients: Coefficients,
    heartbeats: float,
    nodes: float,
    levels: Iterable[Level] = (),
) -> tuple[Cap, ...]:
    """All caps but the whole machine's, the lowest first; those that never bind are left out.

    `here`: how many of each kind of component, extra schedulers included. `heartbeats` per second, `nodes` on average.
    `levels`: those of the target where they are not Kubernetes' own.
    """
    asked = _Asked(
        profile=profile,
        machine=machine,
        here=here,
        coefficients=coefficients,
        heartbeats=heartbeats,
        nodes=nodes,
        levels=tuple(levels) or default_levels(profile),
    )
    parts: tuple[Callable[[_Asked], Iterator[Cap]], ...] = (_client_qps, _processes, _syncs, _seats, _generator)
    return order(cap for part in parts for cap in part(asked))


def order(found: Iterable[Cap]) -> tuple[Cap, ...]:
    """The lowest first, without those that never bind."""
    return tuple(sorted((cap for cap in found if not math.isinf(cap.pods_per_second)), key=lambda c: c.pods_per_second))


def default_levels(profile: Profile) -> tuple[Level, ...]:
    """Kubernetes' own levels: an API server's seats (both in-flight limits together), shared out by their shares."""
    args = profile.apiserver_args
    total = int(args.get("max-requests-inflight", profile.max_requests_inflight or REQUESTS_INFLIGHT))
    total += int(
        args.get("max-mutating-requests-inflight", profile.max_mutating_requests_inflight or MUTATING_INFLIGHT)
    )
    return tuple(
        Level(name=name, seats=math.ceil(total * SHARES[name] / sum(SHARES.values())), senders=senders)
        for name, senders in SENDERS.items()
    )


def bucket_rate(pods: int, requests: float, qps: float, burst: float) -> float:
    """Pods/s through a client's token bucket, which starts full: the burst goes at once, the rest at `qps`."""
    held_back = pods * requests - burst
    return qps * pods / held_back if held_back > 0 else math.inf


def _client_qps(asked: _Asked) -> Iterator[Cap]:
    """Client limits. Of the controller manager's clients, a bucket each, the ReplicaSet controller's is the busiest."""
    profile = asked.profile
    for kind, cause, owner in (
        ("kube-controller-manager", Cause.CONTROLLER_MANAGER_QPS, "controller_manager"),
        ("kube-scheduler", Cause.SCHEDULER_QPS, ""),
    ):
        if kind not in asked.here:
            continue
        # with extra schedulers the default one gets no pods
        buckets = max(1, profile.schedulers) if kind == "kube-scheduler" else 1
        qps, burst = profile.client_qps, float(profile.client_burst)
        if owner:
            qps, burst = asked.flag(owner, "kube-api-qps", qps), asked.flag(owner, "kube-api-burst", burst)
        each = asked.coefficients.requests_per_pod[kind]
        yield Cap(
            cause=cause,
            name=f"turbokube_client_qps {qps:g} in {kind}",
            pods_per_second=bucket_rate(profile.pods, each, qps * buckets, burst * buckets),
            why=f"{each:g} requests for each pod, burst {burst:g}" + (f", {buckets} clients" if buckets > 1 else ""),
        )


def _processes(asked: _Asked) -> Iterator[Cap]:
    """Processes that may not use all cores: GOMAXPROCS in their environment, or one event loop."""
    profile, here = asked.profile, asked.here
    for kind, cause, owner in (
        ("kube-apiserver", Cause.APISERVER_CPU, "apiserver"),
        ("kube-controller-manager", Cause.CONTROLLER_MANAGER_CPU, "controller_manager"),
        ("kube-scheduler", Cause.SCHEDULER_CPU, "scheduler"),
    ):
        procs = getattr(profile, f"{owner}_env").get("GOMAXPROCS")
        if kind in here and procs:
            share = 1 if kind == "kube-controller-manager" else here[kind]  # of controller managers one works
            yield _process(asked, cause, f"GOMAXPROCS {procs} of {kind}", kind, float(procs), share)
    if "fleet" in here and profile.engine == "builtin":
        processes = profile.fleet_processes
        name = f"turbokube_fleet_processes {processes}"
        yield _process(asked, Cause.FLEET, name, "fleet", 1.0, processes)
    if "agent" in here:
        yield _process(asked, Cause.GENERATOR, "the agent's event loop", "agent", 1.0, 1)


def _process(asked: _Asked, cause: Cause, name: str, kind: str, cores: float, share: int) -> Cap:
    cost = asked.coefficients.cost(kind, asked.profile.fidelity)
    cores = min(cores, asked.machine.cores)
    spent = cost.idle_cores + cost.heartbeat_ms / 1e3 * asked.heartbeats / share
    pod_ms = pod_cost(cost, asked.nodes)
    return Cap(
        cause=cause,
        name=name,
        pods_per_second=max(0.0, USABLE * cores - spent) * share * 1e3 / pod_ms if pod_ms else math.inf,
        why=f"{USABLE:.0%} of {cores:g} cores, {spent:.2f} of them for heartbeats, {pod_ms:.1f} ms for each pod",
    )


def pod_cost(cost: Cost, nodes: float) -> float:
    """CPU milliseconds that a component spends on a pod, with so many nodes there."""
    return cost.pod_ms + cost.pod_ms_per_1000_nodes * nodes / 1e3


def _syncs(asked: _Asked) -> Iterator[Cap]:
    """Who waits for the answer to a write before the next: their number over the time that a pod keeps one of them."""
    profile, work, write_s = asked.profile, asked.coefficients.work, asked.write_s
    replicas = max((pace.per_object for pace in _paces(profile)), default=1.0)
    # slowStartBatch (pkg/controller/replicaset): 1, 2, 4, … creations at once, each batch after the last
    batches = math.ceil(math.log2(replicas + 1))
    waits = work.syncs_per_write * asked.machine.sync_s > work.write_ms / 1e3
    for count, name, writes, pods in (
        (
            asked.flag("controller_manager", "concurrent-replicaset-syncs", CONCURRENT_SYNCS),
            "concurrent-replicaset-syncs",
            batches + work.replicaset_writes,
            replicas,
        ),
        (
            asked.flag("controller_manager", "concurrent-deployment-syncs", CONCURRENT_SYNCS),
            "concurrent-deployment-syncs",
            work.deployment_writes,
            replicas,
        ),
        (profile.connections, "turbokube_connections", work.fleet_writes, 1),
    ):
        seconds = writes * write_s
        own = Cause.FLEET if name == "turbokube_connections" else Cause.SYNCS
        yield Cap(
            cause=Cause.STORE if waits else own,
            name=f"{name} {count:g}" + (f" with a store that syncs in {asked.machine.sync_s * 1e3:.0f} ms" * waits),
            pods_per_second=count * pods / seconds if seconds else math.inf,
            why=f"{writes:g} writes one after another for {pods:g} pods, {write_s * 1e3:.0f} ms each",
        )


def _seats(asked: _Asked) -> Iterator[Cap]:
    """Seats of API Priority and Fairness over the seat-seconds of a pod's requests, all of width 1."""
    servers = asked.here.get("kube-apiserver", 0)
    for level in asked.levels if servers else ():
        held_ms = sum(asked.coefficients.work.seat_ms.get(sender, 0.0) for sender in level.senders)
        yield Cap(
            cause=Cause.SEATS,
            name=f"{level.seats} APF seats of level {level.name}",
            pods_per_second=level.seats * servers * 1e3 / held_ms if held_ms else math.inf,
            why=f"a pod's requests hold one for {held_ms:.0f} ms",
        )


@dataclass(frozen=True)
class _Pace:
    """How a load creates pods: by rate (objects per second), or in a closed loop when that is 0."""

    whose: str  # the phase, in words; empty: the whole profile
    rate: float
    concurrency: int
    per_object: float  # pods
    per_namespace: float


def _paces(profile: Profile) -> list[_Pace]:
    """Of every create phase with pods, or of the one load of a profile without phases."""
    if not profile.phases:
        per = profile.deployments_per_namespace * profile.replicas
        return [_Pace("", profile.rate, profile.concurrency, profile.replicas, per)]
    creates = [phase for group in profile.groups() for phase in group if isinstance(phase, Create) and pods_of(phase)]
    return [
        _Pace(
            f" of phase {phase.name}",
            _most(phase.rate),
            phase.concurrency,
            pods_of(phase) / objects_of(phase),
            pods_of(phase) / phase.namespaces,
        )
        for phase in creates
    ]


def _most(rate: float | Shape) -> float:
    """The highest rate that is meant to last."""
    if not isinstance(rate, Shape):
        return rate
    return rate.poisson or max((*(step[0] for step in rate.steps), *(rate.ramp or ())[:2]), default=0.0)


def _generator(asked: _Asked) -> Iterator[Cap]:
    """The load's own pace: its rate, or in a closed loop how long a namespace keeps a worker when nothing is busy."""
    work = asked.coefficients.work
    seconds = work.namespace_s + asked.write_s * work.namespace_writes
    seconds += sum(parse(delay).mean for delay in (asked.profile.start_delay, asked.profile.ready_delay))
    for pace in _paces(asked.profile):
        if pace.rate:
            yield Cap(
                cause=Cause.GENERATOR,
                name=f"turbokube_rate {pace.rate:g}" if not pace.whose else f"rate {pace.rate:g}{pace.whose}",
                pods_per_second=pace.rate * pace.per_object,
                why=f"objects of {pace.per_object:g} pods",
            )
            continue
        yield Cap(
            cause=Cause.GENERATOR,
            name=f"{'concurrency' if pace.whose else 'turbokube_concurrency'} {pace.concurrency}{pace.whose}",
            pods_per_second=pace.concurrency * pace.per_namespace / seconds if seconds else math.inf,
            why=f"namespaces at once, each of {pace.per_namespace:g} pods and at least {seconds:.2f} s",
        )
