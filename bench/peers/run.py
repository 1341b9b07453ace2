"""The same creation by another tool and by ours, in turns, on one control plane and one fleet.

    python bench/peers/run.py --peer ~/bin/kube-burner --peer ~/bin/clusterloader2 [--rounds 2] [--rate 8]

32 namespaces × 8 deployments × 8 pods, `--rate` deployments a second. A watch of the bench's own is the witness: pods
per second are from the first pod that it saw to the last that it saw running, and the true p99 startup is of the times
from a pod's first event to the one in which it runs. CPU and memory are of the tool's one process: ours is the agent,
which also watches, scrapes and keeps the record. Namespaces are removed between two creations.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.fleet.gauge import MB, component, conditions, cpu, memory
from tests.integration.control_plane import ControlPlane, control_plane
from tests.integration.fleets import Fleet, wait_for
from turbokube.agent import drive
from turbokube.agent.client import AgentClient
from turbokube.api.http1 import Http1
from turbokube.api.target import Target, load_target
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure import pods
from turbokube.measure.observer import Observer
from turbokube.profile.phases import Create, ObjectSet
from turbokube.vnode.spec import Spec

FILES = Path(__file__).with_name("creation")
KEPT = {"default", "kube-system", "kube-public", "kube-node-lease"}
VNODES = 64
COLUMNS = ("pods/s", "CPU s", "CPU ms per pod", "memory MB", "API server's CPU s", "p99 told, s", "p99 true, s")


@dataclass(frozen=True)
class Creation:
    """What is created. `rate`: deployments per second."""

    namespaces: int
    deployments: int
    replicas: int
    rate: float

    @property
    def pods(self) -> int:
        return self.namespaces * self.deployments * self.replicas

    def environment(self, prefix: str) -> dict[str, str]:
        """As the peers' templates take it."""
        names = ("namespaces", "deployments", "replicas", "rate")
        return {f"{prefix}_{name.upper()}": f"{getattr(self, name):g}" for name in names}


@dataclass(frozen=True)
class Told:
    """What a tool used (CPU seconds, MB), and the p99 startup that it tells (seconds)."""

    cpu: float
    memory: float
    p99: float


Tool = Callable[[ControlPlane, Creation, Path], Told]


# the tools


def kube_burner(binary: Path) -> Tool:
    """Its podLatency, condition Ready, from the creationTimestamp on."""

    def create(plane: ControlPlane, creation: Creation, folder: Path) -> Told:
        kubeconfig = f"{plane.state}/kubeconfigs/admin.conf"
        argv = [str(binary), "init", "-c", "kube-burner.yml", "--kubeconfig", kubeconfig, "--skip-log-file"]
        output, used, most = _run(argv, creation.environment("PEERS"), folder)
        found = re.search(r": Ready 99th: (\d+) ms", output)
        assert found, output[-3000:]
        return Told(used, most, int(found[1]) / 1e3)

    return create


def clusterloader2(binary: Path) -> Tool:
    """Its PodStartupLatency, from the creationTimestamp to the watch that shows it running."""

    def create(plane: ControlPlane, creation: Creation, folder: Path) -> Told:
        argv = [str(binary), "--testconfig=clusterloader2.yaml", "--provider=local", "--enable-exec-service=false"]
        argv += [f"--kubeconfig={plane.state}/kubeconfigs/admin.conf", f"--report-dir={folder}"]
        argv += ["--masterip=127.0.0.1", "--master-internal-ip=127.0.0.1", "--mastername=local"]
        output, used, most = _run(argv, creation.environment("CL2"), folder)
        reports = [path for path in folder.glob("PodStartupLatency_*.json") if "Stateful" not in path.name]
        assert reports, output[-3000:]
        items = [item for path in reports for item in json.loads(path.read_text())["dataItems"]]
        p99 = next(item["data"]["Perc99"] for item in items if item["labels"]["Metric"] == "pod_startup")
        return Told(used, most, p99 / 1e3)

    return create


