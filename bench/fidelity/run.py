"""What nodes send to an API server and cost it, by who plays them: one subject on a control plane of its own.

    python -m bench.fidelity.run real --nodes 8 --pods 4 --churn 1 --minutes 15
    python -m bench.fidelity.run builtin:kubelet --nodes 8 --pods 4 --churn 1 --minutes 15
    python -m bench.fidelity.table runs/fidelity/*.json

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.fidelity import real, tally
from bench.fidelity.plane import Audited, Sample, audited
from bench.fidelity.relay import Counts, Relay
from bench.fidelity.subjects import Fleet, Real, Subject, spec
from tests.integration.fleets import deployment
from turbokube import procfs

ROOT = Path(__file__).resolve().parents[2]
IDLE = 60.0  # seconds in which the control plane without nodes is looked at
JOINED = 30.0  # seconds from the last node's Ready until pods are made: registration is over, lease included
SETTLED = 100.0  # seconds from the last pod's Ready until the window: a kubelet's first look back at a pod is over
PATIENCE = 600.0


def main() -> None:
    """The command line."""
    given = arguments()
    report = measure(given)
    output: Path = given.output or ROOT / "runs/fidelity" / f"{given.subject.replace(':', '-')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(output)


def arguments() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("subject", help="real, or engine:fidelity of module vnode_fleet, such as builtin:kubelet")
    words.add_argument("--nodes", type=int, default=8)
    words.add_argument("--pods", type=int, default=4, help="per node, there all the time")
    words.add_argument("--churn", type=float, default=1.0, help="pods per node and minute that are replaced")
    words.add_argument("--minutes", type=float, default=15.0, help="of the window in which requests are counted")
    words.add_argument("--images", type=int, default=50, help="that a Node lists")
    words.add_argument("--join", default="certificate", help="as vnode_fleet's")
    words.add_argument("--binary", default="", help="of a foreign engine")
    words.add_argument("--binaries", type=Path, help="folder with kubelet and kube-proxy; default: the cache")
    words.add_argument("--no-proxy", action="store_true", help="real kubelets alone")
    words.add_argument("--output", type=Path, help="JSON file; default: runs/fidelity/SUBJECT.json of the checkout")
    words.add_argument("--keep", type=Path, help="folder that the audit log and logs of the subject are left in")
    return words.parse_args()


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One subject from an empty control plane to the end of the window."""
    with real.terminated(), tempfile.TemporaryDirectory(prefix="fidelity-") as name, audited(Path(name)) as plane:
        relay = Relay(plane.port)
        subject = _subject(given, plane, relay, Path(name))
        try:
            return _measure(given, plane, subject)
        finally:
            subject.close()
            relay.close()
            if given.keep:
                keep(Path(name), given.keep)


def _subject(given: argparse.Namespace, plane: Audited, relay: Relay, folder: Path) -> Subject:
    if given.subject == "real":
        binaries = real.binaries(folder, given.binaries)
        return Real(plane, relay, folder, binaries, given.images, not given.no_proxy)
    engine, _, fidelity = given.subject.partition(":")
    return Fleet(plane, relay, spec(engine, fidelity or "lease", given.join, given.images, given.binary))


