"""What of a name there is in the account: by tag, or by name for what cannot be tagged."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turbokube.cloud.bill import Bill, Purchase
from turbokube.cloud.digitalocean import Cloud, Object
from turbokube.cloud.plan import Market, Wanted

# in the order of removal: what costs first, a VPC when it is empty, tags last since droplets are found by them
ORDER = ("pool", "droplet", "load balancer", "firewall", "VPC", "SSH key", "tag")
PRICED = ORDER[:3]


@dataclass(frozen=True)
class Thing:
    """One resource, as the API describes it."""

    kind: str
    key: str
    name: str
    raw: Object

    @property
    def words(self) -> str:
        """What a person finds it by."""
        return f"{self.kind} {self.name}" if self.key == self.name else f"{self.kind} {self.name} ({self.key})"


def held(cloud: Cloud, tag: str, kinds: tuple[str, ...] = ORDER) -> list[Thing]:
    """Everything of a tag, in the order of removal."""
    return [thing for kind in kinds for thing in _of(cloud, tag, kind)]


def look(cloud: Cloud) -> Market:
    """Prices, limits and what stands in the way."""
    account = cloud.account()
    return Market(
        sizes={size["slug"]: size for size in cloud.all("size")},
        limit=int(account["droplet_limit"]),
        used=cloud.count("droplet"),
        status=str(account["status"]),
        networks={vpc["name"]: vpc["ip_range"] for vpc in cloud.all("VPC")},
    )


def note(bill: Bill, things: list[Thing], wanted: Wanted | None, now: float) -> None:
    """Keep what things with a price cost, and that others are gone. `things` is all there is of them."""
    for thing in things:
        if thing.kind == "droplet":
            size = thing.raw["size"]
            bill.keep(thing.key, _purchase(thing, size["slug"], float(size["price_hourly"])))
        elif thing.kind == "load balancer" and wanted and wanted.balancer:
            price = wanted.balancer.usd_per_hour * wanted.balancer.nodes
            bill.keep(thing.key, _purchase(thing, thing.raw.get("type", ""), price))
    bill.close({thing.key for thing in things}, now)


def moment(text: str) -> float:
    """Seconds since 1970 of the API's time."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def address(droplet: Mapping[str, Any], kind: str) -> str:
    """A droplet's `public` or `private` address; empty while it has none."""
    for network in droplet["networks"].get("v4", []):
        if network["type"] == kind:
            return str(network["ip_address"])
    return ""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A droplet that is up, as an inventory has it."""

    name: str
    groups: list[str]
    private: str
    public: str
    size: str
    vcpus: int
    memory_mib: int
    usd_per_hour: float


def hosts(cloud: Cloud, tag: str) -> list[Host]:
    """The droplets of a tag that are up, by name. A pool gives several one name, which their address then follows."""
    droplets = [thing.raw for thing in held(cloud, tag, ("droplet",)) if thing.raw["status"] == "active"]
    names = Counter(raw["name"] for raw in droplets)
    found = [
        Host(
            name=raw["name"]
            if names[raw["name"]] == 1
            else f"{raw['name']}-{address(raw, 'private').replace('.', '-')}",
            groups=[name.removeprefix(f"{tag}:") for name in raw["tags"] if name.startswith(f"{tag}:")],
            private=address(raw, "private"),
            public=address(raw, "public"),
            size=raw["size"]["slug"],
            vcpus=int(raw["vcpus"]),
            memory_mib=int(raw["memory"]),
            usd_per_hour=float(raw["size"]["price_hourly"]),
        )
        for raw in droplets
        if address(raw, "private")
    ]
    return sorted(
        found, key=lambda host: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", host.name)]
    )


def _purchase(thing: Thing, size: str, price: float) -> Purchase:
    return Purchase(
        what=thing.kind, name=thing.name, size=size, usd_per_hour=price, since=moment(thing.raw["created_at"])
    )


def _of(cloud: Cloud, tag: str, kind: str) -> list[Thing]:
    if kind == "droplet":
        return [Thing(kind, str(raw["id"]), raw["name"], raw) for raw in cloud.all(kind, tag_name=tag)]
    if kind == "tag":
        names = [raw["name"] for raw in cloud.all(kind)]
        return [Thing(kind, name, name, {}) for name in names if name == tag or name.startswith(f"{tag}:")]
    # their names take no colon, and the tag has no dot
    found = [Thing(kind, str(raw["id"]), raw["name"], raw) for raw in cloud.all(kind)]
    return [thing for thing in found if thing.name == tag or thing.name.startswith(f"{tag}.")]
