"""What is to be bought, what it costs, and what stands against it. By arithmetic: nothing is asked of a provider."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "turbokube-"  # of the tag, and of every name that the account sees
WIDEST = {4: 8, 6: 32}  # ranges that SSH may be opened to, by version: no shorter prefixes
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,38}[a-z0-9]")
_NETWORKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Droplets of one size: `count` of them, or an autoscale pool of `count` to `most` if `most` is given.

    `also`: other groups of the inventory that they are in.
    """

    name: str
    size: str
    count: int
    most: int = 0
    memory_utilization: float = 0.0  # of a pool: the share of memory at which it grows
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what is no group."""
        where = f"digitalocean_groups.{self.name}"
        for name in (self.name, *self.also):
            if not _GROUP.fullmatch(str(name)):
                raise ValueError(f"{where}: {name!r} is no group: lower-case letters, digits, and _ within, 40 at most")
        for name in ("count", "most"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{where}.{name} is {value!r}: a whole number of at least 0")

    @property
    def hosts(self) -> list[str]:
        """Names of droplets, as an inventory has them; a pool names its own."""
        return [] if self.most else [f"{self.name.replace('_', '-')}-{number}" for number in range(self.count)]


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """A load balancer inside the VPC, before a group's hosts. The API tells no price, so it is given: USD an hour."""

    group: str
    port: int
    type: str
    nodes: int
    usd_per_hour: float


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """All of a plan. `network`: the VPC's range; `ssh_from`: the ranges that SSH is open to, on `ssh_group` alone."""

    name: str
    region: str
    image: str
    network: str
    ssh_from: tuple[str, ...]
    ssh_group: str
    groups: tuple[Group, ...]
    balancer: Balancer | None = None
    user_data: str = ""
    hours: float = 4.0
    budget_usd: float = 0.0

    @property
    def tag(self) -> str:
        """What every resource carries, or is named after."""
        return tag_of(self.name)

    def group_tag(self, group: str) -> str:
        """What every droplet of a group carries."""
        return f"{self.tag}:{group}"


@dataclass(frozen=True, kw_only=True)
class Market:
    """What the provider says. `sizes`: the API's, by slug; `used`: droplets of the account; `networks`: its VPCs."""

    sizes: Mapping[str, Mapping[str, Any]]
    limit: int
    used: int
    status: str = "active"
    networks: Mapping[str, str]  # name to range


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`usd_per_hour` with pools at their most; `usd` for the whole run; `problems`: a sentence each, none to go on."""

    lines: list[str]
    problems: list[str]
    usd_per_hour: float
    usd: float


def tag_of(name: str) -> str:
    """The tag of a name; raises ValueError for one that cannot be a tag."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a cloud's hosts: lower-case letters, digits, and - within, 40 at most"
        )
    return f"{PREFIX}{name}"


def make_plan(wanted: Wanted, market: Market, own: int = 0, spent_usd: float = 0.0, spent_hours: float = 0.0) -> Plan:
    """`own`: droplets that are this plan's already; `spent_...`: what it cost so far, and its hours that are gone."""
    hourly = sum(_hourly(group, market, most=True) for group in wanted.groups)
    hourly += wanted.balancer.usd_per_hour * wanted.balancer.nodes if wanted.balancer else 0.0
    usd = spent_usd + hourly * max(0.0, wanted.hours - spent_hours)
    return Plan(
        lines=_table(wanted, market, hourly, usd, spent_usd),
        problems=[*_settings(wanted), *_sizes(wanted, market), *_account(wanted, market, own), *_money(wanted, usd)],
        usd_per_hour=hourly,
        usd=usd,
    )


def machines(wanted: Wanted, market: Market, there: Mapping[str, int]) -> list[dict[str, Any]]:
    """What `turbokube_machines` says of it, by which a run's report counts; `there`: droplets of each group by now."""
    found: list[dict[str, Any]] = []
    for group in wanted.groups:
        size = market.sizes[group.size]
        count = max(group.count, there.get(group.name, 0)) if group.most else group.count
        if count:
            price, cores = float(size["price_hourly"]), int(size["vcpus"])
            found.append({"name": group.name, "count": count, "cores": cores, "usd_per_hour": price})
    if balancer := wanted.balancer:
        price = balancer.usd_per_hour
        found.append({"name": "load balancer", "count": balancer.nodes, "cores": 0, "usd_per_hour": price})
    return found


