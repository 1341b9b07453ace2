"""What a fleet shall be: the wish that the module hands to the engine."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from ..api.credentials import Credential
from . import addresses, behaviour

RUN_LABEL = "turbokube.io/run"
PLACEMENTS = ("namespace", "cluster")
FIDELITIES = ("lease", "kubelet", "node")
JOINS = ("certificate", "csr")
ENGINES = ("builtin", "kwok", "kubemark", "virtual_kubelet")
MOST_VNODES = 100_000
ACTIONS = ("silence", "not_ready", "disappear")


class SpecError(ValueError):
    """A wish that cannot be fulfilled: one sentence with the option, its value and what is allowed."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What befalls a share of the vnodes `after` seconds after the fleet was complete, for `duration` (0: for good)."""

    after: float
    share: float
    action: str
    duration: float = 0.0


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet, as wanted. Intervals in seconds; delays as behaviour.parse reads them; capacities as quantities."""

    run: str
    count: int
    name_prefix: str = "vnode-"
    placement: str = "namespace"
    vnodes_per_namespace: int = 8
    lease_interval: float = 10.0  # the kubelet's: a quarter of the duration
    lease_duration: int = 40  # the kubelet's nodeLeaseDurationSeconds
    status_interval: float = 300.0  # the kubelet's nodeStatusReportFrequency
    start_delay: str = "0"
    ready_delay: str = "0"  # from Running to Ready
    run_time: str = ""  # of a container; empty: until it is told to end
    stop_delay: str = "0"
    failure_rate: float = 0.0  # the share of containers' ends, after their run time, that are failures
    seed: int = 0
    faults: list[Fault] = []
    cpu: str = "2"
    memory: str = "64Gi"
    pods: int = 1024
    connections: int = 8
    engine: str = "builtin"
    binary: str = ""  # of a foreign engine
    fidelity: str = "lease"
    join: str = "certificate"
    processes: int = 1  # engine processes: vnode i is the one of process i % processes
    shard: int = 0  # which of them this is; only `part` sets it
    block: int = 0  # vnodes in a row of each process, which then are as many as it takes; 0: they take turns
    hosts: int = 1  # hosts that share the processes: process k is one of host k % hosts, and so are its vnodes
    host: int = 0  # which of them this is
    metrics_address: str = "127.0.0.1"  # where processes tell of themselves
    metrics_port: int = 0  # of the first process, one more for each; 0: any free one
    images: int = 50  # the kubelet's nodeStatusMaxImages; reported at kubelet and node only
    serve: bool = False  # the kubelet's own port
    serve_port: int = 10250
    node_ip_range: str = ""  # IPv4 CIDR of the InternalIPs; empty: 172.16.0.0/12, where they serve 127.16.0.0/12
    pod_cpu_usage: str = "0"  # what a pod's metrics show: usage.parse reads it
    pod_memory_usage: str = ""  # empty: half of the request

    def part(self, shard: int) -> Spec:
        """What process `shard` is given: vnodes, a port and a share of the connections that are its own.

        With `block` it is the same however many there are, so that others come and go without its notice.
        """
        if self.block:
            return msgspec.structs.replace(self, shard=shard, count=(shard + 1) * self.block)
        share = max(2, -(-self.connections // self.processes))
        return msgspec.structs.replace(self, shard=shard, connections=share, serve_port=self.serve_port + shard)

    @property
    def shards(self) -> range:
        """The processes of this host."""
        return range(self.host, self.processes, self.hosts)

    @property
    def here(self) -> range:
        """The vnodes of this host."""
        return range(self.host, self.count, self.hosts)

    @property
    def indices(self) -> range:
        """The vnodes of this process."""
        if self.block:
            return range(self.shard * self.block, min(self.count, (self.shard + 1) * self.block))
        return range(self.shard, self.count, self.processes)

    def owns(self, index: int | None) -> bool:
        """Whether vnode `index` is this process's. What is no vnode's (None) is left to the first process."""
        return ((index or 0) // self.block if self.block else (index or 0) % self.processes) == self.shard

    @property
    def parts(self) -> int:
        """Among how many processes what all of them take from is divided; with `block`, among the most there can be."""
        return -(-MOST_VNODES // self.block) if self.block else self.processes

    @property
    def alone(self) -> bool:
        """Whether no other process has vnodes of this fleet."""
        return self.processes == 1 and not self.block

    def name(self, index: int) -> str:
        """The name of vnode `index`."""
        return f"{self.name_prefix}{index:05d}"

    @property
    def node_ips(self) -> str:
        """The IPv4 CIDR that the InternalIPs are in. Who serves does so on loopback unless told a range."""
        return self.node_ip_range or (addresses.SERVING if self.serve else addresses.NODES)

    def address(self, index: int) -> str:
        """The InternalIP of vnode `index`."""
        return addresses.node_address(self.node_ips, index)

    def index(self, name: str) -> int | None:
        """The inverse of `name`; None for a node that is none of this fleet."""
        digits = name.removeprefix(self.name_prefix)
        return int(digits) if digits.isdecimal() and self.name(int(digits)) == name else None

    def conflict(self, node: str) -> str:
        """What the user is told of a node with a vnode's name that is not of this run."""
        return (
            f"name_prefix is {self.name_prefix!r}, but a node {node} that is not of run {self.run} exists already; "
            "allowed is a prefix that no other node's name begins with"
        )


