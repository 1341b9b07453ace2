# ruff: noqa: RUF009 (variable() makes a field)
"""What a user may set: every `turbokube_*` variable with its type, bounds, default and description. The one source:
playbooks/profiles/base.yml and docs/variables.md are made from it, and a test holds them equal."""

from __future__ import annotations

import difflib
import functools
import ipaddress
import math
from dataclasses import dataclass, fields
from typing import Any

from turbokube.bundle.trace import pods_in
from turbokube.profile.limits import check_limits
from turbokube.profile.machines import CORE_HOUR_USD, check_machines
from turbokube.profile.phase_input import Defaults, PhasesError, parse
from turbokube.profile.phases import Create, Phase, most_pods
from turbokube.profile.rules import Rule, convert, quantity, rule, variable

PREFIX = "turbokube_"

# The node lifecycle controller looks every 5 s (--node-monitor-period) and a renewal may be seconds late.
# With less room than one lost renewal and these 10 s nodes flap: with a 50 s lease and the default grace period of
# 50 s, evictions were seen to begin and the throughput to fall to 3-30 pods/s.
LEASE_MARGIN_S = 10.0
# The kubelet's own proportions: interval 10 s, duration 40 s (kubelet/pkg/nodelease: renewed at a quarter of it), grace
# period 50 s (--node-monitor-grace-period since 1.32). What the messages suggest keeps them.
DURATION_PER_INTERVAL = 4.0
GRACE_PER_INTERVAL = 5.0

KUBEADM_SERVICE_SUBNET = "10.96.0.0/12"  # kubeadm's default (constants.DefaultServiceSubnet)
FIXED_PORTS = ("kube-apiserver-0", "etcd-0")
MOST_VNODES = 100_000  # an engine's
KUBEADM_MASK_DIFFERENCE = 16  # kubeadm refuses more (constants.PodSubnetNodeMaskMaxDiff)

# The name of a run is a folder, a label's value and part of process names.
NAME = {
    "pattern": r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?",
    "like": "lower-case letters, digits and dashes, 50 at most",
}
VERSION = {"pattern": r"[0-9]+\.[0-9]+\.[0-9]+([-+.][0-9A-Za-z.+-]+)?", "like": "a release such as 1.36.3"}


# The dated tables of SLOs (measure/limits.json)
SLOS = ("current", "slo-2022-04", "slo-2018-05")
# A fault's fields with their bounds, and what it may do (vnode/faults.py)
FAULT = {"after": (0, 86400), "share": (0, 1), "action": (0, 0), "duration": (0, 86400)}
ACTIONS = ("silence", "not_ready", "disappear")


