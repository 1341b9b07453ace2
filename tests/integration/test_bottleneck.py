"""Is what binds named, and was it predicted? A confusion matrix over real control planes, each with one thing wrong.

The test makes every experiment three times (about 25 minutes of a quiet machine). Parts of it, and fewer repeats:

    TURBOKUBE_EXPERIMENTS=store,apf-seats TURBOKUBE_REPEATS=1 pytest -s tests/integration/test_bottleneck.py
    python -m tests.integration.test_bottleneck [--keep FOLDER] [--repeats N] [experiment ...]

Slow syncs are made by strace, which must be in PATH and may trace (root, or kernel.yama.ptrace_scope 0).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane, provision, teardown
from turbokube.agent.client import AgentClient
from turbokube.api.target import load_target
from turbokube.bundle.reader import Reader
from turbokube.daemon import process
from turbokube.load.remove import remove
from turbokube.measure import bottleneck
from turbokube.measure.bottleneck import Bottleneck
from turbokube.measure.series import Metrics
from turbokube.predict import capacity, coefficients, machine
from turbokube.predict.caps import Cause, Level
from turbokube.profile.phases import Create, ObjectSet
from turbokube.profile.schema import Profile, validate
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec

RUN = "bottleneck"
SCRAPE_S = 2.0
SYNC_S = 0.2  # what strace adds to each fdatasync
ENOUGH = 17 / 18  # of the runs whose cause must be named first
WITHIN = 0.2  # of the prediction, by the median of an experiment's runs
UNBOUND = {"kube-api-qps": 16000, "kube-api-burst": 24000}

Around = Callable[[ControlPlane], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A control plane with one thing wrong. `settings` are a profile's variables, without prefix."""

    cause: str  # what is to be named; empty: nothing
    settings: dict[str, Any]
    around: Around = lambda plane: contextlib.nullcontext()
    levels: tuple[Level, ...] = ()
    sync_s: float = 0.0

    @property
    def profile(self) -> Profile:
        """All of its settings. Fewer connections than these would bind when the store is slow."""
        return validate({f"turbokube_{name}": value for name, value in {**COMMON, **self.settings}.items()})

    @property
    def plane(self) -> dict[str, Any]:
        """What the roles are told of them."""
        names = (
            "client_qps", "client_burst", "apiserver_env", "controller_manager_args"
        )  # fmt: skip
        return {f"control_plane_{name}": self.settings[name] for name in names if name in self.settings}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run was named and reached."""

    experiment: str
    named: str
    achieved: float
    predicted: float
    found: Bottleneck

    @property
    def ratio(self) -> float:
        return self.achieved / self.predicted


@contextlib.contextmanager
def slow_syncs(plane: ControlPlane) -> Iterator[None]:
    """Every fdatasync of etcd takes SYNC_S longer."""
    etcd = process.find(plane.state, "etcd-0")
    assert etcd is not None
    inject = f"inject=fdatasync:delay_exit={SYNC_S * 1e6:.0f}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject, "-p", str(etcd.pid)]
    tracer = subprocess.Popen(command)
    try:
        time.sleep(1.0)
        assert tracer.poll() is None, "strace may not trace here"
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()


# "rest" takes all but a few of the seats that levels share out; whoever may borrow borrows from it
FEW_SEATS = """
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: rest}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 1000, lendablePercent: 100, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: few}
spec:
  type: Limited
  limited:
    nominalConcurrencyShares: 1
    lendablePercent: 0
    borrowingLimitPercent: 0
    limitResponse: {type: Queue, queuing: {queues: 16, handSize: 4, queueLengthLimit: 500}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: few}
spec:
  matchingPrecedence: 200
  priorityLevelConfiguration: {name: few}
  distinguisherMethod: {type: ByUser}
  rules:
    - subjects:
        - {kind: Group, group: {name: "system:serviceaccounts:kube-system"}}
        - {kind: User, user: {name: "system:kube-scheduler"}}
        - {kind: User, user: {name: "turbokube:fleet"}}
        - {kind: User, user: {name: "turbokube:load"}}
      resourceRules:
        - {verbs: ["*"], apiGroups: ["*"], resources: ["*"], clusterScope: true, namespaces: ["*"]}
