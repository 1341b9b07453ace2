"""The indicators of one run that can be held against those of another: a flat list of numbers from a report's content.

A reading is a value, or the edges of the bucket that a quantile of a histogram lies in. Infinite: it never happened.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LESS, MORE, NEITHER = "less", "more", ""  # which of two values is better
_LEAST_CALLS = 300  # of a series of API calls, so that its p99 says something (limits.json: least_calls)


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of one run. Exactly one of `value` and `edges` is set; `better`: less, more or neither."""

    name: str
    section: str
    title: str
    unit: str
    better: str
    value: float | None = None
    edges: tuple[float, float] | None = None


def of(content: dict[str, Any]) -> list[Reading]:
    """All readings of a run, in the order of the page, from what `content.build` gives."""
    makers = (_pods, _startup, _phases, _offered, _api, _nodes, _scheduler, _experts, _resources, _cost, _ourselves)
    return [reading for maker in makers for reading in maker(content)]


def _value(
    section: str, name: str, title: str, unit: str, better: str, value: float | None
) -> Iterator[Reading]:  # nothing where a run says nothing
    if value is not None:
        yield Reading(name, section, title, unit, better, value=float(value))


def _edges(section: str, name: str, title: str, edges: Any, unit: str = "s") -> Iterator[Reading]:
    if edges:
        low, high = (math.inf if edge is None else float(edge) for edge in edges)
        yield Reading(name, section, title, unit, LESS, edges=(low, high))


def _pods(content: dict[str, Any]) -> Iterator[Reading]:
    section, pods, load = "Pods", content["pods"], content["throughput"]
    yield from _value(section, "pods-planned", "Pods planned", "pods", NEITHER, pods["planned"])
    yield from _value(section, "pods-running", "Pods that ran", "pods", NEITHER, pods["running"])
    yield from _value(section, "pods-missing", "Pods that never ran", "pods", LESS, pods["planned"] - pods["running"])
    yield from _value(section, "pods-lost", "Pods lost", "pods", LESS, pods["lost"])
    yield from _value(section, "pods-restarted", "Pods restarted", "pods", LESS, pods["restarted"])
    yield from _value(section, "pods-per-second", "Throughput, mean", "pods/s", MORE, load["average"])
    window = f"Throughput, best {load['window']:g} s"
    yield from _value(section, "pods-per-second-peak", window, "pods/s", MORE, load["peak"])
    if load["begin"] is not None and load["end"] is not None:
        took = load["end"] - load["begin"]
        yield from _value(section, "pods-seconds", "First pod created to last one running", "s", LESS, took)


def _startup(content: dict[str, Any]) -> Iterator[Reading]:
    section = "Pod startup"
    for start in content["startup"]:
        for quantile, value in start["percentiles"].items():
            if start["n"]:  # null among pods that were seen: that share never started
                name = f"startup-{start['clock']}-{quantile}"
                seconds = math.inf if value is None else value
                yield from _value(section, name, f"{start['clock']}: {quantile}", "s", LESS, seconds)
        if start["never"]:
            name = f"startup-{start['clock']}-never"
            yield from _value(section, name, f"{start['clock']}: never", "pods", LESS, start["never"])


def _phases(content: dict[str, Any]) -> Iterator[Reading]:
    for phase in content["phases"]:
        if phase["started"] and phase["ended"]:
            took = phase["ended"] - phase["started"]
            yield from _value("Phases", f"phase-{phase['name']}-seconds", f"{phase['name']}: took", "s", NEITHER, took)
    for quantile in ("p50", "p99", "max"):
        seconds = (content.get("namespaces") or {}).get(quantile)
        yield from _value("Phases", f"namespaces-{quantile}", f"One namespace: {quantile}", "s", LESS, seconds)


def _offered(content: dict[str, Any]) -> Iterator[Reading]:
    section = "Offered and achieved"
    for load in content.get("offered") or []:
        name = load["phase"]
        yield from _value(section, f"offered-{name}", f"{name}: intended", "requests/s", NEITHER, load["offered_rate"])
        yield from _value(section, f"achieved-{name}", f"{name}: accepted", "requests/s", MORE, load["achieved_rate"])
        for what in ("throttled", "retried", "failed"):
            yield from _value(section, f"{what}-{name}", f"{name}: {what}", "requests", LESS, load[what])
        for row in load["latency"]:
            call = f"{row['verb']} {row['resource']}"
            for quantile in ("p50", "p99"):
                key, title = f"latency-{name}-{call}-{quantile}", f"{name}: {call} {quantile}, from intended"
                found = row[quantile]
                if isinstance(found, list | tuple):
                    yield from _edges(section, key, title, found)
                else:
                    yield from _value(section, key, title, "s", LESS, found)


