"""What a vnode of this engine costs at a level of fidelity: memory, files, watches, and the API server's side of it.

    python bench/fleet/levels.py --level kubelet --nodes 250 1000
    python bench/fleet/levels.py --level kubelet --nodes 8192 --lease-interval 60 --idle 180

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import gauge  # noqa: E402
from players import TurboKube  # noqa: E402

from tests.integration.control_plane import ControlPlane, control_plane  # noqa: E402
from turbokube.api.target import Target, load_target  # noqa: E402
from turbokube.profile.schema import lease_settings  # noqa: E402

MOST_MB = {"lease": 2.0 / 1000, "kubelet": 0.12, "node": 0.2}  # per vnode
BAND = 0.03  # how far from what is due the renewals may be
JITTER = 0.04  # of a kubelet's lease interval: each is U[0, 0.04) longer (nodelease's, client-go's JitterUntil)
FIGURES = (
    ("ready_s", "seconds to all nodes Ready", "{:.1f}"),
    ("join_cpu_ms", "CPU ms per node joined", "{:.2f}"),
    ("server_join_cpu_ms", "  of the API server", "{:.1f}"),
    ("mb", "MB resident when idle", "{:.1f}"),
    ("mb_per_vnode", "  per vnode", "{:.4f}"),
    ("cores", "cores when idle", "{:.4f}"),
    ("lease_ratio", "leases renewed of those due", "{:.3f}"),
    ("lease_worst_60s", "  in the worst 60 s", "{:.3f}"),
    ("open_files", "open files, of the process with most", "{:.0f}"),
    ("connections", "connections to the API server", "{:.0f}"),
    ("watches_per_vnode", "watches more per vnode, as the server counts", "{:.2f}"),
    ("server_mb_per_vnode", "MB of the API server per vnode", "{:.3f}"),
    ("server_cores", "cores of the API server when idle", "{:.3f}"),
)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--level", choices=tuple(MOST_MB), default="kubelet")
    words.add_argument("--nodes", type=int, nargs="+", default=[250, 1000], help="sizes, one after the other")
    words.add_argument("--join", choices=("certificate", "csr"), default="certificate")
    words.add_argument("--processes", type=int, default=1)
    words.add_argument("--lease-interval", type=float, default=10.0, help="duration and grace period go with it")
    words.add_argument("--settle", type=float, default=30.0, help="seconds between Ready and the idle window")
    words.add_argument("--idle", type=float, default=130.0, help="seconds of the idle window")
    words.add_argument("--output", type=Path, help="JSON file; default: runs/bench-LEVEL.json of the checkout")
    given = words.parse_args()
    report: dict[str, Any] = {"conditions": gauge.conditions(), "settings": {**vars(given), "output": None}}
    lease = lease_settings(given.lease_interval)
    results = []
    with control_plane(control_plane_node_monitor_grace_s=lease["turbokube_node_monitor_grace_s"]) as plane:
        target = load_target(plane.target)
        player = TurboKube(
            target,
            plane.state,
            fidelity=given.level,
            join=given.join,
            processes=given.processes,
            lease_interval=given.lease_interval,
            lease_duration=lease["turbokube_lease_duration_s"],
        )
        others = gauge.aside(target)
        for nodes in given.nodes:
            results.append(measure(player, plane, target, nodes, given, others))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    report |= {"results": results, "targets": table(results, given.level)}
    output: Path = given.output or ROOT / "runs" / f"bench-{given.level}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{output}")


def measure(
    player: TurboKube, plane: ControlPlane, target: Target, nodes: int, given: argparse.Namespace, others: float
) -> dict[str, Any]:
    """One size: join, settle, idle, and away with it all."""
    server = gauge.component(plane, "kube-apiserver")
    empty, others_watch = gauge.memory(server), _watches(gauge.looks(target, 0)[0])
    serving, began = gauge.cpu(server), time.monotonic()
    pids = player.start(nodes)
    try:
        gauge.all_ready(target, nodes)
        ready, joined, serving = time.monotonic() - began, gauge.cpu(pids), gauge.cpu(server) - serving
        time.sleep(given.settle)
        found = _idle(player, pids, server, target, nodes, given, others)
    finally:
        player.stop()
        gauge.no_nodes(plane)
    return {
        "nodes": nodes,
        "ready_s": ready,
        "join_cpu_ms": joined * 1000 / nodes,
        "server_join_cpu_ms": serving * 1000 / nodes,
        "server_mb_per_vnode": (found["server_mb"] - empty) / nodes,
        "watches_per_vnode": (found["watches"] - others_watch) / nodes,
        **found,
    }


def _idle(
    player: TurboKube,
    pids: list[int],
    server: list[int],
    target: Target,
    nodes: int,
    given: argparse.Namespace,
    others: float,
) -> dict[str, Any]:
    before, used, serving, began = _told(player), gauge.cpu(pids), gauge.cpu(server), time.monotonic()
    seen = gauge.looks(target, given.idle)
    elapsed, after = time.monotonic() - began, _told(player)
    used, serving = gauge.cpu(pids) - used, gauge.cpu(server) - serving
    latency = _mean(before, after, "turbokube_fleet_lease_latency_seconds")
    period = given.lease_interval + (0.0 if given.level == "lease" else given.lease_interval * JITTER / 2 + latency)
    found = gauge.band(seen, nodes / period, others)
    memory = gauge.memory(pids)
    return {
        "mb": memory,
        "mb_per_vnode": memory / nodes,
        "cores": used / elapsed,
        "lease_latency_ms": latency * 1000,
        "lease_ratio": found["ratio"],
        "lease_worst_60s": found["worst_60s"],
        "open_files": gauge.files(pids),
        "server_open_files": gauge.files(server),
        "connections": after.get("turbokube_fleet_connections", 0.0),
        "watches": _watches(seen[-1]),
        "server_mb": gauge.memory(server),
        "server_cores": serving / elapsed,
    }


def _watches(seen: gauge.Counts) -> float:
    return seen.total("apiserver_longrunning_requests", verb="WATCH")


def _told(player: TurboKube) -> dict[str, float]:
    """The fleet's own metrics without labels, summed over its processes."""
    found: dict[str, float] = {}
    for url in player.status()["metrics_urls"]:
        with urllib.request.urlopen(url) as answer:
            for name, value in re.findall(r"^(\w+) (\S+)$", answer.read().decode(), re.MULTILINE):
                found[name] = found.get(name, 0.0) + float(value)
    return found