class ProfileError(Exception):
    """Settings that cannot be used. `problems`: a sentence each, naming the variable, the value and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


# The parts of the reference, each by the variable that it begins with.
SECTIONS = {
    "turbokube_profile": "The run",
    "turbokube_namespaces": "The size",
    "turbokube_concurrency": "The load",
    "turbokube_engine": "The fleet",
    "turbokube_kubernetes_version": "The target",
    "turbokube_kubeconfig": "An existing cluster",
    "turbokube_guard_store": "Guard rails",
    "turbokube_scrape_interval_s": "The record",
    "turbokube_machines": "What it costs",
}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The settings of a run, checked. A field `x` is the variable `turbokube_x`; durations are in seconds."""

    # The run
    profile: str = variable("quickstart", "Name of the profile: the file of that name in playbooks/profiles.", **NAME)
    run: str = variable("", "Name of the run; empty: the profile's name.", **NAME, empty=True)
    home: str = variable("", "Folder that holds .turbokube/ and runs/; empty: where ansible-playbook is started.")
    preflight: str = variable(
        "enforce",
        "Whether a machine that cannot carry the profile ends the play or is only warned about.",
        choices=("enforce", "warn"),
    )
    collect_on: str = variable(
        "auto",
        "When objects, events and logs are dumped; auto: when the verdict is not PASS.",
        choices=("auto", "always", "never"),
    )
    fail_on_verdict: bool = variable(False, "Whether a verdict other than PASS fails the play.")
    slo: str = variable(
        "current",
        "The SLOs that a run is judged by, dated: those of today, or of before the one for LIST was moved.",
        choices=SLOS,
    )
    limits: dict[str, Any] = variable(
        {}, "Limits of the whole run beside the SLOs: {name: number}, as docs/verdict.md lists them."
    )

    # The size
    namespaces: int = variable(32, "Namespaces: the one knob of size.", least=1, most=65536)
    vnodes_per_namespace: int = variable(8, "Virtual nodes of a namespace.", least=1, most=1024)
    deployments_per_namespace: int = variable(32, "Deployments of a namespace.", least=1, most=4096)
    replicas: int = variable(8, "Pods of a deployment.", least=1, most=10000)

    # The load
    concurrency: int = variable(4, "Namespaces in work at once.", least=1, most=1024)
    rate: float = variable(0.0, "Deployments created per second; 0: as fast as they come to run.", least=0, most=100000)
    steps: int = variable(1, "Fleet and load grow in so many equal steps.", least=1, most=64)
    placement: str = variable(
        "namespace",
        "namespace: a namespace's pods run on its own vnodes (taint); cluster: on any vnode.",
        choices=("namespace", "cluster"),
    )
    template: str = variable("", "Path of a jinja2 template of the object to create; empty: the built-in Deployment.")
    automount_token: bool = variable(True, "Whether pods mount their ServiceAccount's token, as real ones do.")
    pod_memory: str = variable("32Mi", "Memory request of a pod; empty: none.", quantity=True, empty=True)
    pod_cpu: str = variable("", "CPU request of a pod; empty: none.", quantity=True, empty=True)
    start_delay: str = variable("0", "From a pod bound to a vnode until it runs.", duration=True)
    ready_delay: str = variable("0", "From a container's start until it is ready.", duration=True)
    run_time: str = variable("", "How long containers run; empty: until the pod is deleted.", duration=True, empty=True)
    stop_delay: str = variable(
        "0", "What containers of a deleted pod take to end, within its grace period.", duration=True
    )
    failure_rate: float = variable(
        0.0, "Share of containers' ends, after turbokube_run_time, that are failures.", least=0, most=1
    )
    seed: int = variable(0, "What decides all that is drawn on vnodes.", least=0, most=4294967295)
    deadline_s: int = variable(
        1800, "Seconds until a load phase, or the joining of its vnodes, is given up.", least=1, most=604800
    )

    phases: list[dict[str, Any]] = variable(
        [],
        "What is done, in order, once the whole fleet has joined; empty: the deployments above are created.",
        nested=True,
        like="a list of phases as docs/phases.md describes them",
    )
    phases_override: dict[str, Any] = variable(
        {},
        "Single values of phases, for the command line: {phase.field: value}.",
        nested=True,
        like="a dictionary of places and values such as {churn.rate: 5}",
    )

    # The fleet
    engine: str = variable(
        "builtin", "What runs the vnodes.", choices=("builtin", "kwok", "kubemark", "virtual_kubelet")
    )
    engine_binary: str = variable(
        "", "Path of another engine's binary; empty: kwok and kubemark are built and cached as other binaries are."
    )
    fidelity: str = variable(
        "lease", "How much of a node's traffic a vnode makes.", choices=("lease", "kubelet", "node")
    )
    join: str = variable(
        "certificate",
        "How vnodes get certificates of their own, above fidelity lease: signed by the run's CA, or by CSRs.",
        choices=("certificate", "csr"),
    )
    connections: int = variable(8, "Requests of the engine under way at once, beside leases.", least=2, most=256)
    fleet_processes: int = variable(1, "Engine processes that share the vnodes, by their numbers.", least=1, most=64)
    lease_interval_s: float = variable(10.0, "Seconds between renewals of a vnode's lease.", least=1, most=900)
    lease_duration_s: int = variable(40, "Duration that a lease claims.", least=2, most=3600)
    node_monitor_grace_s: int = variable(
        50, "Seconds without a renewal until the controller manager calls a node lost.", least=10, most=18000
    )
    status_interval_s: float = variable(300.0, "Seconds between reports of a vnode's status.", least=10, most=86400)
    kubelet_server: bool = variable(False, "Whether each vnode has a kubelet's server side, on loopback.")
    kubelet_port: int = variable(
        10250, "Its port; each engine process after the first has the next.", least=1, most=65472
    )
    node_ip_range: str = variable(
        "",
        "Addresses of the vnodes; empty: 172.16.0.0/12, with turbokube_kubelet_server 127.16.0.0/12.",
        subnet=True,
        empty=True,
    )
    pod_cpu_usage: str = variable("0", "CPU that a kubelet's metrics show of a pod: a quantity or a distribution.")
    pod_memory_usage: str = variable("", "Memory that they show of it; empty: half of its request.")
    faults: list[dict[str, Any]] = variable(
        [],
        "What befalls vnodes: {after: s since the fleet was complete, share: 0-1, action: silence, not_ready or "
        "disappear, duration: s, 0 for good}.",
    )
    vnode_cpu: str = variable("32", "CPU capacity of a vnode.", quantity=True)
    vnode_memory: str = variable("64Gi", "Memory capacity of a vnode.", quantity=True)
    vnode_images: int = variable(50, "Images that a Node lists, above fidelity lease.", least=0, most=500)
    vnode_pods: int = variable(1024, "Pod capacity of a vnode.", least=1, most=65536)

    # The target
    kubernetes_version: str = variable("1.36.3", "Kubernetes release of the target.", **VERSION)
    etcd_version: str = variable("3.7.3", "etcd release.", **VERSION)
    kine_version: str = variable("0.17.5", "kine release.", **VERSION)
    kwok_version: str = variable("0.8.0", "KWOK release, for turbokube_engine kwok.", **VERSION)
    binaries: str = variable("", "Folder with the binaries to use; empty: downloaded or built, and cached.")
    store: str = variable("etcd", "What the API server stores its objects in.", choices=("etcd", "kine"))
    etcd_quota_bytes: int = variable(
        8589934592, "Backend quota of etcd; 8 GiB is the most that etcd advises.", least=67108864, most=1099511627776
    )
    client_qps: float = variable(
        16000.0, "Requests per second that scheduler and controller manager allow themselves.", least=1, most=1000000
    )
    client_burst: int = variable(24000, "Burst above it.", least=1, most=1000000)
    schedulers: int = variable(
        0, "Extra schedulers; namespace i uses number i modulo this; 0: the default scheduler alone.", least=0, most=256
    )
    max_requests_inflight: int = variable(
        0, "API server's limit of reads in flight; 0: its default.", least=0, most=100000
    )
    max_mutating_requests_inflight: int = variable(
        0, "API server's limit of writes in flight; 0: its default.", least=0, most=100000
    )
    watch_cache: bool = variable(True, "Whether the API server serves reads and watches from its cache.")
    pod_subnet: str = variable("10.128.0.0/9", "Addresses that nodes get their pod ranges from.", subnet=True)
    node_cidr_mask: int = variable(24, "Prefix length of a node's pod range.", least=9, most=30)
    ports: dict[str, Any] = variable(
        {}, "Fixed loopback ports of kube-apiserver-0 and etcd-0; every other port is a free one."
    )
    apiserver_args: dict[str, Any] = variable({}, "Extra flags of kube-apiserver, without dashes.")
    controller_manager_args: dict[str, Any] = variable({}, "Extra flags of kube-controller-manager.")
    scheduler_args: dict[str, Any] = variable({}, "Extra flags of kube-scheduler.")
    etcd_args: dict[str, Any] = variable({}, "Extra flags of etcd.")
    apiserver_env: dict[str, Any] = variable({}, "Environment of kube-apiserver, such as GOGC or GOMEMLIMIT.")
    controller_manager_env: dict[str, Any] = variable({}, "Environment of kube-controller-manager.")
    scheduler_env: dict[str, Any] = variable({}, "Environment of kube-scheduler.")
    etcd_env: dict[str, Any] = variable({}, "Environment of etcd.")

    # An existing cluster
    kubeconfig: str = variable("", "Kubeconfig of an existing cluster to load; empty: a control plane is started.")
    context: str = variable("", "Its context; empty: the current one.")
    shared_target: bool = variable(False, "Whether an existing cluster with nodes of its own may be loaded.")

    # Guard rails: what ends a load before its time (docs/guards.md)
    guard_store: float = variable(
        0.95, "Share of its quota that etcd's file may fill before the load is stopped; 0: any.", least=0, most=1
    )
    guard_outage_s: float = variable(
        300.0,
        "Seconds without an answer of any API server after which the load is stopped; 0: never.",
        least=0,
        most=604800,
    )
    guard_notready: float = variable(
        0.55,
        "Share of the vnodes that may be NotReady before it is, beside those of turbokube_faults; 0: all.",
        least=0,
        most=1,
    )
    guard_memory: str = variable(
        "256Mi", "Memory that must stay available on the admin's machine; empty: none.", quantity=True, empty=True
    )
    guard_disk: str = variable(
        "256Mi",
        "Space that must stay free there for .turbokube and runs; empty: none.",
        quantity=True,
        empty=True,
    )

    # The record
    scrape_interval_s: float = variable(15.0, "Seconds between scrapes of every component.", least=1, most=300)

    # What it costs
    machines: list[dict[str, Any]] = variable(
        [],
        "Machines that the run keeps busy: {name: text, count: 1, cores: of one, usd_per_hour: of one}; "
        "empty: the agent's, where all that is known of runs on it.",
    )
    price_core_hour_usd: float = variable(
        CORE_HOUR_USD, "USD for an hour of a core of machines that have no price of their own.", least=0, most=1000
    )
    budget_usd: float = variable(
        0.0,
        "USD that hosts of a cloud may cost, all hours of the plan; what costs more is not bought.",
        least=0,
        most=1e6,
    )

    @property
    def vnodes(self) -> int:
        """Virtual nodes of the whole run."""
        return self.namespaces * self.vnodes_per_namespace

    @property
    def deployments(self) -> int:
        """Deployments of the whole run, when it has no phases of its own."""
        return self.namespaces * self.deployments_per_namespace

    @property
    def pods(self) -> int:
        """The most pods that there are at any time."""
        return self._most_pods[0]

    @property
    def pods_per_vnode(self) -> int:
        """The most pods that a vnode gets when they are spread evenly, rounded up."""
        everywhere, somewhere = self._most_pods
        alone = self.placement == "namespace" or not self.phases
        return math.ceil(somewhere / self.vnodes_per_namespace if alone else everywhere / self.vnodes)

    @functools.cached_property
    def _most_pods(self) -> tuple[int, int]:
        if not self.phases:
            each = self.deployments_per_namespace * self.replicas
            return self.namespaces * each, each
        return most_pods(self.groups(), self.namespaces, lambda phase: pods_in(phase.trace, self.vnodes))

    def groups(self) -> list[tuple[Phase, ...]]:
        """The phases, overridden and with these settings where they say nothing. Raises PhasesError."""
        return parse(self.phases, self.phase_defaults(), self.phases_override)

    def phase_defaults(self) -> Defaults:
        """What a phase has where it says nothing."""
        return Defaults(
            run=self.run,
            seed=self.seed,
            namespaces=self.namespaces,
            deployments=self.deployments_per_namespace,
            replicas=self.replicas,
            concurrency=self.concurrency,
            deadline=float(self.deadline_s),
            template=self.template,
            placement="namespace" if self.placement == "namespace" else "cluster",
            schedulers=self.schedulers,
            automount_token=self.automount_token,
            pod_memory=self.pod_memory,
            pod_cpu=self.pod_cpu,
        )

    @property
    def leases_per_second(self) -> float:
        """Lease renewals per second of the whole fleet."""
        return self.vnodes / self.lease_interval_s

    def settings(self) -> dict[str, Any]:
        """Every variable by its full name, as `validate` takes it."""
        return {PREFIX + field.name: getattr(self, field.name) for field in fields(self)}


