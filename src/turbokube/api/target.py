"""The cluster under test: where its parts listen and with which credential each actor speaks to them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from .credentials import Credential, from_kubeconfig


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of one component, as the scraper sees it."""

    name: str  # unique in a run: kube-apiserver-0, etcd-2, scheduler-00
    kind: str  # kube-apiserver, kube-controller-manager, kube-scheduler, etcd, kine, fleet
    url: str  # scheme, address, port
    metrics_path: str = "/metrics"
    ca_file: str | None = None  # None: the CA of the scraper's credential
    certificate_file: str | None = None  # a client certificate of its own, as etcd asks for
    key_file: str | None = None
    token_file: str | None = None  # a token in place of a certificate


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps the objects, and how its own count of them is had."""

    kind: str = "etcd"  # etcd, kine
    endpoints: list[str] = []
    etcdctl: str | None = None  # a path, where the store answers it
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """All that fleet, load and measure are given of a cluster. Kept as JSON, 0600, without secrets in it."""

    name: str
    servers: list[str] = []  # API server addresses; empty: what the kubeconfig says
    kubeconfigs: dict[str, str] = {}  # actor (admin, fleet, load, observer, scraper) → path
    contexts: dict[str, str] = {}
    components: list[Component] = []
    store: Store | None = None
    ours: bool = False  # made by this run; else it lives on and may hold what is not ours

    def credential(self, actor: str) -> Credential:
        """The credential of an actor; the admin's where the actor has none of its own."""
        name = actor if actor in self.kubeconfigs else "admin"
        return from_kubeconfig(self.kubeconfigs[name], self.contexts.get(name))

    def addresses(self, credential: Credential) -> list[str]:
        """Every API server that requests are spread over."""
        return self.servers or [credential.server]

    def fronts(self) -> list[Component]:
        """What API servers are behind: addresses that are none of theirs, asked through for /readyz."""
        known = {component.url for component in self.components if component.kind == "kube-apiserver"}
        fronts = [server for server in self.servers if known and server not in known]
        return [
            Component(name=f"load-balancer-{number}", kind="load-balancer", url=server, metrics_path="/readyz")
            for number, server in enumerate(fronts)
        ]

    def save(self, path: Path) -> None:
        """Write the target as JSON, readable by its owner only."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)))


def load_target(path: str | Path) -> Target:
    """Read what `save` wrote; raises msgspec.ValidationError where it does not fit."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Target)


def target_from_kubeconfig(path: str, context: str | None = None) -> Target:
    """A target that is known by a kubeconfig only: every actor is the admin, the API server is scraped."""
    credential = from_kubeconfig(path, context)
    return Target(
        name=context or Path(path).name,
        servers=[credential.server],
        kubeconfigs={"admin": str(Path(path).expanduser())},
        contexts={"admin": context} if context else {},
        components=[Component(name="kube-apiserver-0", kind="kube-apiserver", url=credential.server)],
    )
