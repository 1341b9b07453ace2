"""What a run cost, and what it did for that: LCR, the load-to-cost ratio that the original is named after."""

from __future__ import annotations

from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.measure import sli
from turbokube.measure.facts import Facts
from turbokube.profile.machines import CORE_HOUR_USD, Machines, machines
from turbokube.profile.schema import PREFIX

GIVEN, AGENTS, USED = "turbokube_machines", "the agent's machine", "the CPU that its processes used"


def cost(reader: Reader, facts: Facts, begin: float, end: float, cpu_seconds: float) -> dict[str, Any] | None:
    """USD of the record's time, and pods and node-hours for one USD. `cpu_seconds`: of all processes of the run.

    What is paid for are the machines of `turbokube_machines`, else the agent's; where components run elsewhere, too,
    nothing is known of their machines, so that it is the CPU that was used. None where neither is known.
    """
    profile = facts.meta.get("profile") or {}
    core_hour = float(profile.get(f"{PREFIX}price_core_hour_usd", CORE_HOUR_USD))
    away = [gap for gap in facts.interruptions if gap.what == "agent"]  # from an interruption to the going on
    hours = _attended(begin, end, away) / 3600
    held, basis = _held(facts.meta, profile, core_hour)
    used = cpu_seconds / 3600 * core_hour if cpu_seconds else None
    usd = sum(one.count * one.usd_per_hour for one in held) * hours if held else used
    if usd is None:
        return None
    pods: int = reader.query("SELECT COUNT(running_seen) FROM pods")[0][0]
    node_hours = _node_hours(reader, end, away)
    found = {
        "usd": usd,
        "basis": basis,
        "hours": hours,
        "machines": [one.told() for one in held],
        "core_hour_usd": core_hour,
        "used_usd": used,
        "pods": pods,
        "node_hours": node_hours,
        "pods_per_usd": pods / usd if usd else None,
        "node_hours_per_usd": node_hours / usd if usd else None,
    }
    return {**found, "words": _words(found)}


def _held(meta: dict[str, Any], profile: dict[str, Any], core_hour: float) -> tuple[list[Machines], str]:
    if given := profile.get(GIVEN):
        return machines(given, core_hour), GIVEN
    cores = (meta.get("hardware") or {}).get("cores")
    if cores is None or meta.get("elsewhere"):
        return [], USED
    return machines([{"name": AGENTS, "cores": cores}], core_hour), AGENTS


def _attended(begin: float, end: float, away: list[sli.Interruption]) -> float:
    """Seconds of a span in which the record had an agent."""
    return max(0.0, end - begin - sum(max(0.0, min(gap.ended, end) - max(gap.started, begin)) for gap in away))


def _node_hours(reader: Reader, end: float, away: list[sli.Interruption]) -> float:
    """Hours of Nodes that were Ready: the observer's counts, each until the next."""
    found = reader.query("SELECT time, ready FROM nodes ORDER BY time")
    rows: list[tuple[float, int]] = [(row["time"], row["ready"]) for row in found]
    until = [*(time for time, _ in rows[1:]), end]
    spans = ((ready, _attended(time, then, away)) for (time, ready), then in zip(rows, until, strict=True))
    return sum(ready * seconds for ready, seconds in spans) / 3600


def _words(found: dict[str, Any]) -> str:
    """What was paid for what."""
    what = f"{USED}, at {usd(found['core_hour_usd'])} a core-hour; {GIVEN} says what else is to be paid for"
    if found["machines"]:
        each = ", ".join(_machine(one) for one in found["machines"])
        what = f"{found['hours'] * 60:,.1f} min of {each}"
    return f"{usd(found['usd'])} for {what}"


def _machine(one: dict[str, Any]) -> str:
    count = f"{one['count']} × " if one["count"] > 1 else ""
    cores = f"{one['cores']:g} cores, " if one["cores"] else ""
    return f"{count}{one['name']} ({cores}{usd(one['usd_per_hour'])}/h)"


def usd(value: float) -> str:
    """Cents from a dollar on, below that three digits that say something."""
    return f"${value:,.2f}" if value >= 1 or not value else f"${value:.3g}"
