"""Guard rails: what ends a load before the machine or the target comes to harm, and in which words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from turbokube.predict import machine
from turbokube.profile.rules import quantity
from turbokube.profile.schema import variables

_SIZE, _QUOTA = "etcd_mvcc_db_total_size_in_bytes", "etcd_server_quota_backend_bytes"


@dataclass(frozen=True, slots=True)
class Trip:
    """A guard that ended a load. `ours`: what ran out is the machine's that measures, so nothing is told of the target.

    `words` are a sentence without its full stop.
    """

    name: str  # store, outage, notready, memory, disk
    words: str
    ours: bool


class Scrapes(Protocol):
    """What the scraper tells."""

    def latest(self, metric: str) -> dict[str, float]:
        """The last value of a metric without labels, by component."""
        ...

    def silent(self, kind: str) -> float:
        """Seconds since when no component of this kind has answered; 0 while one does, or none ever did."""
        ...


@dataclass(frozen=True, kw_only=True)
class Guards:
    """The thresholds of a run; one that is 0 is off. docs/guards.md says what each is for."""

    store: float  # share of the quota
    outage: float  # seconds
    notready: float  # share of the vnodes
    memory: float  # bytes
    disk: float  # bytes
    folders: Sequence[Path]  # on whose disks the run writes
    scrapes: Scrapes
    nodes: Callable[[], tuple[int, int]]  # how many there are, and how many are Ready

    @classmethod
    def of(
        cls,
        profile: Mapping[str, Any],
        folders: Sequence[Path],
        scrapes: Scrapes,
        nodes: Callable[[], tuple[int, int]],
    ) -> Guards:
        """By a profile; what it does not set has its default. Vnodes that its faults take are not missed."""

        def setting(name: str) -> Any:
            return profile.get(f"turbokube_guard_{name}", variables()[f"turbokube_guard_{name}"].default)

        notready = float(setting("notready"))
        asked = sum(float(fault["share"]) for fault in profile.get("turbokube_faults") or ())
        return cls(
            store=float(setting("store")),
            outage=float(setting("outage_s")),
            notready=notready + asked if notready and notready + asked < 1 else 0.0,
            memory=quantity(str(setting("memory") or "0")),
            disk=quantity(str(setting("disk") or "0")),
            folders=folders,
            scrapes=scrapes,
            nodes=nodes,
        )

    def look(self) -> Trip | None:
        """The first guard that trips now. Takes less than a millisecond."""
        return next(self._tripped(), None)

    def _tripped(self) -> Iterator[Trip]:
        """What runs out here first: it may be why the target does not answer."""
        yield from self._machine()
        yield from self._store()
        away = self.scrapes.silent("kube-apiserver") if self.outage else 0.0
        if away > self.outage:
            words = f"no API server has answered for {away:.0f} s (turbokube_guard_outage_s is {self.outage:g})"
            yield Trip("outage", words, ours=False)
        total, ready = self.nodes()
        if self.notready and total - ready > self.notready * total:
            words = f"{total - ready:,} of {total:,} vnodes are NotReady (more than a share of {self.notready:g})"
            yield Trip("notready", words, ours=False)

    def _machine(self) -> Iterator[Trip]:
        if self.memory and (left := machine.available_memory()) < self.memory:
            words = f"{_mib(left)} of memory are available to the agent's machine, less than {_mib(self.memory)}"
            yield Trip("memory", words, ours=True)
        for folder in self.folders if self.disk else ():
            if (left := shutil.disk_usage(folder).free) < self.disk:
                yield Trip("disk", f"{_mib(left)} are free at {folder}, less than {_mib(self.disk)}", ours=True)

    def _store(self) -> Iterator[Trip]:
        quotas = self.scrapes.latest(_QUOTA) if self.store else {}
        for name, size in self.scrapes.latest(_SIZE).items() if quotas else ():
            quota = quotas.get(name, 0.0)
            if quota and size >= self.store * quota:
                of = f"{_mib(size)} of {_mib(quota)}, {size / quota:.0%}"
                yield Trip(
                    "store", f"{name} nears its quota: {of} (turbokube_guard_store is {self.store:g})", ours=False
                )


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
