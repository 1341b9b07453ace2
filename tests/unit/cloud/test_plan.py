"""Plans: what they cost, and what is refused before anything is bought."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.cloud.account import SIZES, size
from tests.unit.cloud.conftest import plan_of
from turbokube.cloud.plan import Group, Market, Plan, Wanted, machines, make_plan, tag_of


def market(**said: Any) -> Market:
    given: dict[str, Any] = {"limit": 100, "used": 0, "networks": {}, **said}
    return Market(sizes={slug: size(slug) for slug in SIZES}, **given)


def problems(wanted: Wanted, **said: Any) -> list[str]:
    return make_plan(wanted, market(**said)).problems


ORIGINAL = (
    Group(name="etcd", size="g-4vcpu-16gb-intel", count=3),
    Group(name="control_plane", size="m-8vcpu-64gb-intel", count=3),
    Group(name="scheduler", size="g-4vcpu-16gb-intel", count=4),
    Group(name="worker", size="g-4vcpu-16gb-intel", count=1),
    Group(name="fleet_control_plane", size="g-4vcpu-16gb-intel", count=1),
    Group(name="fleet_workers", size="m-2vcpu-16gb-intel", count=12, most=24, memory_utilization=0.2),
    Group(name="admin", size="s-2vcpu-4gb", count=1),
)


def original() -> Plan:
    return make_plan(plan_of(*ORIGINAL, budget=50), market())


def test_cost_of_the_originals_test() -> None:
    """9 general-purpose droplets, 3 with 64 GiB, a pool at its most, an admin, a load balancer: 4 h for some 30 USD."""
    plan = original()
    assert plan.problems == []
    assert plan.usd_per_hour == pytest.approx(9 * 0.2247 + 3 * 0.58929 + 24 * 0.14732 + 0.03571 + 0.02)
    assert plan.usd == pytest.approx(4 * plan.usd_per_hour)
    assert [line.split() for line in (plan.lines[0], plan.lines[6])] == [
        ["group", "count", "size", "each/h", "USD/h", "USD"],
        ["fleet_workers", "12-24", "m-2vcpu-16gb-intel", "0.14732", "3.54", "14.14"],
    ]
    assert plan.lines[9:13] == [
        "cost: 7.38 USD an hour, 29.53 USD for 4 h",
        "pools: 5.61 USD an hour until they grow",
        "budget: 50.00 USD",
        "droplets: 25 to 37; 0 of the account's 100 are in use",
    ]
    assert max(map(len, plan.lines)) <= 74


def test_what_was_spent_counts() -> None:
    wanted = plan_of(*ORIGINAL, budget=31)
    assert make_plan(wanted, market()).problems == []
    plan = make_plan(wanted, market(), spent_usd=2)
    assert plan.problems == [
        "turbokube_budget_usd is 31.00, and 4 h cost 31.53 USD: at least 31.53, or fewer droplets or hours."
    ]
    assert make_plan(wanted, market(), spent_usd=7.38, spent_hours=1).problems == []  # the second time, an hour later


def test_a_budget_has_to_be_named() -> None:
    assert "turbokube_budget_usd is 0.00, and 4 h cost 0.51 USD: at least 0.51" in problems(plan_of(budget=0))[0]
    assert problems(plan_of(budget=float("nan")))


def test_quota() -> None:
    """A pool counts at its most, and what is the plan's own is no other's."""
    wanted = plan_of(*ORIGINAL, budget=50)
    assert make_plan(wanted, market(limit=37)).problems == []
    assert make_plan(wanted, market(limit=40, used=5), own=2).problems == []
    assert make_plan(wanted, market(limit=39, used=5), own=2).problems == [
        "digitalocean_groups are 37 droplets, and the account may have 36 more, since its limit is 39 and 3 others are "
        "in use: fewer, or ask DigitalOcean for a higher limit."
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ssh_from": ("0.0.0.0/0",)}, "digitalocean_ssh_from has 0.0.0.0/0, which opens SSH to the world: your own"),
        ({"ssh_from": ("128.0.0.0/1",)}, "has 128.0.0.0/1, which opens SSH to the world"),
        ({"ssh_from": ("::/0",)}, "has ::/0, which opens SSH to the world"),
        ({"ssh_from": ("mine",)}, "digitalocean_ssh_from has mine, which is no address"),
        ({"ssh_from": ()}, "digitalocean_ssh_from is empty"),
        ({"ssh_group": "etcdd"}, "digitalocean_ssh_group is etcdd, of which there is no droplet"),
        ({"network": "10.0.0.0/8"}, "digitalocean_network is 10.0.0.0/8: a private range of /16 to /28"),
        ({"network": "203.0.113.0/24"}, "a private range of /16 to /28"),
        ({"network": "10.0.0"}, "digitalocean_network is 10.0.0: a private range"),
        ({"hours": 0.0}, "digitalocean_hours is 0.0: hours, more than 0."),
        (
            {"region": "nowhere1"},
            "digitalocean_groups has size s-1vcpu-1gb (etcd, admin), not to be had in nowhere1: digitalocean_region is "
            "one of ams3, fra1, nyc3, sfo3.",
        ),
        (
            {"groups": (Group(name="admin", size="s-9", count=1),)},
            "has size s-9 (admin), which DigitalOcean has not: such as s-1vcpu-1gb, s-2vcpu-4gb, ",
        ),
        (
            {"groups": (Group(name="admin", size="s-1vcpu-1gb", count=1),)},
            "digitalocean_load_balancer.group is control_plane, of which there is no droplet: one of admin, or {}",
        ),
        (
            {"groups": (Group(name="admin", size="s-1vcpu-1gb", count=3, most=2),)},
            "digitalocean_groups.admin.count is 3: from 1 to its most, 2.",
        ),
        (
            {"groups": (Group(name="admin", size="s-1vcpu-1gb", count=1, most=2, memory_utilization=20),)},
            "digitalocean_groups.admin.memory_utilization is 20: from 0.05 to 1.",
        ),
    ],
)
def test_refused(change: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(replace(plan_of(), **change)))


def test_a_size_that_the_region_has_not() -> None:
    wanted = plan_of(Group(name="admin", size="so-8vcpu-64gb-intel", count=1), balancer=None)
    assert problems(wanted) == [
        "digitalocean_groups has size so-8vcpu-64gb-intel (admin), not to be had in sfo3: digitalocean_region is one "
        "of ams3, fra1, nyc3."
    ]


def test_another_vpc_with_the_same_addresses() -> None:
    assert problems(plan_of(), networks={"turbokube-unit": "10.20.0.0/24"}) == []
    found = problems(plan_of(), networks={"default-sfo3": "10.20.0.0/20"})
    assert found == [
        "digitalocean_network is 10.20.0.0/24, which VPC default-sfo3 overlaps with 10.20.0.0/20: another range."
    ]


def test_a_locked_account() -> None:
    assert problems(plan_of(), status="locked") == ["DigitalOcean has locked the account: its support says why."]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": "3"}, r"digitalocean_groups\.etcd\.count is '3': a whole number of at least 0"),
        ({"count": -1}, "etcd.count is -1"),
        ({"most": 2.5}, r"etcd\.most is 2\.5"),
        ({"name": "Etcd"}, r"digitalocean_groups\.Etcd: 'Etcd' is no group"),
        ({"also": ("b c",)}, "'b c' is no group"),
    ],
)
def test_no_group(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Group(**{"name": "etcd", "size": "s-1vcpu-1gb", "count": 1, **change})


def test_machines_for_a_report() -> None:
    """A pool counts as it is by now, in which other groups that its hosts are in have no part."""
    groups = (*ORIGINAL[5:6], replace(ORIGINAL[6], also=("fleet",)), Group(name="etcd", size="s-2vcpu-4gb", count=0))
    found = machines(plan_of(*groups), market(), {"fleet_workers": 15, "fleet": 1, "admin": 1})
    assert [(one["name"], one["count"], one["cores"], one["usd_per_hour"]) for one in found] == [
        ("fleet_workers", 15, 2, 0.14732),
        ("admin", 1, 2, 0.03571),
        ("load balancer", 1, 0, 0.02),
    ]


@pytest.mark.parametrize("name", ["", "A", "a:b", "a.b", "a-", "-a", "a" * 41])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        tag_of(name)