def _measure(given: argparse.Namespace, plane: Audited, subject: Subject) -> dict[str, Any]:
    say("idle, without nodes")
    time.sleep(JOINED)
    before = plane.sample()
    time.sleep(IDLE)
    empty = plane.sample()
    say(f"{given.nodes} nodes join")
    began = time.time()
    subject.start(given.nodes)
    until(lambda: ready(plane) >= given.nodes, "nodes are Ready")
    joined = time.time()
    time.sleep(JOINED)
    pods = Pods(plane, given.nodes * given.pods)
    pods.create()
    say(f"{pods.count} pods are Ready")
    time.sleep(SETTLED)
    full, counts, used = plane.sample(), copy(subject.counts()), usage(subject.pids())
    say(f"the window of {given.minutes:g} minutes begins")
    pods.churn(given.churn * given.nodes, given.minutes * 60)
    end, then, left = plane.sample(), copy(subject.counts()), usage(subject.pids())
    sizes = object_sizes(plane)
    pods.delete()
    time.sleep(2.0)  # for the log's last batch
    minutes = (end.at - full.at) / 60
    return {
        "subject": given.subject,
        "conditions": conditions(given),
        "minutes": minutes,
        "pods_deleted": pods.deleted,
        "ready_s": joined - began,
        "server": server(before, empty, full, end, given.nodes),
        "wire": wire(counts, then, given.nodes, minutes),
        "player": player(used, left, given.nodes, end.at - full.at),
        "sizes": sizes,
        **requests(plane.log, given.nodes, (began, joined + JOINED), (full.at, end.at)),
    }


