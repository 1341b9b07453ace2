"""What is to be bought, what it costs, and what stands against it. By arithmetic: nothing is asked of a provider."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "turbokube-"  # of the tag, and of every name that the account sees
WORLD = ("0.0.0.0/0", "::/0")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_NETWORKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Droplets of one size: `count` of them, or an autoscale pool of `count` to `most` if `most` is given."""

    name: str
    size: str
    count: int
    most: int = 0
    memory_utilization: float = 0.0  # of a pool: the share of memory at which it grows

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
    if not wanted.ssh_from:
        yield "No address may come in by SSH: set digitalocean_ssh_from to your own, such as [203.0.113.7/32]."
    for text in wanted.ssh_from:
        if text in WORLD or not _is_network(text):
            yield f"{text} is no range that SSH can be opened to: name your own address, such as 203.0.113.7/32."
    if not any(group.name == wanted.ssh_group and group.count for group in wanted.groups):
        yield f"Group {wanted.ssh_group} has no droplet, and the way to the others goes through its first."
    if wanted.balancer and not any(group.name == wanted.balancer.group for group in wanted.groups):
        yield f"The load balancer stands before group {wanted.balancer.group}, which has no droplets."
    for group in wanted.groups:
        if group.most and not 1 <= group.count <= group.most:
            yield f"Pool {group.name} has a count of {group.count} and a most of {group.most}: from 1 to the most."
    if not _is_network(wanted.network):
        yield f"digitalocean_network {wanted.network} is no range of addresses."
        return
    network = ipaddress.ip_network(wanted.network)
    if not 16 <= network.prefixlen <= 28 or not any(_within(network, private) for private in _NETWORKS):
        yield f"A VPC has a private range of /16 to /28, and {network} is none."


def _sizes(wanted: Wanted, market: Market) -> Iterator[str]:
    for slug in dict.fromkeys(group.size for group in wanted.groups):
        size = market.sizes.get(slug)
        if size is None:
            yield f"DigitalOcean has no size {slug}."
        elif wanted.region not in size["regions"] or not size["available"]:
            there = ", ".join(sorted(size["regions"])) if size["available"] else "nowhere now"
            yield f"Size {slug} is not to be had in {wanted.region}, but in: {there or 'no region'}."


def _account(wanted: Wanted, market: Market, own: int) -> Iterator[str]:
    need = sum(max(group.count, group.most) for group in wanted.groups)
    free = market.limit - (market.used - own)
    if market.status == "locked":
        yield "DigitalOcean has locked the account."
    if need > free:
        yield (
            f"{need} droplets are needed, and the account may have {free} more: its limit is {market.limit}, and "
            f"{market.used - own} others are in use. Take fewer, or ask DigitalOcean for a higher limit."
        )
    if not _is_network(wanted.network):
        return
    for name, text in market.networks.items():
        if name != wanted.tag and ipaddress.ip_network(text).overlaps(ipaddress.ip_network(wanted.network)):
            yield f"VPC {name} has {text}, which digitalocean_network {wanted.network} overlaps: take another range."


def _money(wanted: Wanted, usd: float) -> Iterator[str]:
    if usd > wanted.budget_usd:
        yield (
            f"{wanted.hours:g} h cost {usd:.2f} USD, and the budget is {wanted.budget_usd:.2f} USD: "
            f"set turbokube_budget_usd to at least {math.ceil(usd * 100) / 100:.2f}, or take less."
        )


def _within(network: Any, other: Any) -> bool:
    return bool(network.version == other.version and network.subnet_of(other))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
