from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cloud.account import Account
from tests.cloud.description import Description
from tests.cloud.standin import Fault, Standin
from turbokube.cloud.bill import Bill
from turbokube.cloud.digitalocean import Cloud
from turbokube.cloud.held import held
from turbokube.cloud.plan import Balancer, Group, Wanted
from turbokube.cloud.provision import Done, Provision
from turbokube.cloud.remove import Removed, remove

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHTlxbrKx0HEAHBlMU2iUzxYIpKwHyqQxkoX5HmK2Hl1 unit"
GROUPS = (
    Group(name="etcd", size="s-1vcpu-1gb", count=3),
    Group(name="control_plane", size="s-2vcpu-4gb", count=2),
    Group(name="admin", size="s-1vcpu-1gb", count=1),
)
BALANCER = Balancer(group="control_plane", port=6443, type="REGIONAL_NETWORK", nodes=1, usd_per_hour=0.02)


def plan_of(*groups: Group, balancer: Balancer | None = BALANCER, budget: float = 10.0) -> Wanted:
    return Wanted(
        name="unit",
        region="sfo3",
        image="ubuntu-24-04-x64",
        network="10.20.0.0/24",
        ssh_from=("198.51.100.7/32",),
        ssh_group="admin",
        groups=groups or GROUPS,
        balancer=balancer,
        hours=4,
        budget_usd=budget,
    )


@dataclass
class Place:
    """An account whose time passes by sleeping, and the library's client of it."""

    standin: Standin
    cloud: Cloud
    bill: Bill
    slept: list[float] = field(default_factory=list)

    @property
    def account(self) -> Account:
        return self.standin.account

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def clock(self) -> float:
        return sum(self.slept)

    def fail(self, *faults: Fault) -> None:
        self.standin.faults = list(faults)

    def provision(self, wanted: Wanted | None = None, key: str = KEY, timeout: float = 60) -> Done:
        return Provision(self.cloud, wanted or plan_of(), key, self.bill, timeout, self.sleep, self.clock).run()

    def remove(self, timeout: float = 60) -> Removed:
        return remove(self.cloud, "turbokube-unit", self.bill, timeout, plan_of(), self.sleep, self.clock)

    def names(self, kind: str = "droplet") -> list[str]:
        return sorted(thing.name for thing in held(self.cloud, "turbokube-unit", (kind,)))


@functools.cache
def _description() -> Description | None:
    """What the provider has published, where TURBOKUBE_DIGITALOCEAN_OPENAPI says that it lies."""
    folder = os.environ.get("TURBOKUBE_DIGITALOCEAN_OPENAPI")
    return Description(Path(folder)) if folder else None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    slept: list[float] = []
    account = Account(tmp_path / "account.json", boot_s=8.0, gone_s=4.0, clock=lambda: 1_800_000_000.0 + sum(slept))
    standin = Standin(account, tmp_path, "secret-token", slack=10)
    wrong: list[str] = []
    if description := _description():
        standin.heard = lambda *said: wrong.extend(description.wrong(*said))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(standin.ca))
    cloud = Cloud("secret-token", standin.endpoint, slept.append)
    yield Place(standin, cloud, Bill(tmp_path / "bill.json"), slept)
    standin.stop()
    assert wrong == []
