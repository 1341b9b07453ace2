"""Provision and removal against a stand-in for the API: whatever fails, nothing is bought twice and nothing stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cloud.standin import Fault
from tests.unit.cloud.conftest import GROUPS, KEY, Place, plan_of
from turbokube.cloud import digitalocean
from turbokube.cloud.bill import Bill
from turbokube.cloud.digitalocean import Cloud, CloudError
from turbokube.cloud.held import hosts
from turbokube.cloud.plan import Group
from turbokube.cloud.provision import Provision

HOSTS = ["admin-0", "control-plane-0", "control-plane-1", "etcd-0", "etcd-1", "etcd-2"]
POOL = Group(name="fleet_workers", size="s-1vcpu-1gb", count=3, most=5, memory_utilization=0.2)


def test_all_of_a_plan_is_made_once(place: Place) -> None:
    done = place.provision()
    assert place.names() == HOSTS
    assert done.endpoint == place.account.listed("load_balancers")[0]["ip"]
    assert all(one["status"] == "active" for one in place.account.listed("droplets"))
    again = place.provision()
    assert (again.made, again.removed, again.endpoint) == ([], [], done.endpoint)


def test_only_ssh_from_you_comes_in(place: Place) -> None:
    place.provision()
    rules = {
        (firewall["name"], rule["protocol"], rule["ports"], *rule["sources"]["addresses"])
        for firewall in place.account.listed("firewalls")
        for rule in firewall["inbound_rules"]
    }
    inside = {("turbokube-unit", kind, "0", "10.20.0.0/24") for kind in ("tcp", "udp", "icmp")}
    assert rules == inside | {("turbokube-unit.ssh", "tcp", "22", "198.51.100.7/32")}
    tags = {one["name"]: one["tags"] for one in place.account.listed("firewalls")}
    assert tags == {"turbokube-unit": ["turbokube-unit"], "turbokube-unit.ssh": ["turbokube-unit:admin"]}
    assert place.account.listed("load_balancers")[0]["network"] == "INTERNAL"


def test_firewalls_are_there_before_droplets(place: Place) -> None:
    place.provision()
    made = [asked for asked in place.standin.asked if asked.startswith("POST")]
    assert max(n for n, asked in enumerate(made) if "firewalls" in asked) < made.index("POST /v2/droplets")


def test_lists_of_several_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digitalocean, "PAGE", 2)
    place.provision(plan_of(*GROUPS, POOL))
    assert len(place.names()) == 9
    assert place.provision(plan_of(*GROUPS, POOL)).made == []
    assert place.remove().left == []
    assert not any(place.account.listed(kind) for kind in place.account.state)


def test_a_droplet_of_several_groups(place: Place) -> None:
    place.provision(plan_of(*GROUPS[:2], replace(GROUPS[2], also=("fleet",))))
    assert {host.name: host.groups for host in hosts(place.cloud, "turbokube-unit")}["admin-0"] == ["admin", "fleet"]
    assert place.remove().left == []
    assert not any(place.account.listed(kind) for kind in place.account.state)


def test_more_than_ten_of_a_group(place: Place) -> None:
    place.provision(plan_of(GROUPS[2], Group(name="fleet", size="s-1vcpu-1gb", count=23), balancer=None))
    assert place.standin.asked.count("POST /v2/droplets") == 1 + 3
    assert len(place.names()) == 24


def test_a_group_that_shrinks_and_one_that_grows(place: Place) -> None:
    place.provision()
    groups = (replace(GROUPS[0], count=1), GROUPS[1], replace(GROUPS[2], count=2))
    done = place.provision(plan_of(*groups))
    assert done.made == ["droplet admin-1"]
    assert len(done.removed) == 2
    place.sleep(10)
    assert place.names() == ["admin-0", "admin-1", "control-plane-0", "control-plane-1", "etcd-0"]


@pytest.mark.parametrize("done", [False, True], ids=["refused", "done-all-the-same"])
@pytest.mark.parametrize("status", [0, 500], ids=["cut", "500"])
@pytest.mark.parametrize(
    "path", ["vpcs", "account/keys", "firewalls", "droplets", "load_balancers", "droplets/autoscale"]
)
def test_a_lost_answer_buys_nothing_twice(place: Place, path: str, status: int, done: bool) -> None:
    place.fail(Fault("POST", f"/v2/{path}", status, done=done))
    place.provision(plan_of(*GROUPS, POOL))
    assert place.names() == sorted([*HOSTS, *["fleet-workers"] * 3])
    assert {kind: len(place.account.listed(kind)) for kind in place.account.state} == {
        **dict.fromkeys(("vpcs", "ssh_keys", "load_balancers", "autoscale_pools"), 1),
        **{"droplets": 9, "firewalls": 2, "tags": 5},
    }


def test_an_api_that_fails_in_the_middle_is_resumed(place: Place) -> None:
    place.fail(Fault("POST", "/v2/droplets", 500, times=99, after=1))
    with pytest.raises(
        CloudError, match=r"control-plane-0, control-plane-1, admin-0 could not be made: .*Server Error"
    ):
        place.provision()
    assert place.names() == HOSTS[3:]
    assert place.bill.usd_per_hour() == pytest.approx(3 * 0.00893)
    place.fail()
    done = place.provision()
    assert place.names() == HOSTS
    assert not [made for made in done.made if "etcd" in made or "VPC" in made]


def test_an_api_that_fails_in_the_middle_is_torn_down(place: Place) -> None:
    place.fail(Fault("POST", "/v2/load_balancers", 422))
    with pytest.raises(CloudError, match="load balancer turbokube-unit: Server Error"):
        place.provision()
    place.fail()
    removed = place.remove()
    assert removed.left == []
    assert not any(place.account.listed(kind) for kind in place.account.state)


def test_one_that_is_interrupted_is_on_the_bill_and_taken_up(place: Place) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Provision(place.cloud, plan_of(), KEY, place.bill, 60, interrupted, place.clock).run()
    assert len(place.bill.purchases) == 6
    assert place.provision().made == ["load balancer turbokube-unit"]
    assert place.remove().left == []


def test_twins_are_removed(place: Place) -> None:
    """What an earlier attempt bought twice, unseen."""
    place.provision()
    first = place.account.listed("droplets")[0]
    body = {"names": [first["name"]], "size": "s-1vcpu-1gb", "region": "sfo3", "image": "x", "tags": first["tags"]}
    place.account.droplets({**body, "vpc_uuid": first["vpc_uuid"], "ssh_keys": []})
    place.provision()
    place.sleep(10)
    assert place.names() == HOSTS
    assert first["id"] in {one["id"] for one in place.account.listed("droplets")}


def test_a_droplet_that_never_becomes_active_is_made_again(place: Place) -> None:
    place.account.stuck = ["etcd-1"]
    done = place.provision()
    assert place.names() == HOSTS
    assert done.made.count("droplet etcd-1") == 2
    assert len(done.removed) == 1


def test_a_droplet_that_never_becomes_active_twice_is_told(place: Place) -> None:
    place.account.stuck = ["etcd-1", "etcd-1"]
    with pytest.raises(CloudError, match=r"not up after 60 s: droplet etcd-1 \(\d+\)\. What there is costs 0\.13 USD"):
        place.provision()
    assert place.remove().left == []


def test_a_pool_that_the_account_cannot_fill_is_told(place: Place) -> None:
    place.account.limit = 8
    with pytest.raises(CloudError, match=r"not up after 60 s: pool turbokube-unit\.fleet_workers"):
        place.provision(plan_of(*GROUPS, POOL))
    assert place.remove().left == []


def test_quota_of_the_api_is_told(place: Place) -> None:
    place.account.limit = 2
    with pytest.raises(CloudError, match="exceed your droplet limit"):
        place.provision()


def test_limits_of_rate_are_waited_for(place: Place) -> None:
    place.fail(Fault("GET", "/v2/droplets", 429, times=2), Fault("POST", "/v2/droplets", 429))
    place.provision()
    assert place.names() == HOSTS
    assert place.standin.asked.count("POST /v2/droplets") == 4


def test_limits_of_the_hour_are_told(place: Place) -> None:
    place.standin.slack = 0
    place.standin._times["all"].extend([2e10] * 10)  # none of which ends soon
    place.cloud._sleep = lambda seconds: None
    with pytest.raises(CloudError, match="API Rate limit exceeded"):
        place.provision()


def test_a_wrong_token_is_told_and_not_shown(place: Place) -> None:
    place.cloud = Cloud("another-secret", place.standin.endpoint, place.sleep)
    with pytest.raises(CloudError, match="does not accept the token") as told:
        place.provision()
    assert "another-secret" not in f"{told.value!r} {told.value.__cause__!r}"


def test_no_token_is_told() -> None:
    with pytest.raises(CloudError, match="DIGITALOCEAN_ACCESS_TOKEN"):
        Cloud("")


def test_an_api_that_is_not_there_is_told(place: Place) -> None:
    place.cloud = Cloud("x", "https://localhost:1", place.sleep)
    with pytest.raises(CloudError, match="cannot be reached"):
        place.provision()
    assert len(place.slept) == 2 * 5  # what is asked first, and what there is


def test_the_key_of_a_lost_folder_is_replaced(place: Place) -> None:
    place.provision()
    other = KEY.replace("AAAAIHTl", "AAAAIHTm")
    place.provision(key=other)
    assert [one["public_key"] for one in place.account.listed("ssh_keys")] == [other]


def test_hosts_for_an_inventory(place: Place) -> None:
    place.provision(plan_of(*GROUPS, POOL))
    found = hosts(place.cloud, "turbokube-unit")
    assert [host.name for host in found][:6] == HOSTS
    assert len({host.name for host in found}) == 9
    assert {host.name.rsplit("-", 4)[0] for host in found[6:]} == {"fleet-workers"}
    assert found[0].groups == ["admin"]
    assert found[0].private.startswith("10.20.0.")
    assert found[0].public.startswith("203.0.113.")


def test_teardown_leaves_nothing_and_tells_its_cost(place: Place) -> None:
    place.provision(plan_of(*GROUPS, POOL))
    foreign = place.account.tag({"name": "turbokube-unit-2"})
    rule = {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["198.51.100.8/32"]}}
    place.account.firewall({"name": "turbokube-unit-2.ssh", "inbound_rules": [rule]})
    removed = place.remove()
    assert removed.left == []
    assert {kind: len(place.account.listed(kind)) for kind in place.account.state if place.account.listed(kind)} == {
        "firewalls": 1,
        "tags": 1,
    }
    assert foreign["name"] == "turbokube-unit-2"  # another's
    assert len(removed.removed) == 6 + 3 + 1 + 1 + 2 + 1 + 1 + 5
    assert len(place.bill.purchases) == 10
    assert place.bill.usd_per_hour() == 0


def test_a_refused_delete_is_asked_for_again(place: Place) -> None:
    place.provision()
    place.fail(Fault("DELETE", r"/v2/droplets/\d+", 422, times=3), Fault("DELETE", "/v2/vpcs/.*", 403, times=1))
    assert place.remove().left == []
    assert not any(place.account.listed(kind) for kind in place.account.state)


def test_what_cannot_be_deleted_is_told_and_goes_another_time(place: Place) -> None:
    place.provision()
    number = place.account.listed("droplets")[0]["id"]
    place.fail(Fault("DELETE", f"/v2/droplets/{number}", 422, times=999))
    left = place.remove().left
    assert f"droplet etcd-0 ({number}): removal of droplet {number}: Server Error" in left
    assert any(words.startswith("firewall") for words in left)  # what guards it
    assert place.bill.usd_per_hour() == pytest.approx(0.00893)
    place.fail()
    assert place.remove().left == []
    assert place.bill.usd_per_hour() == 0


def test_a_bill_outlives_what_was_bought(place: Place) -> None:
    place.provision()
    bill = Bill(place.bill._path)
    now = max(one.since for one in bill.purchases.values()) + 3600 * 2
    assert bill.usd(now) == pytest.approx(2 * (4 * 0.00893 + 2 * 0.03571 + 0.02), rel=0.01)
    assert [line.split()[:4] for line in bill.lines(now)[1:4]] == [
        ["droplet", "s-1vcpu-1gb", "4", "8.01"],
        ["droplet", "s-2vcpu-4gb", "2", "4.00"],
        ["load", "balancer", "REGIONAL_NETWORK", "1"],
    ]


def test_a_bill_that_is_over_is_put_aside(place: Place) -> None:
    place.provision()
    place.bill.begin(1_800_000_000)
    assert len(place.bill.purchases) == 7
    place.remove()
    place.bill.begin(1_800_000_000)
    assert place.bill.purchases == {}
    assert [path.name for path in place.bill._path.parent.glob("bill*")] == ["bill-20270115T080000Z.json"]


def test_removal_of_what_never_was(place: Place) -> None:
    assert (place.remove().removed, place.remove().left) == ([], [])
