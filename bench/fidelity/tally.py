"""An audit log, counted: who asked for what how often, and which watches are open."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

# Who asks on an API server without nodes. All others are nodes, or what plays them.
_NOT_NODES = (
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:serviceaccount:kube-system:",
    "kubernetes-super-admin",
    "turbokube:load",
    "turbokube:observer",
    "turbokube:scraper",
)
KUBE_PROXY = "system:kube-proxy"
PROXY = "kube-proxy: "  # what its requests are told apart by


@dataclass(frozen=True)
class Request:
    """One line of the log. `what` is the resource with its subresource; times are UNIX seconds."""

    user: str
    agent: str
    verb: str
    what: str
    name: str
    namespace: str
    code: int
    begun: float
    ended: float | None  # None: a watch that has only begun
    query: str

    @property
    def kind(self) -> str:
        """What it is counted as: "update leases", "kube-proxy: watch services"."""
        return self._whose(f"{self.verb} {self.what}")

    @property
    def watched(self) -> str:
        """What a watch is counted as while it is open."""
        return self._whose(self.what)

    def _whose(self, words: str) -> str:
        return f"{PROXY}{words}" if self.by_proxy else words

    @property
    def by_proxy(self) -> bool:
        """Whether kube-proxy asked."""
        return self.user == KUBE_PROXY or self.agent.startswith("kube-proxy/")


@dataclass
class Tally:
    """A stretch of time. Requests are counted when they end, watches when they begin."""

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # "404 get leases"
    agents: Counter[str] = field(default_factory=Counter)
    users: set[str] = field(default_factory=set)


def read(lines: Iterable[str]) -> Iterator[Request]:
    """The requests of nodes. Stages of a request that is not long-running but its last are left out."""
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        user = event["user"].get("username", "")
        if user.startswith(_NOT_NODES) or "objectRef" not in event:
            continue
        watch = event["verb"] == "watch"
        if event["stage"] not in (("ResponseStarted", "ResponseComplete") if watch else ("ResponseComplete", "Panic")):
            continue
        of = event["objectRef"]
        yield Request(
            user=user,
            agent=event.get("userAgent", ""),
            verb=event["verb"],
            what="/".join(filter(None, (of.get("resource"), of.get("subresource")))),
            name=of.get("name", ""),
            namespace=of.get("namespace", ""),
            code=event.get("responseStatus", {}).get("code", 0),
            begun=_seconds(event["requestReceivedTimestamp"]),
            ended=None if event["stage"] == "ResponseStarted" else _seconds(event["stageTimestamp"]),
            query=event["requestURI"].partition("?")[2],
        )


def count(requests: Iterable[Request], begin: float, end: float) -> Tally:
    """What falls into [begin, end)."""
    tally = Tally()
    for request in requests:
        if request.verb == "watch" and request.ended is not None:
            continue
        at = request.begun if request.ended is None else request.ended
        if not begin <= at < end:
            continue
        tally.requests[request.kind] += 1
        tally.agents[request.agent] += 1
        tally.users.add(request.user)
        if request.code >= 400:
            tally.failed[f"{request.code} {request.kind}"] += 1
    return tally


def open_watches(requests: Iterable[Request], at: float) -> Counter[str]:
    """Resource → watches of nodes that are open then."""
    begun: Counter[str] = Counter()
    for request in requests:
        if request.verb != "watch" or request.code >= 400:
            continue
        if request.ended is None:
            begun[request.watched] += request.begun <= at
        elif request.ended <= at:
            begun[request.watched] -= 1
    return +begun


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
