"""The module digitalocean_hosts and the inventory plugin, against the stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.modules import digitalocean_hosts

from tests.unit.cloud.conftest import GROUPS, KEY, Place, plan_of
from turbokube.cloud.plan import Group

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the module for the plan of the other tests."""

    def call(check_mode: bool = False, **more: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "name": "unit",
            "folder": str(tmp_path),
            "token": "secret-token",
            "endpoint": place.standin.endpoint,
            "network": "10.20.0.0/24",
            "groups": {group.name: {"count": group.count, "size": group.size} for group in GROUPS},
            "ssh_from": ["198.51.100.7/32"],
            "public_key": KEY,
            "load_balancer": {
                "group": "control_plane",
                "port": 6443,
                "type": "REGIONAL",
                "nodes": 1,
                "usd_per_hour": 0.02,
            },
            "budget_usd": 10,
            **more,
        }
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            digitalocean_hosts.main()
        said = capsys.readouterr().out
        assert "secret-token" not in said
        answer: dict[str, Any] = json.loads(said)
        return answer

    return call


def test_check_mode_tells_the_plan_and_buys_nothing(run: Any, place: Place) -> None:
    result = run(check_mode=True, budget_usd=0.1)
    assert result["changed"]
    assert result["made"] == [f"droplet {host}" for group in GROUPS for host in group.hosts]
    assert result["plan"][0].startswith("group")
    assert result["usd"] == pytest.approx(4 * (4 * 0.00893 + 2 * 0.03571 + 0.02), abs=1e-4)
    assert "turbokube_budget_usd is 0.10, and 4 h cost 0.51 USD: at least 0.51" in result["problems"][0]
    assert not [asked for asked in place.standin.asked if not asked.startswith("GET")]


def test_what_cannot_be_bought_fails_before_anything_is(run: Any, place: Place) -> None:
    place.account.limit = 5
    result = run(budget_usd=0.1, ssh_from=["0.0.0.0/0"])
    assert result["failed"]
    for words in ("which opens SSH to the world", "are 6 droplets", "turbokube_budget_usd is 0.10"):
        assert words in result["msg"]
    assert not [asked for asked in place.standin.asked if not asked.startswith("GET")]


def test_hosts_that_are_up_change_nothing(run: Any, place: Place) -> None:
    place.provision()
    result = run()
    assert (result["changed"], result["made"], result["removed"]) == (False, [], [])
    assert [host["name"] for host in result["hosts"]] == place.names()
    assert [(one["name"], one["count"]) for one in result["machines"]] == [
        *((group.name, group.count) for group in GROUPS),
        ("load balancer", 1),
    ]
    assert result["address"].startswith("10.20.0.")
    assert len(result["bill"]) == 5


def test_absent_proves_it(run: Any, place: Place) -> None:
    result = run(state="absent")
    assert (result["changed"], result["left"], result["bill"]) == (False, [], [])
    assert result["looked_at"][:2] == ["pool", "droplet"]
    place.provision()
    result = run(check_mode=True, state="absent")
    assert result["changed"]
    assert len(result["left"]) == 6 + 1 + 2 + 1 + 1 + 4
    assert place.names()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token": ""}, "there is no token"),
        ({"token": "wrong"}, "does not accept the token of DIGITALOCEAN_ACCESS_TOKEN"),
        ({"name": "Unit"}, "is no name"),
        ({"groups": {"admin": {"count": 1}}}, "missing 1 required keyword-only argument: 'size'"),
        ({"groups": {"admin": {"count": 1, "size": "x", "sise": 1}}}, "got an unexpected keyword argument 'sise'"),
    ],
)
def test_told(run: Any, change: dict[str, Any], said: str) -> None:
    result = run(**change)
    assert result["failed"]
    assert said in result["msg"]


def test_the_inventory_has_groups_addresses_and_the_balancer(place: Place, tmp_path: Path) -> None:
    place.provision(plan_of(*GROUPS, Group(name="fleet_workers", size="s-1vcpu-1gb", count=2, most=3)))
    environment = {
        **os.environ,
        "DIGITALOCEAN_ACCESS_TOKEN": "secret-token",
        "DIGITALOCEAN_ENDPOINT": place.standin.endpoint,
        "TURBOKUBE_CLOUD": "unit",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", "inventories/digitalocean", "--list"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["etcd"]["hosts"] == ["etcd-0", "etcd-1", "etcd-2"]
    assert len(found["fleet_workers"]["hosts"]) == 2
    told = found["_meta"]["hostvars"]["control-plane-1"]
    variables = {
        name: value.get("__ansible_unsafe") if isinstance(value, dict) else value for name, value in told.items()
    }
    private = {one["name"]: one["networks"]["v4"][1]["ip_address"] for one in place.account.listed("droplets")}
    assert variables["ansible_host"] == variables["digitalocean_private"] == private["control-plane-1"]
    assert variables["digitalocean_usd_per_hour"] == 0.03571
    assert variables["digitalocean_balancer"] == place.account.listed("load_balancers")[0]["ip"]
    assert "secret-token" not in done.stdout + done.stderr