def variables() -> dict[str, Rule]:
    """Every variable by its full name, in the order of the reference."""
    return {PREFIX + field.name: rule(field) for field in fields(Profile)}


def validate(settings: dict[str, Any]) -> Profile:
    """Settings as they come from inventory, profile and -e (text included) → Profile; what is not set has its default.

    Raises ProfileError with every problem at once.
    """
    known = variables()
    problems = [_unknown(name, known) for name in settings if name not in known]
    values: dict[str, Any] = {}
    for name, one in known.items():
        try:
            values[name] = convert(name, one, settings.get(name, one.default))
        except ValueError as error:
            problems.append(str(error))
            values[name] = one.default
    profile = Profile(**{name.removeprefix(PREFIX): value for name, value in values.items()})
    problems += _phase_problems(profile) if not problems else []
    if not problems:  # a default in the place of a bad value would make the sentences below wrong
        problems = [
            *check_limits(f"{PREFIX}limits", profile.limits),
            *check_machines(f"{PREFIX}machines", profile.machines),
            *_fault_problems(profile),
            *_port_problems(profile),
            *_lease_problems(profile),
            *_capacity_problems(profile),
        ]
        if not profile.kubeconfig:
            problems += _address_problems(profile)
    if problems:
        raise ProfileError(problems)
    return profile


