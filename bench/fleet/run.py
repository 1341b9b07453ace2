"""This engine at `lease` and KWOK on one real control plane, in turns: what a node, a renewal and a pod cost each.

    python bench/fleet/run.py --nodes 1000 4000 --pods 2560 --rounds 2

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import gauge  # noqa: E402
from players import KWOK_VERSION, Kwok, Player, TurboKube, kwok_binary, kwok_stages  # noqa: E402

from tests.integration.control_plane import ControlPlane, control_plane  # noqa: E402
from turbokube.api.target import Target, load_target  # noqa: E402

SETTLE = (
    15.0  # seconds between the last node's Ready and the idle window: half-idle buffers and first renewals are over
)
FIGURES = (  # key, words, format
    ("ready_s", "seconds to all nodes Ready", "{:.1f}"),
    ("join_cpu_ms", "CPU ms per node joined", "{:.2f}"),
    ("idle_cores", "cores when idle", "{:.4f}"),
    ("lease_cpu_ms", "CPU ms per lease renewal", "{:.3f}"),
    ("lease_ratio", "leases renewed of those due", "{:.3f}"),
    ("lease_worst_60s", "  in the worst 60 s", "{:.3f}"),
    ("pods_per_s", "pods per second to Running", "{:.1f}"),
    ("pod_cpu_ms", "CPU ms per pod", "{:.2f}"),
    ("idle_mb", "MB resident when idle", "{:.1f}"),
    ("peak_mb", "MB resident at most", "{:.1f}"),
    ("server_cores", "cores of the API server when idle", "{:.3f}"),
)
# What this engine is held to: figure, of how many nodes (0: the fewest), most of KWOK's
TARGETS = (
    ("lease_cpu_ms", 0, 0.3),
    ("pod_cpu_ms", 0, 0.3),
    ("idle_mb", 1000, 0.4),
    ("idle_mb", 4000, 0.2),
    ("ready_s", 0, 1.0),
)
MOST_SLOPE_MB = 2.0  # per 1,000 vnodes


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--kwok", default="auto", help="path of kwok, or auto: the cached one, built when there is none")
    words.add_argument("--nodes", type=int, nargs="+", default=[1000], help="sizes, one after the other")
    words.add_argument("--pods", type=int, default=2560, help="pods of the smallest size; the others only idle")
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--idle", type=float, default=75.0, help="seconds of the idle window, 30 or more")
    words.add_argument("--processes", type=int, default=1, help="engine processes that share the fleet")
    words.add_argument("--only", choices=("turbokube", "kwok"), help="one of the two alone")
    words.add_argument("--stages", choices=("stock", "same"), default="stock", help="KWOK's own, or this project's")
    words.add_argument("--output", type=Path, help="JSON file; default: runs/bench-fleet.json of the checkout")
    given = words.parse_args()
    if given.idle < 30:
        words.error(f"--idle is {given.idle:g}; allowed is 30 seconds or more")
    binary = Path() if given.only == "turbokube" else kwok_binary(given.kwok)
    report: dict[str, Any] = {"conditions": gauge.conditions(), "kwok_version": KWOK_VERSION, "settings": _told(given)}
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="turbokube-bench-") as name, control_plane() as plane:
        folder, target = Path(name), load_target(plane.target)
        players: list[Player] = []
        if given.only != "kwok":
            players.append(TurboKube(target, plane.state, processes=given.processes))
        if given.only != "turbokube":
            players.append(Kwok(target, folder, binary, kwok_stages(folder, given.stages == "same")))
        others = gauge.aside(target)
        for number in range(given.rounds):
            for nodes in given.nodes:
                for player in players if number % 2 == 0 else reversed(players):
                    pods = given.pods if nodes == min(given.nodes) else 0
                    results.append(measure(player, plane, target, folder, nodes, pods, given.idle, others))
                    print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    report |= {"aside_per_s": others, "results": results, "medians": (found := medians(results))}
    report["targets"] = table(found, given.nodes)
    output: Path = given.output or ROOT / "runs" / "bench-fleet.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{output}")


def _told(given: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(given, name) for name in ("nodes", "pods", "rounds", "idle", "processes", "stages")}


def measure(
    player: Player, plane: ControlPlane, target: Target, folder: Path, nodes: int, pods: int, idle: float, others: float
) -> dict[str, Any]:
    """One turn of one player: join, idle, a Deployment's pods, and away with it all."""
    began = time.monotonic()
    pids = player.start(nodes)
    try:
        gauge.all_ready(target, nodes)
        ready, joined = time.monotonic() - began, gauge.cpu(pids)
        time.sleep(SETTLE)
        found = _idle(pids, plane, target, nodes, idle, others)
        if pods:
            found |= _load(pids, plane, folder, pods, found["idle_cores"])
    finally:
        if pods:
            gauge.remove_pods(plane)
        player.stop()
        gauge.no_nodes(plane)
    return {
        "player": player.name,
        "nodes": nodes,
        "ready_s": ready,
        "join_cpu_ms": joined * 1000 / nodes,
        **found,
    }