"""


@contextlib.contextmanager
def few_seats(plane: ControlPlane) -> Iterator[None]:
    """All that pods take goes through a level with one seat."""
    manifest = plane.state / "few.yaml"
    manifest.write_text(FEW_SEATS)
    plane.kubectl("apply", "-f", str(manifest))
    try:
        time.sleep(2.0)
        yield
    finally:
        plane.kubectl("delete", "-f", str(manifest))


COMMON = {"connections": 64, "replicas": 8, "profile": "bottleneck"}
SENDERS = ("kube-controller-manager", "kube-scheduler", "fleet", "load")
# Open loops ask for what a healthy plane on two cores does with ease
EXPERIMENTS = {
    "healthy": Experiment(cause="", settings={"rate": 4, "namespaces": 10, "deployments_per_namespace": 8}),
    "generator": Experiment(
        cause=Cause.GENERATOR,
        settings={
            "concurrency": 1,
            "namespaces": 24,
            "vnodes_per_namespace": 1,
            "deployments_per_namespace": 1,
            "start_delay": "0.5",
        },
    ),
    "store": Experiment(
        cause=Cause.STORE,
        settings={"rate": 3, "namespaces": 5, "deployments_per_namespace": 6},
        around=slow_syncs,
        sync_s=SYNC_S,
    ),
    "apf-seats": Experiment(
        cause=Cause.SEATS,
        settings={"rate": 6, "namespaces": 8, "deployments_per_namespace": 8},
        around=few_seats,
        levels=(Level(name="few", seats=1, senders=SENDERS),),
    ),
    "controller-manager-qps": Experiment(
        cause=Cause.CONTROLLER_MANAGER_QPS,
        settings={
            "rate": 4,
            "namespaces": 5,
            "deployments_per_namespace": 8,
            "controller_manager_args": {"kube-api-qps": 20, "kube-api-burst": 30},
        },
    ),
    "scheduler-qps": Experiment(
        cause=Cause.SCHEDULER_QPS,
        settings={
            "rate": 4,
            "namespaces": 4,
            "deployments_per_namespace": 8,
            "client_qps": 10,
            "client_burst": 10,
            "controller_manager_args": UNBOUND,
        },
    ),
    "apiserver-cpu": Experiment(
        cause=Cause.APISERVER_CPU,
        settings={
            "concurrency": 4,
            "namespaces": 8,
            "deployments_per_namespace": 24,
            "apiserver_env": {"GOMAXPROCS": "1"},
        },
    ),
}


def run(plane: ControlPlane, name: str, bundle: Path) -> Outcome:
    """One run of an experiment on a control plane that has its settings."""
    experiment = EXPERIMENTS[name]
    profile, target = experiment.profile, load_target(plane.target)
    spec = Spec(
        run=RUN,
        count=profile.vnodes,
        vnodes_per_namespace=profile.vnodes_per_namespace,
        connections=profile.connections,
        start_delay=profile.start_delay,
        cpu=profile.vnode_cpu,
    )
    url = str(fleet.present(lambda: target, plane.state, spec, timeout=120).metrics_url).removesuffix("/metrics")
    agent = AgentClient(plane.state, bundle, "test_bottleneck")
    agent.ensure()
    with experiment.around(plane):
        agent.open(
            {
                "run": RUN,
                "profile": profile.settings(),
                "target": msgspec.to_builtins(target),
                "scrape_interval": SCRAPE_S,
                "extra_components": [{"name": "fleet", "kind": "fleet", "url": url}],
            }
        )
        time.sleep(2 * SCRAPE_S)
        follow(agent, phase(profile))
    agent.call("finish", timeout=120.0)
    agent.gone()
    left = asyncio.run(remove(target, RUN, 120.0))
    assert (left["namespaces"], left["pods"]) == (0, 0)
    fleet.absent(target, plane.state, spec, timeout=120)
    return judge(name, experiment, bundle)


def phase(profile: Profile) -> Create:
    """The profile's load."""
    sets = ObjectSet(name="turbokube", count=profile.deployments_per_namespace, replicas=profile.replicas)
    return Create(
        run=RUN,
        name="create",
        namespaces=profile.namespaces,
        concurrency=profile.concurrency,
        rate=profile.rate,
        deadline=120.0,
        objects=(sets,),
    )


def follow(agent: AgentClient, load: Create) -> None:
    """Until the phase has ended."""
    answer = agent.call("submit", phases=[msgspec.to_builtins(load)])
    while answer["progress"][0]["state"] == "running":
        answer = agent.call("follow", names=[load.name], wait=5.0)
    assert answer["progress"][0]["state"] == "done", answer["lines"]


