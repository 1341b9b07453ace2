"""Who plays the nodes: real ones, or a fleet of any engine and level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from bench.fidelity.plane import Audited
from bench.fidelity.real import RealNodes
from bench.fidelity.relay import Counts, Relay
from turbokube.api.target import load_target
from turbokube.engines.limits import LIMITS
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec

_RUN = "fidelity"
_START = 0.3  # seconds that a container takes to start; about what containerd and runc need for an image that is there


class Subject(Protocol):
    """Nodes that are measured."""

    def start(self, count: int) -> None:
        """Have so many; they need not be Ready when this returns."""
        ...

    def counts(self) -> Counts:
        """Connections and bytes of all nodes together."""
        ...

    def pids(self) -> list[int]:
        """The processes that play the nodes, or the first of a tree of them."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass
class Real:
    """Kubelets and kube-proxies of a release."""

    audited: Audited
    relay: Relay
    folder: Path
    binaries: Path
    images: int
    proxy: bool

    def __post_init__(self) -> None:
        self._nodes = RealNodes(self.folder, self.audited.pki, self.audited.port, self.relay, self.binaries)

    def start(self, count: int) -> None:
        self._nodes.start(count, images=self.images, start=_START, proxy=self.proxy)

    def counts(self) -> Counts:
        return total(node.counts for node in self._nodes.nodes)

    def pids(self) -> list[int]:
        return [node.process.pid for node in self._nodes.nodes if node.process]

    def close(self) -> None:
        self._nodes.close()


class Fleet:
    """A fleet as module vnode_fleet makes it, whose way to the API server leads through the relay."""

    def __init__(self, audited: Audited, relay: Relay, spec: Spec) -> None:
        port, self._counts = relay.listen()
        self._target = msgspec.structs.replace(load_target(audited.plane.target), servers=[f"https://127.0.0.1:{port}"])
        self._state = audited.plane.state
        self._spec = spec
        self._pids: list[int] = []

    def start(self, count: int) -> None:
        self._spec = msgspec.structs.replace(self._spec, count=count)
        self._pids = fleet.present(lambda: self._target, self._state, self._spec).pids

    def counts(self) -> Counts:
        return self._counts

    def pids(self) -> list[int]:
        return self._pids

    def close(self) -> None:
        fleet.absent(self._target, self._state, self._spec)


def spec(engine: str, fidelity: str, join: str, images: int, binary: str) -> Spec:
    """The fleet of a subject `engine:fidelity`; what an engine cannot vary is as it has it."""
    given = LIMITS[engine].only if engine in LIMITS else {"cpu": "2"}
    return Spec(
        run=_RUN,
        count=0,
        placement="cluster",
        pods=110,
        engine=engine,
        fidelity=fidelity,
        join=join,
        images=images,
        binary=binary,
        **given,
    )


def total(each: Iterable[Counts]) -> Counts:
    """The sum of many."""
    found = Counts()
    for one in each:
        found.opened += one.opened
        found.now += one.now
        found.up += one.up
        found.down += one.down
    return found
