"""This engine and KWOK on one real control plane, in turns: what a node and a pod cost each.

    python bench/fleet/run.py --kwok auto --nodes 1000 --pods 2560 --rounds 2

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from players import KWOK_VERSION, Kwok, Player, TurboKube, kwok_binary, kwok_stages  # noqa: E402

from tests.integration.control_plane import ControlPlane, control_plane  # noqa: E402
from turbokube.api.http1 import Http1  # noqa: E402
from turbokube.api.target import Target, load_target  # noqa: E402
from turbokube.api.watch import ListWatch  # noqa: E402
from turbokube.vnode.objects import Node  # noqa: E402

SETTLE = (
    15.0  # seconds between the last node's Ready and the idle window: half-idle buffers and first renewals are over
)
TICKS = os.sysconf("SC_CLK_TCK")
ROWS = (  # key, words, format
    ("ready_s", "seconds to all nodes Ready", "{:.1f}"),
    ("join_cpu_ms", "CPU ms per node joined", "{:.2f}"),
    ("idle_cores", "cores when idle", "{:.4f}"),
    ("lease_cpu_ms", "CPU ms per lease renewal", "{:.3f}"),
    ("pods_per_s", "pods per second to Running", "{:.1f}"),
    ("pod_cpu_ms", "CPU ms per pod", "{:.2f}"),
    ("idle_mb", "MB resident when idle", "{:.1f}"),
    ("peak_mb", "MB resident at most", "{:.1f}"),
)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--kwok", default="auto", help="path of kwok, or auto: the cached one, built when there is none")
    words.add_argument("--nodes", type=int, default=1000)
    words.add_argument("--pods", type=int, default=2560)
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--idle", type=float, default=40.0, help="seconds of the idle window, 30 or more")
    words.add_argument("--output", type=Path, help="JSON file; default: runs/bench-fleet.json of the checkout")
    given = words.parse_args()
    if given.idle < 30:
        words.error(f"--idle is {given.idle:g}; allowed is 30 seconds or more")
    binary = kwok_binary(given.kwok)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="turbokube-bench-") as name, control_plane() as plane:
        folder, target = Path(name), load_target(plane.target)
        players: list[Player] = [TurboKube(target, folder), Kwok(target, folder, binary, kwok_stages(folder))]
        for number in range(given.rounds):
            for player in players if number % 2 == 0 else reversed(players):
                results.append(measure(player, plane, target, given))
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    report = {
        "nodes": given.nodes,
        "pods": given.pods,
        "kwok_version": KWOK_VERSION,
        "cores": os.cpu_count(),
        "results": results,
        "ratios": table(results),
    }
    output: Path = given.output or ROOT / "runs" / "bench-fleet.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{output}")


def measure(player: Player, plane: ControlPlane, target: Target, given: argparse.Namespace) -> dict[str, Any]:
    """One turn of one player: join, idle, a Deployment's pods, and away with it all."""
    began = time.monotonic()
    pid = player.start(given.nodes)
    try:
        asyncio.run(_all_ready(target, given.nodes))
        ready, joined = time.monotonic() - began, cpu(pid)
        time.sleep(SETTLE)
        idle = _idle(pid, plane, given.idle)
        load = _load(pid, plane, given.pods, idle["idle_cores"])
    finally:
        _until(lambda: not json.loads(plane.kubectl("get", "pods", "-o", "json"))["items"], _delete(plane))
        player.stop()
        _until(lambda: not plane.kubectl("get", "nodes", "-o", "name").strip(), 300.0)
    return {
        "player": player.name,
        "ready_s": ready,
        "join_cpu_ms": joined * 1000 / given.nodes,
        **idle,
        **load,
    }