def judge(name: str, experiment: Experiment, bundle: Path) -> Outcome:
    """What the record says, and what the preflight would have."""
    with Reader(bundle) as reader:
        found = bottleneck.name(reader, Metrics(reader))
    assert found is not None
    here = machine.look(bundle, bundle)
    here = replace(here, sync_s=here.sync_s + experiment.sync_s)
    expected = capacity.predict(experiment.profile, here, capacity.ONE_MACHINE, coefficients.load(), experiment.levels)
    return Outcome(
        experiment=name,
        named=found.cause,
        achieved=found.achieved or 0.0,
        predicted=expected.pods_per_second,
        found=found,
    )


def matrix(names: list[str], repeats: int, folder: Path, state: Path) -> Iterator[Outcome]:
    """Every run; those that want the same control plane one after another."""
    planes: dict[str, list[str]] = {}
    for name in names:
        planes.setdefault(repr(EXPERIMENTS[name].plane), []).append(name)
    try:
        for alike in planes.values():
            plane = provision(state, **EXPERIMENTS[alike[0]].plane, etcd=1, apiservers=1)
            for number in range(repeats):
                for name in alike:
                    bundle = folder / f"{name}-{number}"
                    shutil.rmtree(bundle, ignore_errors=True)
                    yield run(plane, name, bundle)
    finally:
        process.stop([one for one in process.marked(state) if one.name == "agent"])
        teardown(state)


def words(outcome: Outcome) -> str:
    """A run in lines."""
    found = outcome.found
    lines = [
        f"{time.strftime('%H:%M:%S')} {outcome.experiment}: named {outcome.named or 'nothing'}; {found.words}; "
        f"predicted {outcome.predicted:.1f}, ratio {outcome.ratio:.2f}"
    ]
    lines += [f"    {line}" for line in found.evidence]
    lines += [f"    {one.cause} {one.score:.2f}: {'; '.join(one.evidence)}" for one in found.others]
    return "\n".join(lines)


def table(outcomes: list[Outcome]) -> str:
    """The confusion matrix: experiments down, what was named across, and how far predictions were off."""
    named = sorted({outcome.named for outcome in outcomes})
    rows = [["", *(one or "nothing" for one in named), "achieved ÷ predicted"]]
    for name in EXPERIMENTS:
        if own := [outcome for outcome in outcomes if outcome.experiment == name]:
            counts = [str(sum(outcome.named == one for outcome in own) or "") for one in named]
            rows.append([name, *counts, " ".join(f"{outcome.ratio:.2f}" for outcome in own)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@pytest.mark.slow
def test_what_binds_is_named_and_was_predicted(tmp_path: Path) -> None:
    names = os.environ.get("TURBOKUBE_EXPERIMENTS", "").split(",") if os.environ.get("TURBOKUBE_EXPERIMENTS") else []
    repeats = int(os.environ.get("TURBOKUBE_REPEATS", "3"))
    if shutil.which("strace") is None:
        pytest.skip("no strace in PATH, which slows the store's syncs")
    outcomes = []
    for outcome in matrix(names or list(EXPERIMENTS), repeats, tmp_path / "runs", tmp_path / "state"):
        outcomes.append(outcome)
        print(words(outcome), flush=True)
    print(table(outcomes))
    causes = [outcome for outcome in outcomes if EXPERIMENTS[outcome.experiment].cause]
    named = [outcome for outcome in causes if outcome.named == EXPERIMENTS[outcome.experiment].cause]
    assert len(named) >= ENOUGH * len(causes) - 1e-9, table(outcomes)
    assert not [outcome for outcome in outcomes if outcome.experiment == "healthy" and outcome.named], table(outcomes)
    for name in {outcome.experiment for outcome in outcomes}:  # one run differs from the next by as much as that
        ratio = statistics.median(outcome.ratio for outcome in outcomes if outcome.experiment == name)
        assert abs(ratio - 1) <= WITHIN, table(outcomes)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A confusion matrix of what binds and what is named.")
    parser.add_argument("experiments", nargs="*", choices=[[], *EXPERIMENTS], help="all of them by default")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the bundles")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        outcomes = []
        keep = options.keep or Path(folder) / "runs"
        for outcome in matrix(options.experiments or list(EXPERIMENTS), options.repeats, keep, Path(folder) / "state"):
            outcomes.append(outcome)
            print(words(outcome), flush=True)
        print(table(outcomes))


if __name__ == "__main__":
    main()
