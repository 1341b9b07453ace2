"""What one scrape of /metrics costs: the component that writes it, and us who read it.

    python bench/scrape/run.py [--pods 2048] [--times 60] [--target target.json]

Without `--target`, one real control plane is made, and 64 vnodes with so many pods on it, so that its metrics are those
of a server that has worked. Each component's CPU is what /proc tells, less what it uses in as long a time without
scrapes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.fleet.gauge import cpu
from tests.integration.control_plane import control_plane
from tests.integration.fleets import Fleet
from turbokube.api.credentials import Credential
from turbokube.api.target import Component, Target, load_target
from turbokube.daemon import process
from turbokube.measure import scrape
from turbokube.vnode.spec import Spec

KINDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
_VNODES = 64


class Cost(NamedTuple):
    """Of one component: the size of its answer, and CPU and time per scrape."""

    component: str
    kilobytes: float
    theirs_ms: float
    ours_ms: float
    answer_ms: float


@contextlib.contextmanager
def loaded(pods: int) -> Iterator[tuple[Target, Path]]:
    """A control plane that has made so many pods run, and its state."""
    with control_plane() as plane:
        fleet = Fleet(plane, Spec(run="scrape", count=_VNODES, placement="cluster"))
        fleet.present()
        try:
            with fleet.carrying(pods, 300.0):
                yield fleet.target, plane.state
        finally:
            fleet.absent()


async def costs(target: Target, state: Path, times: int) -> list[Cost]:
    """Each component in turn."""
    own = {one.name: one.pid for one in process.marked(state)}
    there = [one for one in target.components if one.kind in KINDS and one.name in own]
    return [await cost(target.credential("scraper"), one, own[one.name], times) for one in there]


async def cost(credential: Credential, component: Component, pid: int, times: int) -> Cost:
    """CPU per scrape, as fast as they come, beside as long a time without any."""
    transport = scrape.connect(credential, component)
    wanted = scrape.families(component.kind)
    try:
        await transport.request("GET", component.metrics_path)
        before, mine, began = cpu([pid]), time.process_time(), time.monotonic()
        waited = 0.0
        for _ in range(times):
            asked = time.monotonic()
            body = (await transport.request("GET", component.metrics_path)).checked().body
            waited += time.monotonic() - asked
            scrape.read(body, wanted)
        used, ours, took = cpu([pid]) - before, time.process_time() - mine, time.monotonic() - began
        before = cpu([pid])
        await asyncio.sleep(took)
        used -= cpu([pid]) - before
    finally:
        await transport.close()
    each = 1e3 / times
    return Cost(component.name, len(body) / 1e3, used * each, ours * each, waited * each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=2048)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--target", type=Path, help="of a control plane that runs here, with its state beside it")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.target:
            target, state = load_target(options.target), options.target.parent
        else:
            target, state = stack.enter_context(loaded(options.pods))
        found = uvloop.run(costs(target, state, options.times))
    print("| component | answer, kB | its CPU per scrape, ms | ours, ms | answered in, ms |\n|---|---|---|---|---|")
    for one in found:
        numbers = (one.kilobytes, one.theirs_ms, one.ours_ms, one.answer_ms)
        print(f"| {one.component} |", " | ".join(f"{value:,.1f}" for value in numbers), "|")


if __name__ == "__main__":
    main()
