"""Which run a command means: a new one, the one that was interrupted, or the next of a finished one's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from turbokube import disk

from .writer import BundleError

FILE = "run.json"
# How the run is driven and what is made of it, not what is run: may differ when a run is resumed.
_ASIDE = frozenset(
    f"turbokube_{name}"
    for name in (
        *("run", "profile", "home", "preflight", "collect_on", "binaries", "deadline_s"),
        *("fail_on_verdict", "slo", "limits", "machines", "price_core_hour_usd"),
        *(f"guard_{name}" for name in ("store", "outage_s", "notready", "memory", "disk")),
    )
)
_MOVED = {"deadline", "limits"}  # of a phase: the same
_LONGEST_VALUE = 60  # characters of a value, such as turbokube_phases, that a sentence quotes


@dataclass(frozen=True, slots=True)
class Run:
    """The run that a name stands for. `state`: new, unfinished or finished."""

    name: str
    folder: Path
    state: str


def read(folder: Path) -> dict[str, Any] | None:
    """The run.json of a bundle; None when there is none."""
    try:
        found: dict[str, Any] = msgspec.json.decode((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"{folder / FILE} cannot be read: {error}") from None
    return found


def write(folder: Path, content: dict[str, Any]) -> None:
    """Replace run.json at one stroke."""
    folder.mkdir(parents=True, exist_ok=True)
    disk.replace(folder / FILE, msgspec.json.format(msgspec.json.encode(content)) + b"\n", 0o666)


def look(runs: Path, name: str) -> Run:
    """The state of exactly this run."""
    found = read(runs / name)
    return Run(name, runs / name, "new" if found is None else "finished" if found.get("finished") else "unfinished")


def resolve(runs: Path, name: str, profile: dict[str, Any] | None = None) -> Run:
    """The run to work on: `name` when new or unfinished, else `name-2`, `name-3`, ...

    With `profile`, an unfinished run of another profile raises BundleError that names the keys that differ.
    """
    number = 1
    while (run := look(runs, name if number == 1 else f"{name}-{number}")).state == "finished":
        number += 1
    if profile is not None and run.state == "unfinished":
        same_profile(run.name, (read(run.folder) or {}).get("profile") or {}, profile)
    return run


def same_profile(name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise BundleError, naming what differs, if a run cannot go on under `now`."""
    keys = sorted(
        key
        for key in before.keys() | now.keys()
        if key not in _ASIDE and _work(key, before.get(key)) != _work(key, now.get(key))
    )
    if keys:
        changes = ", ".join(f"{key} {_short(before.get(key))} → {_short(now.get(key))}" for key in keys[:8])
        more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        raise BundleError(
            f"run {name} is unfinished and has another profile ({changes}{more}); "
            "set them back, name another turbokube_run, or remove the run with teardown"
        )


def _work(key: str, value: Any) -> Any:
    """What of a setting decides on what is run: of phases neither their deadlines nor their limits."""
    if key == "turbokube_phases" and isinstance(value, list):
        groups = [item.get("together", [item]) for item in value]
        return [[{name: one[name] for name in one.keys() - _MOVED} for one in group] for group in groups]
    if key == "turbokube_phases_override" and isinstance(value, dict):
        return {place: one for place, one in value.items() if place.split(".")[1:2] not in [[name] for name in _MOVED]}
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