class Pods:
    """A Deployment whose pods are deleted one after the other, oldest first, and made anew by its ReplicaSet."""

    def __init__(self, plane: Audited, count: int) -> None:
        self._plane = plane
        self.count = count
        self.deleted = 0

    def create(self) -> None:
        """Have them, and wait until all are Ready."""
        if not self.count:
            return
        path = self._plane.log.with_name("deployment.json")
        requests = {"cpu": "10m", "memory": "16Mi"}
        made = deployment("fidelity", self.count, image="registry.k8s.io/pause:3.10", requests=requests)
        path.write_text(json.dumps(made))
        self._plane.plane.kubectl("apply", "-f", str(path))
        until(lambda: sum(map(_is_ready, self._list())) == self.count, "pods are Ready")

    def churn(self, per_minute: float, seconds: float) -> None:
        """Delete so many a minute for so long."""
        end = time.monotonic() + seconds
        turn = time.monotonic()
        while per_minute and self.count and (turn := turn + 60 / per_minute) < end:
            time.sleep(max(0.0, turn - time.monotonic()))
            oldest = min(filter(_is_ready, self._list()), key=lambda pod: pod["metadata"]["creationTimestamp"])
            self._plane.plane.kubectl("delete", "pod", oldest["metadata"]["name"], "--wait=false")
            self.deleted += 1
        time.sleep(max(0.0, end - time.monotonic()))

    def delete(self) -> None:
        """Have none."""
        self._plane.plane.kubectl("delete", "deployment", "fidelity", "--ignore-not-found", "--wait=false")
        until(lambda: not self._list(), "pods are gone")

    def _list(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = items(self._plane, "/api/v1/namespaces/default/pods")
        return pods


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def items(plane: Audited, path: str) -> Any:
    """The objects of a list."""
    return json.loads(plane.plane.kubectl("get", "--raw", path))["items"]


def ready(plane: Audited) -> int:
    """How many Nodes are Ready."""
    nodes = items(plane, "/api/v1/nodes")
    return sum(
        one["type"] == "Ready" and one["status"] == "True"
        for node in nodes
        for one in node["status"].get("conditions", [])
    )


def object_sizes(plane: Audited) -> dict[str, float]:
    """Median bytes of the objects that nodes keep, as the API server writes them in JSON, managed fields included."""
    paths = {
        "node": "/api/v1/nodes",
        "lease": "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
        "pod": "/api/v1/namespaces/default/pods",
        "csinode": "/apis/storage.k8s.io/v1/csinodes",
    }
    sizes = {}
    for kind, path in paths.items():
        each = [len(json.dumps(item, separators=(",", ":"))) for item in items(plane, path)]
        sizes[kind] = statistics.median(each) if each else 0.0
    return sizes


def server(before: Sample, empty: Sample, full: Sample, end: Sample, nodes: int) -> dict[str, Any]:
    """What the nodes cost the API server: beyond what it needs without them, by node."""
    idle = (empty.cpu - before.cpu) / (empty.at - before.at)
    busy = (end.cpu - full.cpu) / (end.at - full.at)
    dispatched = {
        level: (count - full.dispatched.get(level, 0.0)) / (end.at - full.at) * 60 / nodes
        for level, count in end.dispatched.items()
    }
    return {
        "cpu_millicores": (busy - idle) * 1000 / nodes,
        "heap_kb": (end.heap - empty.heap) / 1000 / nodes,
        "resident_kb": (end.resident - empty.resident) / 1000 / nodes,
        "goroutines": (end.goroutines - empty.goroutines) / nodes,
        "watches": sum(end.watches.values()) - sum(empty.watches.values()),
        "dispatched": {level: count for level, count in sorted(dispatched.items()) if count > 0.005},
        "samples": [asdict(sample) for sample in (before, empty, full, end)],
    }


def wire(begin: Counts, end: Counts, nodes: int, minutes: float) -> dict[str, float]:
    """Connections now, and what the window had, by node."""
    return {
        "connections": end.now / nodes,
        "opened_per_minute": (end.opened - begin.opened) / nodes / minutes,
        "up_bytes_per_minute": (end.up - begin.up) / nodes / minutes,
        "down_bytes_per_minute": (end.down - begin.down) / nodes / minutes,
    }


def player(begin: tuple[float, int], end: tuple[float, int], nodes: int, seconds: float) -> dict[str, float]:
    """What playing the nodes costs this machine, by node."""
    return {"cpu_millicores": (end[0] - begin[0]) * 1000 / seconds / nodes, "resident_kb": end[1] / 1000 / nodes}


def requests(log: Path, nodes: int, join: tuple[float, float], window: tuple[float, float]) -> dict[str, Any]:
    """What the audit log says of two stretches of time: requests by node, of the second by node and minute."""
    with open(log) as lines:
        all_of_them = list(tally.read(lines))
    joining, steady = tally.count(all_of_them, *join), tally.count(all_of_them, *window)
    minutes = (window[1] - window[0]) / 60
    watches = tally.open_watches(all_of_them, window[1])
    return {
        "joining": {kind: count / nodes for kind, count in sorted(joining.requests.items())},
        "requests": {kind: count / nodes / minutes for kind, count in sorted(steady.requests.items())},
        "counted": dict(sorted(steady.requests.items())),
        "failed": dict(sorted(steady.failed.items())),
        "watches": {resource: count / nodes for resource, count in sorted(watches.items())},
        "agents": sorted(steady.agents),
        "users": sorted(steady.users)[:3],
    }


def usage(pids: list[int]) -> tuple[float, int]:
    """CPU seconds and resident bytes of processes and of all that they have started and that lives."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry)] = procfs.stat(int(entry)).parent
    wanted = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    cpu, memory = 0.0, 0
    for pid in wanted:
        with contextlib.suppress(OSError):
            cpu += procfs.stat(pid).cpu
            memory += procfs.memory(pid).resident
    return cpu, memory


def conditions(given: argparse.Namespace) -> dict[str, Any]:
    """What the figures hold for."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        **{key: getattr(given, key) for key in ("nodes", "pods", "churn", "images", "join")},
        "kube_proxy": not given.no_proxy if given.subject == "real" else None,
        "kubernetes": real.VERSION,
        "cores": os.cpu_count(),
        "cpu": cpu.partition(":")[2].strip(),
    }


def copy(counts: Counts) -> Counts:
    """As they are now."""
    return Counts(counts.opened, counts.now, counts.up, counts.down)


def keep(folder: Path, place: Path) -> None:
    """Save the audit log, and the logs of real nodes."""
    place.mkdir(parents=True, exist_ok=True)
    for path in [folder / "audit.log", *folder.glob("real-*/*.log"), *folder.glob("state/log/fleet*.log")]:
        if path.exists():
            name = path.name if path.parent == folder else f"{path.parent.name}-{path.name}"
            (place / name).write_bytes(path.read_bytes())


def until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {PATIENCE:g} s")
        time.sleep(1.0)


def say(line: str) -> None:
    """A line with the time."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
