"""Results of run.py side by side, in Markdown: the first is what the others are compared with.

python -m bench.fidelity.table runs/fidelity/real.json runs/fidelity/builtin-*.json
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.fidelity.tally import PROXY

# Below so many per node and minute a request is a detail; those that are rarer everywhere are one row together.
RARE = 0.005
_SERVER = (
    ("server", "cpu_millicores", "API server: CPU, millicores", "{:.2f}"),
    ("server", "heap_kb", "API server: heap and stacks after a collection, kB", "{:.0f}"),
    ("server", "goroutines", "API server: goroutines", "{:.1f}"),
    ("wire", "connections", "connections", "{:.2f}"),
    ("wire", "opened_per_minute", "connections opened a minute", "{:.3f}"),
    ("wire", "up_bytes_per_minute", "bytes to the API server a minute (TLS)", "{:.0f}"),
    ("wire", "down_bytes_per_minute", "bytes from the API server a minute (TLS)", "{:.0f}"),
    ("player", "cpu_millicores", "what plays the node: CPU, millicores", "{:.2f}"),
    ("player", "resident_kb", "what plays the node: resident, kB", "{:.0f}"),
)


def main() -> None:
    """The command line."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(render([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))


def render(results: list[dict[str, Any]]) -> str:
    """All tables."""
    first = results[0]
    parts = [
        _conditions(results),
        "### Requests per node and minute\n\n" + _table(results, "requests", "{:.3f}", RARE),
        "### Requests per node to join (to 30 s after Ready)\n\n" + _table(results, "joining", "{:.2f}", 0),
        "### Watches open per node\n\n" + _table(results, "watches", "{:.2f}", 0),
        "### Requests per node and minute by priority level (APF)\n\n"
        + _rows(results, lambda one: one["server"]["dispatched"], "{:.3f}", RARE),
        "### Cost per node\n\n" + _costs(results),
        "### Objects, bytes of JSON\n\n" + _rows(results, lambda one: one["sizes"], "{:.0f}", 0, total=False),
    ]
    for other in results[1:]:
        parts.append(f"### Beyond ± 10 %: {other['subject']}\n\n" + "\n".join(beyond(first, other)))
    return "\n\n".join(parts)


def beyond(first: dict[str, Any], other: dict[str, Any], limit: float = 0.1) -> list[str]:
    """A line for each kind of request whose rate differs by more than the limit, and by more than chance may do.

    Chance: one standard deviation of the difference of two counts (Poisson). kube-proxy's are left out where the other
    has none.
    """
    node_minutes = [one["minutes"] * one["conditions"]["nodes"] for one in (first, other)]
    has_proxy = any(kind.startswith(PROXY) for kind in other["requests"])
    lines = []
    for kind in _keys([first, other], "requests"):
        if kind.startswith(PROXY) and not has_proxy:
            continue
        real, ours = (one["requests"].get(kind, 0.0) for one in (first, other))
        chance = math.sqrt(real / node_minutes[0] + ours / node_minutes[1])
        if abs(ours - real) > max(limit * real, chance):
            lines.append(f"- `{kind}`: {ours:.3f} instead of {real:.3f} ({_share(ours, real)})")
    return lines or ["None."]


def _conditions(results: list[dict[str, Any]]) -> str:
    head = "| subject | nodes | pods per node | replaced per node and minute | minutes | images | to all Ready, s |\n"
    lines = []
    for one in results:
        of = one["conditions"]
        words = (one["subject"], of["nodes"], of["pods"], of["churn"], f"{one['minutes']:.1f}", of["images"])
        lines.append("| " + " | ".join(map(str, words)) + f" | {one['ready_s']:.1f} |")
    return head + "|---|---|---|---|---|---|---|\n" + "\n".join(lines)


def _table(results: list[dict[str, Any]], section: str, form: str, least: float) -> str:
    return _rows(results, lambda one: one[section], form, least)


def _rows(
    results: list[dict[str, Any]],
    of: Callable[[dict[str, Any]], dict[str, float]],
    form: str,
    least: float,
    total: bool = True,
) -> str:
    """A row per key, in the order of the first result's greatest; what is rare in all is one row."""
    keys = {key for one in results for key in of(one)}
    order = sorted(keys, key=lambda key: (-of(results[0]).get(key, 0.0), key))
    rare = [key for key in order if all(of(one).get(key, 0.0) < least for one in results)]
    rows = [(f"`{key}`", [of(one).get(key, 0.0) for one in results]) for key in order if key not in rare]
    if rare:
        rows.append((f"{len(rare)} rarer kinds", [sum(of(one).get(key, 0.0) for key in rare) for one in results]))
    if total:
        rows.append(("all", [sum(of(one).values()) for one in results]))
    return _markdown(results, rows, form)


def _costs(results: list[dict[str, Any]]) -> str:
    lines = _markdown(results, [], "").splitlines()
    for section, key, words, form in _SERVER:
        lines.append(_line(words, [one[section][key] for one in results], form))
    return "\n".join(lines)


def _markdown(results: list[dict[str, Any]], rows: Iterable[tuple[str, list[float]]], form: str) -> str:
    head = "| | " + " | ".join(one["subject"] for one in results) + " |"
    return "\n".join([head, "|---|" + "---:|" * len(results), *(_line(words, each, form) for words, each in rows)])


def _line(words: str, values: list[float], form: str) -> str:
    first, *others = values
    cells = [form.format(first), *(f"{form.format(value)} ({_share(value, first)})" for value in others)]
    return f"| {words} | " + " | ".join(cells) + " |"


def _share(value: float, first: float) -> str:
    """How much more or less it is."""
    if not first:
        return "none there" if value else "="
    return f"{(value / first - 1) * 100:+.0f} %"


def _keys(results: list[dict[str, Any]], section: str) -> list[str]:
    return sorted({key for one in results for key in one[section]})


if __name__ == "__main__":
    main()