def lease_settings(interval: float) -> dict[str, int]:
    """The three lease variables that belong together for an interval, in the kubelet's proportions."""
    return {
        "turbokube_lease_interval_s": math.ceil(interval),
        "turbokube_lease_duration_s": math.ceil(interval * DURATION_PER_INTERVAL),
        "turbokube_node_monitor_grace_s": math.ceil(interval * GRACE_PER_INTERVAL),
    }


def pod_ranges(profile: Profile) -> tuple[int, int]:
    """How many nodes turbokube_pod_subnet has ranges for, and how many addresses for pods each range has."""
    mask = profile.node_cidr_mask
    return 2 ** (mask - ipaddress.ip_network(profile.pod_subnet).prefixlen), 2 ** (32 - mask) - 2


def as_options(settings: dict[str, Any]) -> str:
    """Settings as a command line would give them: `-e a=1 -e b=2`."""
    return " ".join(f"-e {name}={value}" for name, value in settings.items())


def _unknown(name: str, known: dict[str, Rule]) -> str:
    bare = [one.removeprefix(PREFIX) for one in known]  # the prefix would make any two names look alike
    near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.6)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "docs/variables.md lists those that are."
    return f"{name} is not a variable of TurboKube; {hint}"


def _phase_problems(profile: Profile) -> list[str]:
    try:
        groups = profile.groups()
    except PhasesError as error:
        return error.problems
    if profile.phases and profile.steps > 1:
        return [f"turbokube_steps is {profile.steps}, but it must be 1 where turbokube_phases says what is done"]
    return [
        f"{phase.name} of turbokube_phases has namespaces up to number {phase.indices.stop - 1}, but "
        f"turbokube_namespaces is {profile.namespaces}, so that those from {profile.namespaces} on have no vnodes"
        for group in groups
        for phase in group
        if isinstance(phase, Create) and phase.placement == "namespace" and phase.indices.stop > profile.namespaces
    ]


