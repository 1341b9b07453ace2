"""What a phase or a run may be limited by: the names in `limits` and `turbokube_limits`, with their units.

How each is measured, and what makes it INCONCLUSIVE, is said in docs/verdict.md.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Known:
    """One limit. `bound`: most or least; `unit`: s, share (0 to 1), 1/s, or empty for a count."""

    bound: str
    unit: str
    about: str


def _most(unit: str, about: str) -> Known:
    return Known("most", unit, about)


_KNOWN = {
    "seconds": _most("s", "From the phase's begin to its end"),
    "pods_per_s": Known("least", "1/s", "Pods that came to run, from the first created to the last running"),
    "achieved_share": Known("least", "share", "Rate of accepted requests ÷ rate at which requests were meant"),
    "failed_share": _most("share", "Requests refused for good, of those meant"),
    "throttled_share": _most("share", "Answers 429, of all requests sent"),
    "retried_share": _most("share", "Requests sent again for want of a good answer, of all sent"),
    "request_p50_s": _most("s", "From the intended time to the answer, worst (resource, verb)"),
    "request_p90_s": _most("s", "From the intended time to the answer, worst (resource, verb)"),
    "request_p99_s": _most("s", "From the intended time to the answer, worst (resource, verb)"),
    "request_max_s": _most("s", "From the intended time to the answer, worst (resource, verb)"),
    "pod_startup_p50_s": _most("s", "From the intended creation of a pod until it was seen running"),
    "pod_startup_p90_s": _most("s", "From the intended creation of a pod until it was seen running"),
    "pod_startup_p99_s": _most("s", "From the intended creation of a pod until it was seen running"),
    "pod_startup_max_s": _most("s", "From the intended creation of a pod until it was seen running"),
    "api_p99_s": _most("s", "API server's latency of mutating calls and reads of one object, worst series"),
    "api_list_p99_s": _most("s", "API server's latency of reads of a namespace or the cluster, worst series"),
    "apf_wait_p99_s": _most("s", "Time in a queue of priority and fairness, worst level"),
    "apf_rejected": _most("", "Requests that priority and fairness refused"),
    "scheduling_p99_s": _most("s", "From a pod's entry into the scheduler's queue to its binding"),
    "workqueue_wait_p99_s": _most("s", "Time an item waits for its controller, worst queue"),
    "client_wait_p99_s": _most("s", "Time that a component's own client limiter held a request, worst component"),
    "fsync_p99_s": _most("s", "fsync of the store's log"),
    "commit_p99_s": _most("s", "Commit of the store's backend"),
    "store_share": _most("share", "Size of the store's file, of its quota"),
    "lag_p99_s": _most("s", "How late the generator sent; beyond it the verdict is INCONCLUSIVE"),
}


def known_limits() -> dict[str, Known]:
    """Every limit by its name, in the order of the reference."""
    return dict(_KNOWN)


def check_limits(path: str, limits: Any) -> list[str]:
    """What is wrong with `limits`, a sentence each that names the path in the profile; empty when all is well."""
    if not isinstance(limits, dict):
        return [f"{path} is {limits!r}; it must be a dictionary of limits and numbers"]
    return [problem for name, value in limits.items() if (problem := _problem(path, str(name), value))]


def _problem(path: str, name: str, value: Any) -> str:
    known = _KNOWN.get(name)
    if known is None:
        near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "docs/verdict.md lists those that are."
        return f"{path}.{name} is not a limit; {hint}"
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    most = 1 if known.unit == "share" else math.inf
    if number and 0 <= value <= most:
        return ""
    return f"{path}.{name} is {value!r}; it must be a number " + ("from 0 to 1" if most == 1 else "of at least 0")