def rows(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """A table as lines, words to the left and numbers to the right."""
    cells = [list(columns), *(list(line) for line in lines)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    right = [all(re.fullmatch(r"[-0-9.,]*", row[place]) for row in cells[1:]) for place in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if side else cell.ljust(width)
            for cell, width, side in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _hourly(group: Group, market: Market, most: bool) -> float:
    size = market.sizes.get(group.size, {})
    return float(size.get("price_hourly", 0.0)) * (max(group.count, group.most) if most else group.count)


def _table(wanted: Wanted, market: Market, hourly: float, usd: float, spent: float) -> list[str]:
    """No wider than 74 characters, which is what fits where Ansible shows it."""
    lines = []
    for group in wanted.groups:
        count = f"{group.count}-{group.most}" if group.most else str(group.count)
        price = float(market.sizes.get(group.size, {}).get("price_hourly", 0.0))
        lines.append(_row(wanted, group.name, count, group.size, price, _hourly(group, market, most=True)))
    if balancer := wanted.balancer:
        price = balancer.usd_per_hour
        row = _row(wanted, "load balancer", str(balancer.nodes), balancer.type, price, price * balancer.nodes)
        lines.append(row)
    least, most = (sum(max(group.count, group.most * way) for group in wanted.groups) for way in (0, 1))
    droplets = f"{least} to {most}" if least < most else str(least)
    lower = sum(_hourly(group, market, most=True) - _hourly(group, market, most=False) for group in wanted.groups)
    return [
        *rows(("group", "count", "size", "each/h", "USD/h", "USD"), lines),
        f"cost: {hourly:.2f} USD an hour, {usd:.2f} USD for {wanted.hours:g} h"
        + (f", {spent:.2f} spent" if spent else ""),
        *([f"pools: {hourly - lower:.2f} USD an hour until they grow"] if lower else []),
        f"budget: {wanted.budget_usd:.2f} USD",
        f"droplets: {droplets}; {market.used} of the account's {market.limit} are in use",
        f"place: {wanted.region}, {wanted.image}, VPC {wanted.network}",
        f"tag: {wanted.tag}",
        f"open: SSH to {wanted.ssh_group}, from {', '.join(wanted.ssh_from) or 'nowhere'}",
    ]


def _row(wanted: Wanted, name: str, count: str, size: str, price: float, hourly: float) -> list[str]:
    return [name, count, size, f"{price:.5f}", f"{hourly:.2f}", f"{hourly * wanted.hours:.2f}"]


def _settings(wanted: Wanted) -> Iterator[str]:
    if not 0 < wanted.hours < math.inf:
        yield f"digitalocean_hours is {wanted.hours}: hours, more than 0."
    if not wanted.ssh_from:
        yield "digitalocean_ssh_from is empty, so that nobody comes in: your own address, such as [203.0.113.7/32]."
    for text in wanted.ssh_from:
        network = _network(text)
        if network is None:
            yield f"digitalocean_ssh_from has {text}, which is no address: your own, such as 203.0.113.7/32."
        elif network.prefixlen < WIDEST[network.version]:
            yield (
                f"digitalocean_ssh_from has {text}, which opens SSH to the world: your own address, such as "
                f"203.0.113.7/32, and no range wider than /{WIDEST[network.version]}."
            )
    groups = {name for group in wanted.groups if group.count for name in (group.name, *group.also)}
    if wanted.ssh_group not in groups:
        yield (
            f"digitalocean_ssh_group is {wanted.ssh_group}, of which there is no droplet, and through its first "
            f"goes the way to the others: one of {', '.join(sorted(groups))}."
        )
    if wanted.balancer and wanted.balancer.group not in groups:
        yield (
            f"digitalocean_load_balancer.group is {wanted.balancer.group}, of which there is no droplet: one of "
            f"{', '.join(sorted(groups))}, or {{}} for no load balancer."
        )
    for group in wanted.groups:
        if group.most and not 1 <= group.count <= group.most:
            yield f"digitalocean_groups.{group.name}.count is {group.count}: from 1 to its most, {group.most}."
        if group.memory_utilization and not 0.05 <= group.memory_utilization <= 1:
            yield f"digitalocean_groups.{group.name}.memory_utilization is {group.memory_utilization}: from 0.05 to 1."
    vpc = _network(wanted.network)
    if vpc is None or not 16 <= vpc.prefixlen <= 28 or not any(_within(vpc, private) for private in _NETWORKS):
        yield f"digitalocean_network is {wanted.network}: a private range of /16 to /28, such as 10.0.0.0/16."


def _sizes(wanted: Wanted, market: Market) -> Iterator[str]:
    for slug in dict.fromkeys(group.size for group in wanted.groups):
        size, groups = market.sizes.get(slug), ", ".join(group.name for group in wanted.groups if group.size == slug)
        where = f"digitalocean_groups has size {slug} ({groups})"
        if size is None:
            yield f"{where}, which DigitalOcean has not: {_sizes_of(wanted.region, market)}."
        elif wanted.region not in size["regions"] or not size["available"]:
            there = ", ".join(sorted(size["regions"])) if size["available"] else ""
            yield (
                f"{where}, not to be had in {wanted.region}: digitalocean_region is one of {there}."
                if there
                else (f"{where}, not to be had anywhere now: {_sizes_of(wanted.region, market)}.")
            )


def _sizes_of(region: str, market: Market) -> str:
    """Sizes to be had in a region, the cheapest first."""
    there = [size for size in market.sizes.values() if region in size["regions"] and size["available"]]
    some = [str(size["slug"]) for size in sorted(there, key=lambda size: float(size["price_hourly"]))][:5]
    return f"such as {', '.join(some)}" if some else f"digitalocean_region {region} has none at all"


def _account(wanted: Wanted, market: Market, own: int) -> Iterator[str]:
    need = sum(max(group.count, group.most) for group in wanted.groups)
    free = market.limit - (market.used - own)
    if market.status == "locked":
        yield "DigitalOcean has locked the account: its support says why."
    if need > free:
        yield (
            f"digitalocean_groups are {need} droplets, and the account may have {free} more, since its limit is "
            f"{market.limit} and {market.used - own} others are in use: fewer, or ask DigitalOcean for a higher limit."
        )
    vpc = _network(wanted.network)
    for name, text in market.networks.items():
        other = _network(text)
        if name != wanted.tag and vpc and other and vpc.version == other.version and vpc.overlaps(other):
            yield f"digitalocean_network is {vpc}, which VPC {name} overlaps with {text}: another range."


def _money(wanted: Wanted, usd: float) -> Iterator[str]:
    if not usd <= wanted.budget_usd:
        yield (
            f"turbokube_budget_usd is {wanted.budget_usd:.2f}, and {wanted.hours:g} h cost {usd:.2f} USD: "
            f"at least {math.ceil(usd * 100) / 100:.2f}, or fewer droplets or hours."
        )


def _within(network: Any, other: Any) -> bool:
    return bool(network.version == other.version and network.subnet_of(other))


def _network(text: str) -> Any:
    """A range of either version; None for what is none."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None
