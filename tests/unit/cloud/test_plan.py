"""Plans: what they cost, and what is refused before anything is bought."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.cloud.account import SIZES, size
from tests.unit.cloud.conftest import plan_of
from turbokube.cloud.plan import Group, Market, Plan, Wanted, make_plan, tag_of


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
        "4 h cost 31.53 USD, and the budget is 31.00 USD: set turbokube_budget_usd to at least 31.53, or take less."
    ]
    assert make_plan(wanted, market(), spent_usd=7.38, spent_hours=1).problems == []  # the second time, an hour later


def test_a_budget_has_to_be_named() -> None:
    assert "the budget is 0.00 USD" in problems(plan_of(budget=0))[0]


def test_quota() -> None:
    """A pool counts at its most, and what is the plan's own is no other's."""
    wanted = plan_of(*ORIGINAL, budget=50)
    assert make_plan(wanted, market(limit=37)).problems == []
    assert make_plan(wanted, market(limit=40, used=5), own=2).problems == []
    assert make_plan(wanted, market(limit=39, used=5), own=2).problems == [
        "37 droplets are needed, and the account may have 36 more: its limit is 39, and 3 others are in use. "
        "Take fewer, or ask DigitalOcean for a higher limit."
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ssh_from": ("0.0.0.0/0",)}, "0.0.0.0/0 is no range that SSH can be opened to"),
        ({"ssh_from": ("::/0",)}, "::/0 is no range that SSH can be opened to"),
        ({"ssh_from": ("mine",)}, "mine is no range that SSH can be opened to"),
        ({"ssh_from": ()}, "No address may come in by SSH"),
        ({"ssh_group": "etcdd"}, "Group etcdd has no droplet"),
        ({"network": "10.0.0.0/8"}, "a private range of /16 to /28"),
        ({"network": "203.0.113.0/24"}, "a private range of /16 to /28"),
        ({"network": "10.0.0"}, "no range of addresses"),
        ({"region": "nowhere1"}, "Size s-1vcpu-1gb is not to be had in nowhere1, but in: ams3, fra1, nyc3, sfo3."),
        ({"groups": (Group(name="admin", size="s-9", count=1),)}, "DigitalOcean has no size s-9."),
        ({"groups": (Group(name="admin", size="s-1vcpu-1gb", count=1),)}, "which has no droplets"),
        ({"groups": (Group(name="admin", size="s-1vcpu-1gb", count=3, most=2),)}, "from 1 to the most"),
    ],
)
def test_refused(change: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(replace(plan_of(), **change)))


def test_a_size_that_the_region_has_not() -> None:
    wanted = plan_of(Group(name="admin", size="so-8vcpu-64gb-intel", count=1), balancer=None)
    assert problems(wanted) == ["Size so-8vcpu-64gb-intel is not to be had in sfo3, but in: ams3, fra1, nyc3."]


def test_another_vpc_with_the_same_addresses() -> None:
    assert problems(plan_of(), networks={"turbokube-unit": "10.20.0.0/24"}) == []
    found = problems(plan_of(), networks={"default-sfo3": "10.20.0.0/20"})
    assert found == [
        "VPC default-sfo3 has 10.20.0.0/20, which digitalocean_network 10.20.0.0/24 overlaps: take another range."
    ]


def test_a_locked_account() -> None:
    assert problems(plan_of(), status="locked") == ["DigitalOcean has locked the account."]


@pytest.mark.parametrize("name", ["", "A", "a:b", "a.b", "a-", "-a", "a" * 41])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        tag_of(name)
