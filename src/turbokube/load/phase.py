"""What a phase of kind `create` is asked to do."""

from __future__ import annotations

import re

import msgspec

RUN_LABEL = "turbokube.io/run"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?")


class LoadError(ValueError):
    """A phase that cannot be run as asked. The message is one sentence for the user."""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Namespaces × deployments × replicas, from `first_namespace` on. `rate` 0: closed loop."""

    run: str
    name: str
    kind: str = "create"
    namespaces: int
    first_namespace: int = 0
    deployments: int
    replicas: int
    concurrency: int = 4  # closed loop: namespaces in work at once
    rate: float = 0.0  # open loop: deployments a second
    placement: str = "namespace"
    schedulers: int = 0  # extra schedulers, over which the namespaces are dealt out
    template: str = ""  # source text; empty: the built-in Deployment
    automount_token: bool = True
    pod_memory: str = "32Mi"
    pod_cpu: str = ""
    deadline_s: float = 1800.0

    @property
    def pods(self) -> int:
        return self.namespaces * self.deployments * self.replicas

    def namespace(self, index: int) -> str:
        """Name of the run's namespace of that number."""
        return f"turbokube-{index:04x}"

    @property
    def indices(self) -> range:
        """The numbers of the phase's namespaces."""
        return range(self.first_namespace, self.first_namespace + self.namespaces)

    def check(self) -> Phase:
        """Itself; raises LoadError that names the option, its value and what is allowed."""
        least = {"namespaces": 1, "first_namespace": 0, "deployments": 1, "replicas": 0, "concurrency": 1}
        for name, bound in {**least, "rate": 0, "schedulers": 0}.items():
            if (value := getattr(self, name)) < bound:
                raise LoadError(f"{name} is {value}; it must be at least {bound}")
        if self.deadline_s <= 0:
            raise LoadError(f"deadline is {self.deadline_s:g}; it must be more than 0 seconds")
        if self.first_namespace + self.namespaces > 0x10000:
            raise LoadError(
                f"first_namespace + namespaces is {self.first_namespace + self.namespaces}; at most 65536 are named"
            )
        for name, allowed in {"kind": ("create",), "placement": ("namespace", "cluster")}.items():
            if (text := getattr(self, name)) not in allowed:
                raise LoadError(f"{name} is {text!r}; it must be one of {', '.join(allowed)}")
        for name in ("run", "name"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise LoadError(
                    f"{name} is {getattr(self, name)!r}; it must be 1 to 63 lower-case letters, digits and hyphens"
                )
        for name in ("pod_memory", "pod_cpu"):
            if (text := getattr(self, name)) and not _QUANTITY.fullmatch(text):
                raise LoadError(f"{name} is {text!r}; it must be a quantity such as 32Mi or 100m, or empty")
        return self

    def same_work(self, other: Phase) -> bool:
        """Whether `other` asks for the same; a deadline may be moved."""
        return msgspec.structs.replace(self, deadline_s=other.deadline_s) == other