def _fault_problems(profile: Profile) -> list[str]:
    problems = []
    for fault in profile.faults:
        wrong = [f"{name} is none of {', '.join(FAULT)}" for name in fault if name not in FAULT]
        for name, (least, most) in FAULT.items():
            value = fault.get(name, 0 if name == "duration" else None)
            if name == "action":
                if value not in ACTIONS:
                    wrong.append(f"action must be one of {', '.join(ACTIONS)}")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                wrong.append(f"{name} must be a number from {least} to {most}")
        problems += [f"turbokube_faults has {fault}, but {one}" for one in wrong]
    return problems


def _port_problems(profile: Profile) -> list[str]:
    problems = [
        f"turbokube_ports has {port!r} for {name}, but it must be a whole number from 1 to 65535"
        for name, port in profile.ports.items()
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535
    ]
    problems += [
        f"turbokube_ports has a port for {name}, but only those of {' and '.join(FIXED_PORTS)} can be fixed"
        for name in profile.ports
        if name not in FIXED_PORTS
    ]
    if len(set(profile.ports.values())) < len(profile.ports):
        problems.append(f"turbokube_ports is {profile.ports}, but each port must be another one")
    return problems


def _lease_problems(profile: Profile) -> list[str]:
    interval, duration, grace = profile.lease_interval_s, profile.lease_duration_s, profile.node_monitor_grace_s
    together = as_options(lease_settings(interval))
    problems = []
    if duration < 2 * interval:
        problems.append(
            f"turbokube_lease_duration_s is {duration}, but with a renewal every {interval:g} s it must be at least "
            f"{2 * interval:g}; what belongs together is {together}"
        )
    least = max(2 * interval + LEASE_MARGIN_S, duration)
    if grace < least:
        problems.append(
            f"turbokube_node_monitor_grace_s is {grace}, but with turbokube_lease_interval_s {interval:g} and "
            f"turbokube_lease_duration_s {duration} it must be at least {least:g}, since nodes flap when "
            f"renewals come near the grace period; what belongs together is {together}"
        )
    return problems


