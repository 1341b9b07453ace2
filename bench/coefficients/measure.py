"""Measure the costs of src/turbokube/predict/coefficients.json on this machine: one command, about 10 minutes.

    python -m bench.coefficients.measure --write
    python -m bench.coefficients.measure --write --fidelity kubelet

A control plane of its own, a fleet of N and then 4N vnodes; with each it idles, takes 16 pods for each of N vnodes,
and idles again. All is scraped into one bundle, to which fit.py fits the costs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import msgspec

from bench.coefficients import fit
from tests.integration.control_plane import control_plane
from turbokube.agent.client import AgentClient
from turbokube.api.target import Component, Target, load_target
from turbokube.bundle.writer import FILE
from turbokube.predict import coefficients
from turbokube.profile.phases import Create, ObjectSet, pods_of
from turbokube.profile.schema import Profile, validate
from turbokube.vnode import fleet
from turbokube.vnode.spec import FIDELITIES, Spec

ROOT = Path(__file__).resolve().parents[2]
WIDER = 4  # heartbeats are told from idling by fleets of so different a size
RUN = "coefficients"
SCRAPE_S = 5.0


class Bench:
    """One control plane, one fleet, one bundle."""

    def __init__(self, target: Target, state: Path, bundle: Path, profile: Profile) -> None:
        self.target = target
        self.state = state
        self.profile = profile
        self.agent = AgentClient(state, bundle, "bench/coefficients")
        self.namespaces = 0

    def grow(self, namespaces: int) -> None:
        """Have the vnodes of so many namespaces."""
        one = self.profile
        spec = Spec(
            run=RUN,
            count=namespaces * one.vnodes_per_namespace,
            vnodes_per_namespace=one.vnodes_per_namespace,
            lease_interval=one.lease_interval_s,
            lease_duration=one.lease_duration_s,
            status_interval=one.status_interval_s,
            cpu=one.vnode_cpu,
            fidelity=one.fidelity,
        )
        say(f"{spec.count} vnodes join")
        result = fleet.present(lambda: self.target, self.state, spec)
        if self.agent.ensure():
            metrics = Component(name="fleet", kind="fleet", url=str(result.metrics_url).removesuffix("/metrics"))
            self.agent.open(
                {
                    "run": RUN,
                    "profile": one.settings(),
                    "target": msgspec.to_builtins(self.target),
                    "scrape_interval": SCRAPE_S,
                    "extra_components": [msgspec.to_builtins(metrics)],
                }
            )

    def idle(self, seconds: float) -> None:
        """Leases alone."""
        say(f"idle for {seconds:.0f} s")
        time.sleep(seconds)

    def load(self, namespaces: int) -> None:
        """Pods in the namespaces up to this number that have none."""
        one = self.profile
        phase = Create(
            run=RUN,
            name=f"load-{namespaces}",
            namespaces=namespaces - self.namespaces,
            first_namespace=self.namespaces,
            objects=(ObjectSet(name="turbokube", count=one.deployments_per_namespace, replicas=one.replicas),),
        )
        say(f"{pods_of(phase)} pods")
        answer = self.agent.call("submit", phases=[msgspec.to_builtins(phase)])
        while answer["progress"][0]["state"] == "running":
            answer = self.agent.call("follow", names=[phase.name], wait=5.0)
            say(f"  {answer['lines'][0]}")
        progress = answer["progress"][0]
        if progress["state"] != "done":
            sys.exit(f"the load ended as {progress['state']}: {progress['note']}")
        self.namespaces = namespaces

    def finish(self) -> None:
        """The bundle is whole."""
        self.agent.call("finish", timeout=120.0)


def say(line: str) -> None:
    """A line with the time."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def measure(bundle: Path, profile: Profile, idle: float) -> None:
    """Make the bundle."""
    say("control plane starts")
    with control_plane() as plane:
        bench = Bench(load_target(plane.target), plane.state, bundle, profile)
        for step, vnodes_for in enumerate((profile.namespaces, WIDER * profile.namespaces), start=1):
            bench.grow(vnodes_for)
            bench.idle(idle)
            bench.load(step * profile.namespaces)
            bench.idle(idle / 2)
        bench.finish()


def _command(options: argparse.Namespace) -> str:
    """What was asked for, as it can be asked for again."""
    size = f"--namespaces {options.namespaces} --deployments {options.deployments} --idle {options.idle:g}"
    return f"python -m bench.coefficients.measure {size} --fidelity {options.fidelity}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the preflight's coefficients on this machine.")
    parser.add_argument("--namespaces", type=int, default=32, help="N/8: 8 vnodes for each (32)")
    parser.add_argument("--deployments", type=int, default=16, help="per namespace, of 8 replicas (16)")
    parser.add_argument("--idle", type=float, default=120.0, help="seconds of leases alone (120)")
    parser.add_argument("--fidelity", choices=FIDELITIES, default="lease", help="above lease: the CPU there alone")
    parser.add_argument("--bundle", type=Path, default=ROOT / "runs" / RUN, help="where the bundle goes, anew")
    parser.add_argument("--write", action="store_true", help=f"replace {fit.OUTPUT.name}")
    options = parser.parse_args()
    settings = {
        "namespaces": options.namespaces,
        "deployments_per_namespace": options.deployments,
        "fidelity": options.fidelity,
    }
    profile = validate({f"turbokube_{name}": value for name, value in {**settings, "profile": RUN}.items()})
    if (options.bundle / FILE).exists():  # of the last time
        shutil.rmtree(options.bundle)
    measure(options.bundle, profile, options.idle)
    found = fit.fit([fit.read(options.bundle)], coefficients.load(), _command(options))
    print(fit.table(found))
    if options.write:
        fit.write(found)


if __name__ == "__main__":
    main()