def _api(content: dict[str, Any]) -> Iterator[Reading]:
    section = "API calls, as the API servers measure them"
    for series in content["api"]["series"]:
        calls, name = series["whole"], f"{series['resource']} {series['kind']}"
        if calls["n"] < _LEAST_CALLS:
            continue
        yield from _value(section, f"api-{name}-n", f"{name}: calls", "calls", NEITHER, calls["n"])
        slow = None if calls["share"] is None else 100 * (1 - calls["share"])
        title = f"{name}: over {series['limit']:g} s"
        yield from _value(section, f"api-{name}-slow", title, "% of calls", LESS, slow)
        yield from _edges(section, f"api-{name}-p99", f"{name}: p99", calls["p99"])


def _nodes(content: dict[str, Any]) -> Iterator[Reading]:
    section, nodes = "Nodes and leases", content["nodes"]
    if nodes:
        yield from _value(section, "nodes", "Nodes", "nodes", NEITHER, nodes["total"])
        yield from _value(section, "nodes-notready", "NotReady", "times", LESS, nodes["notready"])
    for ratio in content["leases"]:
        name, who = f"leases-{ratio['source']}", f"Renewals made ÷ due, by {ratio['source']}"
        yield from _value(section, name, who, "ratio", NEITHER, ratio["overall"])
        worst = ratio["worst"][2] if ratio["worst"] else None
        yield from _value(section, f"{name}-worst", f"{who}: worst 60 s", "ratio", NEITHER, worst)


def _scheduler(content: dict[str, Any]) -> Iterator[Reading]:
    section = "Scheduler"
    for result, count in sorted(content["scheduler"]["attempts"].items()):
        better = NEITHER if result == "scheduled" else LESS
        yield from _value(section, f"attempts-{result}", f"Attempts: {result}", "attempts", better, count)
    for row in content["scheduler"]["latency"]:
        for quantile, edges in (row.get("intervals") or {}).items():
            yield from _edges(section, f"scheduler-{row['title']}-{quantile}", f"{row['title']}: {quantile}", edges)


def _experts(content: dict[str, Any]) -> Iterator[Reading]:
    for name, value in (content.get("experts") or {}).items():
        yield from _value("What experts look at", f"expert-{name}", name.replace("_", " "), "", NEITHER, value)


def _resources(content: dict[str, Any]) -> Iterator[Reading]:
    cpu: defaultdict[str, float] = defaultdict(float)
    memory: defaultdict[str, float] = defaultdict(float)
    for row in content["processes"]:
        cpu[row["kind"]] += row["cpu_seconds"]
        memory[row["kind"]] += row["memory_bytes"]
    ran = content["pods"]["running"]
    for kind in cpu:
        if cpu[kind] or memory[kind]:
            yield from _value("Processes", f"cpu-{kind}", f"{kind}: CPU", "s", LESS, cpu[kind])
            each = 1000 * cpu[kind] / ran if ran else None
            yield from _value("Processes", f"cpu-per-pod-{kind}", f"{kind}: CPU per pod that ran", "ms", LESS, each)
            title = f"{kind}: memory, at most"
            yield from _value("Processes", f"memory-{kind}", title, "MiB", LESS, memory[kind] / 2**20)


def _cost(content: dict[str, Any]) -> Iterator[Reading]:
    section, found = "Load to cost", content.get("cost") or {}
    yield from _value(section, "cost", "Cost of the record's time", "USD", LESS, found.get("usd"))
    yield from _value(section, "pods-per-usd", "Pods that ran, for 1 USD", "pods/USD", MORE, found.get("pods_per_usd"))
    title = "Hours of Ready Nodes, for 1 USD"
    yield from _value(section, "node-hours-per-usd", title, "h/USD", MORE, found.get("node_hours_per_usd"))


def _ourselves(content: dict[str, Any]) -> Iterator[Reading]:
    for who, lag in content["lag"].items():
        yield from _value("The measurement itself", f"lag-{who}", f"{who}: lag, p99", "s", LESS, lag["p99"])