def _capacity_problems(profile: Profile) -> list[str]:
    pods = profile.pods_per_vnode
    problems = []
    if profile.vnodes > MOST_VNODES:
        problems.append(
            f"turbokube_namespaces is {profile.namespaces}, which with turbokube_vnodes_per_namespace "
            f"{profile.vnodes_per_namespace} makes {profile.vnodes} vnodes, but a fleet has {MOST_VNODES} at most"
        )
    if pods > profile.vnode_pods:
        problems.append(
            f"turbokube_vnode_pods is {profile.vnode_pods}, but {pods} pods come to each vnode "
            f"(turbokube_deployments_per_namespace x turbokube_replicas / turbokube_vnodes_per_namespace), so it must "
            f"be at least {pods}"
        )
    for resource in ("memory", "cpu"):
        request, capacity = getattr(profile, f"pod_{resource}"), getattr(profile, f"vnode_{resource}")
        if request and quantity(request) * pods > quantity(capacity):
            problems.append(
                f"turbokube_vnode_{resource} is {capacity}, but the {pods} pods of a vnode request {request} each "
                f"(turbokube_pod_{resource}), so it must be at least {pods} times that"
            )
    return problems


def _address_problems(profile: Profile) -> list[str]:
    subnet = ipaddress.ip_network(profile.pod_subnet)
    mask = profile.node_cidr_mask
    problems = []
    if subnet.overlaps(ipaddress.ip_network(KUBEADM_SERVICE_SUBNET)):
        problems.append(
            f"turbokube_pod_subnet is {subnet}, but it must not overlap that of the services, {KUBEADM_SERVICE_SUBNET}"
        )
    if not 0 <= mask - subnet.prefixlen <= KUBEADM_MASK_DIFFERENCE:
        problems.append(
            f"turbokube_node_cidr_mask is {mask}, but within turbokube_pod_subnet {subnet} it must be from "
            f"{subnet.prefixlen} to {subnet.prefixlen + KUBEADM_MASK_DIFFERENCE} (a limit of kubeadm)"
        )
    elif profile.vnodes > 2**KUBEADM_MASK_DIFFERENCE:
        problems.append(
            f"turbokube_namespaces is {profile.namespaces}, which makes {profile.vnodes} vnodes, but kubeadm's pod "
            f"subnets hold {2**KUBEADM_MASK_DIFFERENCE} nodes at most"
        )
    elif (held := pod_ranges(profile)[0]) < profile.vnodes:
        problems.append(
            f"turbokube_pod_subnet is {subnet}, which holds {held} nodes with turbokube_node_cidr_mask {mask}, but the "
            f"profile has {profile.vnodes} vnodes, so its prefix must be at most "
            f"/{mask - math.ceil(math.log2(profile.vnodes))}"
        )
    usable = pod_ranges(profile)[1]
    if usable < profile.pods_per_vnode:
        problems.append(
            f"turbokube_node_cidr_mask is {mask}, which gives a vnode {usable} addresses, but {profile.pods_per_vnode} "
            f"pods come to each, so it must be at most {32 - math.ceil(math.log2(profile.pods_per_vnode + 2))}"
        )
    return problems