def _mean(before: dict[str, float], after: dict[str, float], histogram: str) -> float:
    """The mean of what a histogram has observed between two looks; 0 of nothing."""
    ends = (f"{histogram}_sum", f"{histogram}_count")
    total, count = (after.get(end, 0.0) - before.get(end, 0.0) for end in ends)
    return total / count if count else 0.0


def table(results: list[dict[str, Any]], level: str) -> list[dict[str, Any]]:
    """Print the sizes side by side; returns what came of each target."""
    print(f"\n{f'{level}, vnodes':40}" + "".join(f"{result['nodes']:>12}" for result in results))
    for key, words, form in FIGURES:
        print(f"{words:40}" + "".join(f"{form.format(result[key] or 0.0):>12}" for result in results))
    most = MOST_MB[level]
    low, high = (pick(results, key=lambda result: result["nodes"]) for pick in (min, max))
    verdicts = [
        {"figure": f"lease ratio of {result['nodes']}", "value": result["lease_ratio"], "of": f"1 ± {BAND}",
         "met": abs(result["lease_ratio"] - 1) <= BAND}
        for result in results
    ]  # fmt: skip
    if level != "lease":
        value = high["mb_per_vnode"]
        verdicts.append({"figure": f"MB per vnode of {high['nodes']}", "value": value, "of": f"≤ {most}"})
        verdicts[-1]["met"] = value <= most
    if high is not low:
        slope = (high["mb"] - low["mb"]) / (high["nodes"] - low["nodes"])
        verdicts.append({"figure": "MB per vnode more", "value": slope, "of": f"≤ {most}", "met": slope <= most})
    print()
    for one in verdicts:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['figure']}: {one['value']:.4f}, {one['of']}")
    return verdicts


if __name__ == "__main__":
    main()
