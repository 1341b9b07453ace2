"""`turbokube_machines`: the machines that a run keeps busy, and what they cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

# What the original's fleet ran on: workers of 2 cores and 16 GB at 0.15 USD an hour (its findings, 8)
CORE_HOUR_USD = 0.075

_FIELDS = ("name", "count", "cores", "usd_per_hour")


@dataclass(frozen=True, slots=True)
class Machines:
    """Some machines of one kind. `cores` and `usd_per_hour` are those of one."""

    name: str
    count: int
    cores: float
    usd_per_hour: float

    def told(self) -> dict[str, Any]:
        """For who reads JSON."""
        return asdict(self)


def machines(given: list[dict[str, Any]], core_hour_usd: float) -> list[Machines]:
    """What `check_machines` found nothing wrong with; a core's price stands for that of a machine without one."""
    return [
        Machines(
            str(one["name"]),
            int(one.get("count", 1)),
            float(one.get("cores", 0)),
            float(one.get("usd_per_hour", one.get("cores", 0) * core_hour_usd)),
        )
        for one in given
    ]


def check_machines(path: str, given: list[dict[str, Any]]) -> list[str]:
    """What is wrong with them, a sentence each; empty when all is well."""
    return [f"{path} has {one}, but {wrong}" for one in given for wrong in _wrong(one)]


def _wrong(one: dict[str, Any]) -> list[str]:
    wrong = [f"{name} is none of {', '.join(_FIELDS)}" for name in one if name not in _FIELDS]
    if not isinstance(one.get("name"), str) or not one["name"]:
        wrong.append("name must be text")
    count = one.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        wrong.append("count must be a whole number of at least 1")
    if "cores" not in one and "usd_per_hour" not in one:
        wrong.append("it must have cores, usd_per_hour or both")
    for name in ("cores", "usd_per_hour"):
        value = one.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            wrong.append(f"{name} must be a number of at least 0")
    return wrong