def _idle(
    pids: list[int], plane: ControlPlane, target: Target, nodes: int, seconds: float, others: float
) -> dict[str, Any]:
    """CPU while only leases are renewed; memory at the end."""
    server = gauge.component(plane, "kube-apiserver")
    used, serving, began = gauge.cpu(pids), gauge.cpu(server), time.monotonic()
    seen = gauge.looks(target, seconds)
    used, serving, elapsed = gauge.cpu(pids) - used, gauge.cpu(server) - serving, time.monotonic() - began
    renewals = (seen[-1].renewals - seen[0].renewals) / (seen[-1].time - seen[0].time) - others
    found = gauge.band(seen, nodes / 10.0, others)
    return {
        "renewals_per_s": renewals,
        "idle_cores": used / elapsed,
        "lease_cpu_ms": used * 1000 / (renewals * elapsed),
        "lease_ratio": found["ratio"],
        "lease_worst_60s": found["worst_60s"],
        "idle_mb": gauge.memory(pids),
        "server_cores": serving / elapsed,
        "server_mb": gauge.memory(server),
        "open_files": gauge.files(pids),
    }


def _load(pids: list[int], plane: ControlPlane, folder: Path, pods: int, idle_cores: float) -> dict[str, float]:
    """One Deployment's pods to Running; CPU per pod is what goes beyond the leases'."""
    server = gauge.component(plane, "kube-apiserver")
    used, serving, began = gauge.cpu(pids), gauge.cpu(server), time.monotonic()
    running = gauge.run_pods(plane, folder, pods)
    time.sleep(10.0)  # events and the echoes of the last patches
    used, serving, elapsed = gauge.cpu(pids) - used, gauge.cpu(server) - serving, time.monotonic() - began
    return {
        "pods_per_s": pods / running,
        "pod_cpu_ms": max(0.0, used - idle_cores * elapsed) * 1000 / pods,
        "server_pod_cpu_ms": serving * 1000 / pods,  # leases and all
        "peak_mb": gauge.memory(pids, "VmHWM"),
    }


def medians(results: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each figure by player and number of nodes."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for player in {result["player"] for result in results}:
        for nodes in {result["nodes"] for result in results}:
            mine = [result for result in results if (result["player"], result["nodes"]) == (player, nodes)]
            keys = {key for result in mine for key, value in result.items() if isinstance(value, int | float)}
            values = {key: [one[key] for one in mine if one.get(key) is not None] for key in sorted(keys - {"nodes"})}
            found.setdefault(player, {})[str(nodes)] = {key: gauge.middle(each) for key, each in values.items()}
    return found


def table(found: dict[str, dict[str, dict[str, float]]], sizes: list[int]) -> list[dict[str, Any]]:
    """Print medians over the rounds side by side; returns what came of each target."""
    ours, theirs = found.get("turbokube", {}), found.get("kwok", {})
    ratios: dict[tuple[str, int], float] = {}
    for nodes in sizes:
        print(f"\n{f'{nodes} nodes':34}{'turbokube':>12}{'kwok':>12}{'ratio':>10}")
        for key, words, form in FIGURES:
            mine, other = (each.get(str(nodes), {}).get(key, math.nan) for each in (ours, theirs))
            if not (math.isnan(mine) and math.isnan(other)):
                ratios[key, nodes] = mine / other if other else math.nan
                print(f"{words:34}{form.format(mine):>12}{form.format(other):>12}{ratios[key, nodes]:>10.2f}")
    verdicts: list[dict[str, Any]] = []
    for key, at, most in TARGETS:
        nodes = at or min(sizes)
        if not math.isnan(ratio := ratios.get((key, nodes), math.nan)):
            verdicts.append({"figure": key, "nodes": nodes, "ratio": ratio, "most": most, "met": ratio <= most})
    if len(sizes) > 1 and ours:
        low, high = min(sizes), max(sizes)
        slope = (ours[str(high)]["idle_mb"] - ours[str(low)]["idle_mb"]) * 1000 / (high - low)
        verdicts.append({"figure": "MB per 1,000 vnodes", "value": slope, "most": MOST_SLOPE_MB})
        verdicts[-1]["met"] = slope <= MOST_SLOPE_MB
    print()
    for one in verdicts:
        value = one.get("ratio", one.get("value"))
        where = f" at {one['nodes']} nodes" if "nodes" in one else ""
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['figure']}{where}: {value:.2f}, at most {one['most']:g}")
    return verdicts


if __name__ == "__main__":
    main()
