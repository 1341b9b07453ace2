"""What the benches read: processes' CPU, memory and files; the API server's counts; nodes and pods that are ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.integration.control_plane import ControlPlane
from tests.integration.fleets import deployment
from turbokube import procfs
from turbokube.agent.facts import hardware
from turbokube.api.http1 import Http1
from turbokube.api.target import Target
from turbokube.api.watch import ListWatch
from turbokube.daemon import process
from turbokube.measure import scrape
from turbokube.vnode.objects import Node

WINDOW_S = 60.0  # of the lease band: the worst window of this length is told, as a report does
SAMPLE_S = 5.0  # seconds between two looks at the API server's counts while nothing but leases goes on
MB = 1e6


def conditions() -> dict[str, Any]:
    """Under what the numbers hold."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        **hardware(),
        "python": platform.python_version(),
        "commit": commit.strip(),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


# processes


def cpu(pids: Sequence[int]) -> float:
    """CPU seconds that processes have used."""
    return sum(procfs.stat(pid).cpu for pid in pids)


def memory(pids: Sequence[int], field: str = "VmRSS") -> float:
    """VmRSS or VmHWM of processes in MB of 1,000,000 bytes."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 / MB for line in lines if line.startswith(f"{field}:"))


def files(pids: Sequence[int]) -> int:
    """How many files and sockets the process has open that has most."""
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def component(plane: ControlPlane, name: str) -> list[int]:
    """The pids of a component of the control plane."""
    return [found.pid for found in process.marked(plane.state) if found.name.startswith(name)]


# the API server


@contextlib.asynccontextmanager
async def admin(target: Target, connections: int = 1) -> AsyncIterator[Http1]:
    """A transport of the admin."""
    credential = target.credential("admin")
    transport = Http1(credential, target.addresses(credential), size=connections)
    try:
        yield transport
    finally:
        await transport.close()


class Counts:
    """One look at the API server's metrics."""

    def __init__(self, text: bytes) -> None:
        self.time = time.monotonic()
        self._text = text

    def total(self, family: str, **labels: str) -> float:
        """The sum of a family's samples that have these labels; a value may name several: PUT|PATCH."""
        found = 0.0
        for _, sample, value in scrape.parse(self._text, family.encode()):
            text = sample.decode()
            if all(any(f'{key}="{each}"' in text for each in wanted.split("|")) for key, wanted in labels.items()):
                found += float(value)
        return found

    @property
    def renewals(self) -> float:
        """Lease renewals accepted, whoever's they are."""
        return self.total("apiserver_request_total", resource="leases", verb="PUT|PATCH|APPLY", code="200")

    def latency(self, resource: str, verb: str) -> tuple[float, float]:
        """Seconds that requests took in the API server, and how many they were."""
        name = "apiserver_request_duration_seconds"
        wanted = [f'{key}="{value}"'.encode() for key, value in (("resource", resource), ("verb", verb))]
        totals = dict.fromkeys((f"{name}_sum", f"{name}_count"), 0.0)
        for _, sample, value in scrape.parse(self._text, name.encode()):
            metric = sample.partition(b"{")[0].decode()
            if metric in totals and all(each in sample for each in wanted):
                totals[metric] += float(value)
        seconds, count = totals.values()
        return seconds, count


async def look(transport: Http1) -> Counts:
    """The API server's metrics now."""
    return Counts((await transport.request("GET", "/metrics")).checked().body)


async def _looks(target: Target, seconds: float) -> list[Counts]:
    found = []
    async with admin(target) as transport:
        end = time.monotonic() + seconds
        while True:
            found.append(await look(transport))
            if found[-1].time >= end:
                return found
            await asyncio.sleep(max(0.0, min(SAMPLE_S, end - time.monotonic())))


def looks(target: Target, seconds: float) -> list[Counts]:
    """The API server's metrics every few seconds for so long."""
    return asyncio.run(_looks(target, seconds))


def band(seen: Sequence[Counts], due: float, aside: float) -> dict[str, Any]:
    """Renewals made of those due (`due` per second) over all looks, and in the window of 60 s that is farthest from 1.

    `aside` renewals per second are no node's: leader elections, the API server's own.
    """

    def ratio(first: Counts, last: Counts) -> float:
        return ((last.renewals - first.renewals) / (last.time - first.time) - aside) / due

    windows = [
        (round(first.time - seen[0].time, 1), ratio(first, last))
        for number, first in enumerate(seen)
        if (last := next((each for each in seen[number:] if each.time - first.time >= WINDOW_S), None))
    ]
    worst = max(windows, key=lambda window: abs(window[1] - 1), default=None)
    return {"ratio": ratio(seen[0], seen[-1]), "worst_60s": worst[1] if worst else None, "windows": windows}


def aside(target: Target, seconds: float = 20.0) -> float:
    """Lease renewals per second while there is no node."""
    seen = looks(target, seconds)
    return (seen[-1].renewals - seen[0].renewals) / (seen[-1].time - seen[0].time)


# nodes and pods


async def _all_ready(target: Target, count: int) -> None:
    ready: set[str] = set()
    async with admin(target) as transport, asyncio.timeout(1800.0):
        async for event in ListWatch(transport, "/api/v1/nodes", Node).events():
            if event.object is None:
                continue
            (ready.add if event.object.ready else ready.discard)(event.object.metadata.name)
            if len(ready) == count:
                return


def all_ready(target: Target, count: int) -> None:
    """Wait until so many nodes are Ready and free of the taints of nodes that are not."""
    asyncio.run(_all_ready(target, count))


def until(done: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for it, or end the bench."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {seconds:g} s")
        time.sleep(0.5)


def run_pods(plane: ControlPlane, folder: Path, pods: int) -> float:
    """Seconds until a new Deployment's pods are all available."""
    manifest = folder / "deployment.json"
    manifest.write_text(json.dumps(deployment("bench", pods, on={"type": "virtual-kubelet"})))
    began = time.monotonic()
    plane.kubectl("apply", "-f", str(manifest))
    available = "jsonpath={.status.availableReplicas}"
    until(lambda: plane.kubectl("get", "deployment", "bench", "-o", available) == str(pods), 1800.0, f"{pods} pods")
    return time.monotonic() - began


def remove_pods(plane: ControlPlane) -> None:
    """Delete the Deployment and wait until its pods are gone."""
    plane.kubectl("delete", "deployment", "bench", "--ignore-not-found", "--wait=false")
    until(lambda: not plane.kubectl("get", "pods", "-o", "name").strip(), 900.0, "pods that go")


def no_nodes(plane: ControlPlane) -> None:
    """Wait until there is no node."""
    until(lambda: not plane.kubectl("get", "nodes", "-o", "name").strip(), 300.0, "nodes that go")


def middle(values: Sequence[float]) -> float:
    """The median, or nothing of nothing."""
    return statistics.median(values) if values else float("nan")