class Start(msgspec.Struct):
    """What a process starts with: the fleet's spec. It holds a key, so its file is 0600 and gone once it is read."""

    spec: Spec
    credential: Credential
    servers: list[str]
    shard: int = 0
    serving: str = ""  # path of the certificate and key that vnodes serve with
    keep: bool = False  # leave the file: a service manager starts the process from it again


_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9][-a-z0-9.]{0,199}")


def check(spec: Spec) -> Spec:
    """The same spec. Raises SpecError for the first value that is out of bounds."""

    def need(good: bool, option: str, value: object, allowed: str) -> None:
        if not good:
            raise SpecError(f"{option} is {value!r}; allowed is {allowed}")

    need(spec.engine in ENGINES, "engine", spec.engine, " or ".join(ENGINES))
    need(spec.join in JOINS, "join", spec.join, " or ".join(JOINS))
    need(spec.fidelity in FIDELITIES, "fidelity", spec.fidelity, " or ".join(FIDELITIES))
    need(spec.placement in PLACEMENTS, "placement", spec.placement, " or ".join(PLACEMENTS))
    need(bool(_LABEL.fullmatch(spec.run)), "run", spec.run, "a label value: up to 63 of a-z A-Z 0-9 - _ .")
    need(
        bool(_PREFIX.fullmatch(spec.name_prefix)),
        "name_prefix",
        spec.name_prefix,
        "lower case letters, digits, - and .",
    )
    need(0 <= spec.count <= MOST_VNODES, "count", spec.count, f"0 to {MOST_VNODES}")
    need(spec.vnodes_per_namespace >= 1, "vnodes_per_namespace", spec.vnodes_per_namespace, "1 or more")
    need(1 <= spec.lease_duration <= 3600, "lease_duration", spec.lease_duration, "1 to 3600 seconds")
    below = f"more than 0 and less than lease_duration ({spec.lease_duration}) seconds"
    need(0 < spec.lease_interval < spec.lease_duration, "lease_interval", spec.lease_interval, below)
    need(1 <= spec.status_interval <= 86400, "status_interval", spec.status_interval, "1 to 86400 seconds")
    for option in ("start_delay", "ready_delay", "run_time", "stop_delay"):
        text = getattr(spec, option)
        need(_is_duration(text) or (option == "run_time" and not text), option, text, behaviour.ALLOWED)
    need(0 <= spec.failure_rate <= 1, "failure_rate", spec.failure_rate, "0 to 1")
    need(0 <= spec.seed < 2**32, "seed", spec.seed, "0 to 4294967295")
    for fault in spec.faults:
        need(fault.action in ACTIONS, "faults.action", fault.action, " or ".join(ACTIONS))
        need(0 <= fault.share <= 1, "faults.share", fault.share, "0 to 1")
        need(0 <= fault.after <= 86400, "faults.after", fault.after, "0 to 86400 seconds")
        need(0 <= fault.duration <= 86400, "faults.duration", fault.duration, "0 to 86400 seconds")
    need(bool(_QUANTITY.fullmatch(spec.cpu)), "capacity.cpu", spec.cpu, "a quantity such as 2 or 1500m")
    need(bool(_QUANTITY.fullmatch(spec.memory)), "capacity.memory", spec.memory, "a quantity such as 64Gi")
    need(1 <= spec.pods <= 100_000, "capacity.pods", spec.pods, "1 to 100000")
    need(2 <= spec.connections <= 256, "connections", spec.connections, "2 to 256")
    need(1 <= spec.hosts <= 1024, "hosts", spec.hosts, "1 to 1024")
    need(
        0 <= spec.host < spec.hosts,
        "host",
        spec.host,
        f"0 to {spec.hosts - 1}, the number of one of {spec.hosts} hosts",
    )
    each, odd = divmod(spec.processes, spec.hosts)
    need(1 <= each <= 64 and not odd, "processes", spec.processes, "1 to 64" + " on each host" * (spec.hosts > 1))
    need(0 <= spec.images <= 500, "images", spec.images, "0 to 500")
    last = 65536 - spec.processes  # each process has a port of its own
    need(1 <= spec.serve_port <= last, "serve_port", spec.serve_port, f"1 to {last}")
    need(0 <= spec.metrics_port <= last, "metrics_port", spec.metrics_port, f"0 to {last}")
    need(not spec.serve or spec.engine == "builtin", "serve", spec.serve, f"false with engine {spec.engine}")
    _check_usage(spec, need)
    roomy = addresses.node_room(spec.node_ips) >= spec.count
    need(roomy, "node_ip_range", spec.node_ips, f"an IPv4 CIDR with 256 addresses more than the {spec.count} vnodes")
    if spec.engine != "builtin":
        from ..engines import limits  # here: what other engines cannot do is none of this one's memory

        if words := limits.refusal(spec):
            raise SpecError(words)
    return spec


def _check_usage(spec: Spec, need: Callable[[bool, str, object, str], None]) -> None:
    from .server import usage  # here: an engine that does not serve never needs it

    need(usage.is_usage(spec.pod_cpu_usage), "pod_cpu_usage", spec.pod_cpu_usage, usage.ALLOWED)
    text = spec.pod_memory_usage
    need(not text or usage.is_usage(text), "pod_memory_usage", text, f"{usage.ALLOWED}; empty for half of the request")


def _is_duration(text: str) -> bool:
    try:
        behaviour.parse(text)
    except ValueError:
        return False
    return True
