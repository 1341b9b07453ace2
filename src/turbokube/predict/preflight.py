"""What is looked at before anything starts. Reads only, but for a nameless file that times the disk."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turbokube.api.credentials import CredentialError, from_kubeconfig
from turbokube.bundle import runs, trace
from turbokube.bundle.writer import BundleError
from turbokube.daemon import process
from turbokube.engines import limits
from turbokube.load.check import groups, prepared
from turbokube.load.phase import LoadError
from turbokube.predict import capacity, coefficients, machine
from turbokube.profile.phases import Phase, Replay, words
from turbokube.profile.schema import PREFIX, Profile, ProfileError, as_options, validate
from turbokube.supervise.ports import listening, recorded_ports

# Sizes of the binaries, unpacked, and of a build of them with its caches; both measured for Kubernetes 1.36.3.
BINARIES_BYTES = 500_000_000
BUILD_BYTES = 6_000_000_000


@dataclass(kw_only=True)
class Preflight:
    """What was found. `problems` always end a play; `refusals` do unless turbokube_preflight is warn."""

    profile: Profile | None = None
    run: str = ""
    run_state: str = ""  # new, unfinished
    state_dir: str = ""
    bundle: str = ""
    load_groups: list[str] = field(default_factory=list)  # API groups of what phases create
    plan: list[str] = field(default_factory=list)
    forecast: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def preflight(settings: dict[str, Any], home: Path, layout: Mapping[str, int] | None = None) -> Preflight:
    """Check settings against the schema, and what they ask for against this machine.

    `settings`: every turbokube_* variable that is set. `layout`: how many components of each kind this machine runs;
    one of each when None. Raises nothing for what a user can cause.
    """
    found = Preflight()
    try:
        profile = found.profile = validate(settings)
    except ProfileError as error:
        found.problems = error.problems
        return found
    home = home.expanduser().absolute()
    folder = machine.existing(home)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        found.problems = [f"turbokube_home is {home}, but {folder} must be a folder that you may write to"]
        return found
    _resolve(found, profile, home)
    _look_around(found, profile)
    here = dict(capacity.ONE_MACHINE if layout is None else layout)
    if profile.kubeconfig:
        here = {kind: count for kind, count in here.items() if kind in ("fleet", "agent")}
    elif profile.store != "etcd" and "etcd" in here:
        here[profile.store] = here.pop("etcd")
    carrier = machine.look(home, cache_folder(), Path(found.state_dir))
    verdict = capacity.judge(profile, carrier, here, coefficients.load())
    found.plan = _plan(found, profile, here)
    found.forecast = capacity.describe(profile, carrier, verdict.prediction)
    found.refusals += [verdict.refusal] if verdict.refusal else []
    found.warnings += verdict.warnings
    if not profile.kubeconfig and not profile.binaries:
        _cache(found, profile, carrier)
    return found


def cache_folder() -> Path:
    """Where binaries are cached: TURBOKUBE_CACHE, else turbokube in the user's cache folder."""
    if named := os.environ.get("TURBOKUBE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turbokube"


def _resolve(found: Preflight, profile: Profile, home: Path) -> None:
    """The run that this is: a new one, the interrupted one, or the next of a finished one's name."""
    name = profile.run or profile.profile
    bundles = home / "runs"
    try:
        run = runs.resolve(bundles, name, profile.settings())
    except (BundleError, OSError) as error:
        found.problems.append(f"turbokube_run is {name}, but {error}")
        run = runs.Run(name, bundles / name, "unfinished")
    found.run, found.run_state, found.bundle = run.name, run.state, str(run.folder)
    found.state_dir = str(home / ".turbokube" / run.name)
    if run.name != name and process.marked(home / ".turbokube" / name):
        found.warnings.append(
            f"run {name} is finished, but its processes still run and share this machine; "
            f"playbooks/teardown.yml -e turbokube_run={name} ends them"
        )


def _look_around(found: Preflight, profile: Profile) -> None:
    """Files and ports that the settings name."""
    if profile.binaries and not Path(profile.binaries).expanduser().is_dir():
        found.problems.append(f"turbokube_binaries is {profile.binaries}, but it must be a folder that holds them")
    if profile.template and not os.access(Path(profile.template).expanduser(), os.R_OK):
        found.problems.append(f"turbokube_template is {profile.template}, but it must be a file that you may read")
    for phase in (phase for group in profile.groups() for phase in group):
        try:
            found.load_groups = sorted({*found.load_groups, *groups(prepared(phase))})
        except LoadError as error:
            found.problems.append(f"turbokube_phases cannot be carried out, since in {error}")
    if profile.kubeconfig:
        try:
            from_kubeconfig(profile.kubeconfig, profile.context or None)
        except CredentialError as error:
            found.problems.append(f"turbokube_kubeconfig is {profile.kubeconfig}, but {error}")
    found.problems += _engine_problems(profile)
    if profile.engine == "kubemark":  # hollow-node has no option for another address, TLS or who may ask
        found.warnings.append(
            "turbokube_engine is kubemark: its hollow kubelets listen on every address, to everybody and without TLS, "
            "so the fleet's host needs a firewall"
        )
    ours = recorded_ports(Path(found.state_dir)).values()
    for name, port in profile.ports.items():
        if port not in ours and (holder := listening(port)):
            found.problems.append(
                f"turbokube_ports has {port} for {name}, but {holder} listens on it; "
                "give another, or none to have a free one"
            )


# options of a fleet → the variables that they are set with, as far as engines differ in them
_OF_ENGINES = {
    "fidelity": "fidelity",
    "lease_interval": "lease_interval_s",
    "lease_duration": "lease_duration_s",
    "status_interval": "status_interval_s",
    "cpu": "vnode_cpu",
    "memory": "vnode_memory",
    "processes": "fleet_processes",
    "serve": "kubelet_server",
}


def _engine_problems(profile: Profile) -> list[str]:
    """What does not go together with the engine, and what would."""
    if profile.engine == "virtual_kubelet" and not profile.engine_binary:
        return [
            "turbokube_engine_binary is empty, but turbokube_engine is virtual_kubelet: it must be the binary's path"
        ]
    options = {option: getattr(profile, name) for option, name in _OF_ENGINES.items()}
    wrong = {_OF_ENGINES[name]: value for name, (value, _) in limits.mismatches(profile.engine, options).items()}
    if profile.engine in ("kubemark", "virtual_kubelet") and profile.start_delay != "0":
        wrong["start_delay"] = "0"
    if not wrong:
        return []
    given = ", ".join(f"{PREFIX}{name} {getattr(profile, name)}" for name in wrong)
    together = as_options({PREFIX + name: value for name, value in wrong.items()})
    return [f"turbokube_engine is {profile.engine}, not to be had with {given}; what belongs together is {together}"]


def _cache(found: Preflight, profile: Profile, carrier: machine.Machine) -> None:
    """Room for binaries that are not there yet."""
    system = platform.system().lower()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    folder = cache_folder() / "bin" / f"{system}-{architecture}" / f"kubernetes-{profile.kubernetes_version}"
    if (folder / "kube-apiserver").exists() or carrier.cache_free >= BUILD_BYTES:
        return
    free = f"the cache of binaries, {cache_folder()}, has {carrier.cache_free / 1e9:.1f} GB free"
    if carrier.cache_free < BINARIES_BYTES:
        found.refusals.append(
            f"{free}, but the binaries take {BINARIES_BYTES / 1e9:.1f} GB; set TURBOKUBE_CACHE to a folder "
            "with more room, or turbokube_binaries to a folder that holds them"
        )
    else:
        found.warnings.append(
            f"{free}, which is enough for a download but not for a build ({BUILD_BYTES / 1e9:.0f} GB)"
        )


def _plan(found: Preflight, profile: Profile, layout: Mapping[str, int]) -> list[str]:
    """What will be made, in lines for a person."""
    going_on = "goes on where it stopped" if found.run_state == "unfinished" else "is new"
    if profile.kubeconfig:
        target = f"the cluster of {profile.kubeconfig}"
    else:
        parts = [f"{count} {kind}" for kind, count in layout.items() if kind not in ("fleet", "agent") and count]
        extra = f" and {profile.schedulers} extra" if profile.schedulers else ""
        target = f"Kubernetes {profile.kubernetes_version}: {', '.join(parts) or 'on hosts of its own'}{extra}"
    return [
        f"run: {found.run} {going_on}; its record is {found.bundle}",
        f"target: {target}",
        f"fleet: {profile.vnodes} vnodes, {profile.vnodes_per_namespace} for each of {profile.namespaces} namespaces; "
        f"engine {profile.engine}, fidelity {profile.fidelity}, a lease renewed every {profile.lease_interval_s:g} s",
        *_load(profile),
    ]


def _traced(phase: Phase, vnodes: int) -> str:
    """What a replay's trace holds."""
    if not isinstance(phase, Replay) or not (most := trace.pods_in(phase.trace, vnodes)[0]):
        return ""
    header = trace.read_header(phase.trace)
    return f" ({header.operations} operations in {header.seconds / phase.speed:.0f} s, at most {most} pods at once)"


def _load(profile: Profile) -> list[str]:
    """The phases in their order; those side by side have the same number."""
    if profile.phases:
        groups = enumerate(profile.groups(), start=1)
        phases = ((number, phase) for number, group in groups for phase in group)
        return [f"phase {number}: {words(phase)}{_traced(phase, profile.vnodes)}" for number, phase in phases]
    steps = f", in {profile.steps} steps" if profile.steps > 1 else ""
    return [
        f"load: {profile.deployments} deployments of {profile.replicas} replicas, {profile.pods} pods, "
        f"{profile.concurrency} namespaces at once{steps}"
    ]