def _run(argv: list[str], environment: dict[str, str], folder: Path) -> tuple[str, float, float]:
    """Output, CPU seconds and MB of a command."""
    with (folder / "output.txt").open("w+") as output:
        running = subprocess.Popen(
            argv,
            cwd=FILES,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    assert running.returncode == 0, text[-3000:]
    return text, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MB


def ours(plane: ControlPlane, creation: Creation, folder: Path) -> Told:
    """The agent, from a pod's first event to the one in which it runs."""
    target = load_target(plane.target)
    client = AgentClient(plane.state, folder / "peers", f"bench/{os.getpid()}")
    deployments = ObjectSet(name="turbokube", count=creation.deployments, replicas=creation.replicas)
    phase = Create(
        run="peers",
        name="create",
        namespaces=creation.namespaces,
        deadline=900.0,
        rate=creation.rate,
        placement="cluster",
        objects=(deployments,),
    )
    run: dict[str, Any] = {"profile": {}, "scrape_interval": 15.0, "extra_components": []}
    state = "running"
    while state == "running":
        answer = drive.advance(client, plane.state / "log" / "agent.log", target, run, [phase], 5.0)
        state = answer["progress"][0]["state"]
    assert state == "done", answer["lines"]
    pids = component(plane, "agent")
    used, most = cpu(pids), memory(pids, "VmHWM")
    drive.finish(client, target, folder / "peers", run, "peers")
    with Reader(folder / "peers") as reader:
        startups = {one.clock: one.percentiles["p99"] for one in pods.load(reader).startups}
    return Told(used, most, startups[pods.SEEN] or 0.0)


# the witness


@contextlib.contextmanager
def witness(target: Target, folder: Path) -> Iterator[None]:
    """Watch all pods in a thread, into a bundle in `folder`."""
    watching, stop = threading.Event(), threading.Event()

    async def watch() -> None:
        credential = target.credential("admin")
        transport, writer = Http1(credential, target.addresses(credential), size=2), Writer(folder)
        observer = Observer(transport, writer, "")
        task = asyncio.create_task(observer.run())
        await observer.synced.wait()
        watching.set()
        while not stop.is_set() and not task.done():
            await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()
        writer.close(finish=True)

    thread = threading.Thread(target=lambda: uvloop.run(watch()))
    thread.start()
    watching.wait(30)
    try:
        yield
    finally:
        stop.set()
        thread.join()


def truth(folder: Path) -> tuple[int, float, float]:
    """Pods that ran, pods per second and p99 startup by the witness."""
    with Reader(folder) as reader:
        rows = reader.query("SELECT seen, running_seen FROM pods WHERE running_seen IS NOT NULL AND NOT listed")
    first, last = min(row[0] for row in rows), max(row[1] for row in rows)
    p99 = pods.percentile(sorted(row[1] - row[0] for row in rows), 0, 0.99)
    return len(rows), len(rows) / (last - first), p99 or 0.0


# the bench


def measure(plane: ControlPlane, tool: Tool, creation: Creation, folder: Path) -> tuple[float, ...]:
    """One creation by one tool: the columns."""
    folder.mkdir(parents=True)
    servers = component(plane, "kube-apiserver")
    with witness(load_target(plane.target), folder / "witness"):
        before = cpu(servers)
        told = tool(plane, creation, folder)
        served = cpu(servers) - before
    count, rate, p99 = truth(folder / "witness")
    assert count == creation.pods, f"{count} of {creation.pods} pods were seen running"
    remove(plane)
    return rate, told.cpu, told.cpu / count * 1e3, told.memory, served, told.p99, p99


def remove(plane: ControlPlane) -> None:
    """Every namespace that a tool has made, and its pods."""

    def there() -> list[str]:
        names = plane.kubectl("get", "namespaces", "-o", "name").split()
        return [name for name in names if name.partition("/")[2] not in KEPT]

    if names := there():
        plane.kubectl("delete", "--wait=false", *names)
    wait_for(lambda: not there(), 300.0)
    time.sleep(5.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", type=Path, action="append", default=[], help="kube-burner or clusterloader2: its path"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--namespaces", type=int, default=32)
    parser.add_argument("--deployments", type=int, default=8)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--rate", type=float, default=8.0, help="deployments per second")
    options = parser.parse_args()
    creation = Creation(options.namespaces, options.deployments, options.replicas, options.rate)
    makers = {"kube-burner": kube_burner, "clusterloader2": clusterloader2}
    tools: dict[str, Tool] = {"turbokube": ours}
    for peer in options.peer:
        name = next((name for name in makers if peer.name.startswith(name)), None)
        if name is None or not os.access(peer, os.X_OK):
            parser.error(f"{peer} is neither a kube-burner nor a clusterloader2 that can be run")
        tools[name] = makers[name](peer.resolve())
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in tools}
    with tempfile.TemporaryDirectory(prefix="turbokube-peers-") as folder, control_plane() as plane:
        fleet = Fleet(plane, Spec(run="peers-fleet", count=VNODES, placement="cluster"))
        fleet.present()
        try:
            for number in range(options.rounds):
                for name in list(tools) if number % 2 == 0 else list(reversed(tools)):
                    try:
                        row = measure(plane, tools[name], creation, Path(folder) / f"{name}-{number}")
                    except AssertionError as error:
                        print(f"{name} failed: {error}", file=sys.stderr, flush=True)
                        remove(plane)
                        continue
                    found[name].append(row)
                    print(name, *(f"{value:.3g}" for value in row), file=sys.stderr, flush=True)
        finally:
            fleet.absent()
    print(json.dumps(conditions()))
    print(f"| {creation.pods:,} pods, {creation.rate:g} deployments/s |", " | ".join(COLUMNS), "|")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, rows in found.items():
        middle = [statistics.median(values) for values in zip(*rows, strict=True)]
        print(f"| {name} |", " | ".join(f"{value:.3g}" for value in middle), "|")


if __name__ == "__main__":
    main()