async def _all_ready(target: Target, count: int) -> None:
    """Wait until so many nodes are Ready and free of the taints of nodes that are not."""
    credential = target.credential("admin")
    transport = Http1(credential, target.addresses(credential), size=1)
    ready: set[str] = set()
    try:
        async with asyncio.timeout(900.0):
            async for event in ListWatch(transport, "/api/v1/nodes", Node).events():
                if event.object is None:
                    continue
                (ready.add if event.object.ready else ready.discard)(event.object.metadata.name)
                if len(ready) == count:
                    return
    finally:
        await transport.close()


def _idle(pid: int, plane: ControlPlane, seconds: float) -> dict[str, float]:
    """CPU while only leases are renewed, over at least `seconds`; memory at the end."""
    renewals, used, began = _renewals(plane), cpu(pid), time.monotonic()
    time.sleep(seconds)
    used, elapsed, renewals = cpu(pid) - used, time.monotonic() - began, _renewals(plane) - renewals
    return {
        "renewals_per_s": renewals / elapsed,
        "idle_cores": used / elapsed,
        "lease_cpu_ms": used * 1000 / renewals,
        "idle_mb": memory(pid, "VmRSS"),
    }


def _load(pid: int, plane: ControlPlane, pods: int, idle_cores: float) -> dict[str, float]:
    """One Deployment's pods to Running; CPU per pod is what goes beyond the leases'."""
    manifest = Path(tempfile.gettempdir()) / f"bench-fleet-{os.getpid()}.json"
    manifest.write_text(json.dumps(_deployment(pods)))
    used, began = cpu(pid), time.monotonic()
    plane.kubectl("apply", "-f", str(manifest))
    manifest.unlink()
    available = "jsonpath={.status.availableReplicas}"
    _until(lambda: plane.kubectl("get", "deployment", "bench", "-o", available) == str(pods), 1800.0)
    running = time.monotonic() - began
    time.sleep(10.0)  # events and the echoes of the last patches
    used, elapsed = cpu(pid) - used, time.monotonic() - began
    return {
        "pods_per_s": pods / running,
        "pod_cpu_ms": max(0.0, used - idle_cores * elapsed) * 1000 / pods,
        "peak_mb": memory(pid, "VmHWM"),
    }


def _delete(plane: ControlPlane) -> float:
    plane.kubectl("delete", "deployment", "bench", "--ignore-not-found", "--wait=false")
    return 900.0


def _deployment(pods: int) -> dict[str, Any]:
    container = {"name": "pause", "image": "pause", "resources": {"requests": {"memory": "32Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": {"app": "bench"}},
            "template": {
                "metadata": {"labels": {"app": "bench"}},
                "spec": {
                    "nodeSelector": {"type": "virtual-kubelet"},
                    "tolerations": [{"key": "turbokube.io/vnode", "operator": "Exists"}],
                    "containers": [container],
                },
            },
        },
    }


def _renewals(plane: ControlPlane) -> float:
    """Lease writes that the API server has answered; leader election adds about one per second."""
    text = plane.kubectl("get", "--raw", "/metrics")
    lines = re.findall(r"^apiserver_request_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    return sum(
        float(value)
        for labels, value in lines
        if 'resource="leases"' in labels and re.search(r'verb="(PUT|PATCH|APPLY)"', labels) and 'code="200"' in labels
    )


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process in MB of 1,000,000 bytes."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith(f"{field}:"))


def _until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(f"not done within {seconds:g} s")
        time.sleep(0.5)


def table(results: list[dict[str, Any]]) -> dict[str, float]:
    """Print medians over the rounds side by side; returns turbokube's share of kwok's."""
    ratios = {}
    print(f"{'':34}{'turbokube':>12}{'kwok':>12}{'ratio':>10}")
    for key, words, form in ROWS:
        ours, theirs = (
            statistics.median(result[key] for result in results if result["player"] == name)
            for name in ("turbokube", "kwok")
        )
        ratios[key] = ours / theirs if theirs else float("nan")
        print(f"{words:34}{form.format(ours):>12}{form.format(theirs):>12}{ratios[key]:>10.2f}")
    return ratios


if __name__ == "__main__":
    main()
