"""The whole way through a cloud: bought, loaded, reported, gone. It is a stand-in whose droplets are hosts of a lab.

Needs root; without it it is skipped, unless TURBOKUBE_REQUIRE_LAB=1.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import yaml
from ansible_collections.turbokube.scale.plugins.module_utils._lab import Lab

ROOT = Path(__file__).parents[2]
CACHE = Path(
    os.environ.get("TURBOKUBE_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/turbokube"
)
TOKEN, NETWORK, LAB = "a-token-of-the-test", "10.20.0.0/24", "cloud"
FEW = {"control_plane": {"count": 2, "size": "s-2vcpu-4gb"}, "admin": {"count": 1, "size": "s-1vcpu-1gb"}}
HOSTS = ["admin-0", "control-plane-0", "control-plane-1"]
GROUPS = {
    "etcd": {"count": 1, "size": "s-1vcpu-1gb"},
    "control_plane": {"count": 2, "size": "s-2vcpu-4gb"},
    "fleet_control_plane": {"count": 1, "size": "s-2vcpu-4gb"},
    "fleet_workers": {"count": 2, "most": 3, "size": "s-2vcpu-4gb", "memory_utilization": 0.5},
    "admin": {"count": 1, "size": "s-1vcpu-1gb", "also": ["fleet"]},
}

pytestmark = pytest.mark.slow


class Away:
    """The stand-in, and ansible-playbook with inventories/digitalocean against it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "state/turbokube/digitalocean/test"
        binds = [f"--bind={CACHE}/bin:/opt/turbokube/bin", f"--bind={CACHE}/lab/images:/opt/turbokube/images"]
        words = ["--state", str(folder), "--token", TOKEN, "--lab", LAB, "--lab-folder", str(CACHE / "lab")]
        self._standin = subprocess.Popen(
            [sys.executable, "-m", "tests.cloud.standin", *words, "--network", NETWORK, *binds],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/collections:{ROOT}/src"},
        )
        end = time.monotonic() + 20
        while not (folder / "endpoint").exists():
            assert self._standin.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        self.endpoint = (folder / "endpoint").read_text()
        trusted = folder / "trusted.crt"  # whom this machine trusts, and the stand-in
        others = Path(os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where())
        trusted.write_bytes(others.read_bytes() + (folder / "ca.crt").read_bytes())
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        self.environment |= {
            "DIGITALOCEAN_ACCESS_TOKEN": TOKEN,
            "DIGITALOCEAN_ENDPOINT": self.endpoint,
            "REQUESTS_CA_BUNDLE": str(trusted),
            "TURBOKUBE_CLOUD": "test",
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        (folder / "vars.yml").write_text(yaml.safe_dump(self._variables()))

    def _variables(self) -> dict[str, Any]:
        """What droplets need that share this machine's kernel and have no way out, as inventories/lab says it."""
        lab = yaml.safe_load((ROOT / "inventories/lab/group_vars/lab.yml").read_text())
        into = f"nsenter --net=/run/netns/turbokube-{LAB} socat - TCP:%h:%p"
        return {name: value for name, value in lab.items() if not name.startswith("ansible_")} | {
            "library_wheelhouse": str(CACHE / "lab/wheels"),
            "digitalocean_network": NETWORK,
            "digitalocean_ssh_from": ["10.20.0.1/32"],
            "digitalocean_ssh_options": {"ProxyCommand": into},
            "digitalocean_timeout": 60,
            "fleet_vnodes_per_pod": 64,
            "turbokube_budget_usd": 2,
            "turbokube_run": "cloud",
            "turbokube_namespaces": 64,
            "turbokube_deployments_per_namespace": 1,
            "bring_runs": str(self.folder / "runs"),
        }

    def play(self, name: str, *more: str, groups: dict[str, Any] = GROUPS, fails: bool = False) -> str:
        """Run a playbook for these groups; what it said."""
        words = ["ansible-playbook", "-i", "inventories/digitalocean", f"playbooks/{name}.yml", "--forks=8"]
        words += ["-e", json.dumps({"digitalocean_groups": groups})]
        with open(self.folder / f"{name}.log", "w+") as log:
            status = subprocess.run(
                [*words, "-e", f"@{self.folder}/vars.yml", *more],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
            log.seek(0)
            said = log.read()
        assert TOKEN not in said
        assert (status != 0) is fails, f"{' '.join(words)} {' '.join(more)}\n{said}"
        return re.sub(r"\s+", " ", said)

    def fail(self, *faults: dict[str, Any]) -> None:
        """The next requests that they fit fail."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        asked = urllib.request.Request(f"{self.endpoint}/standin/faults", json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(asked, context=context).close()

    def account(self) -> dict[str, Any]:
        """What the account holds."""
        state: dict[str, Any] = json.loads((self.folder / "account.json").read_text())["state"]
        return state

    def stop(self) -> None:
        """End it, and the droplets with it."""
        self._standin.kill()
        self._standin.wait()
        lab = Lab(LAB, str(CACHE / "lab/machines"), NETWORK)
        lab.raze()
        assert lab.left() == []


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    if os.geteuid() != 0:
        why = "droplets are hosts of a lab, which needs root"
        (pytest.fail if os.environ.get("TURBOKUBE_REQUIRE_LAB") == "1" else pytest.skip)(why)
    # the template, images and packages: a lab of one host, and no lab again
    role = ["ansible", "-i", "inventories/lab", "machine", "-m", "ansible.builtin.include_role"]
    for state in ("present", "absent"):
        words = ["-a", "name=turbokube.scale.lab", "-e", f"lab_name={LAB} lab_group=admin lab_state={state}"]
        done = subprocess.run([*role, *words], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    made = Away(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


def gone(away: Away) -> None:
    """Remove all of it; it is proved, by who removed it and by the account."""
    said = away.play("digitalocean", "-e", "digitalocean_state=absent")
    assert "Nothing is left of turbokube-test: no pool, no droplet, no load balancer" in said
    assert re.search(r"cost: 0\.\d\d USD, by the provider's prices", said)
    assert not any(away.account().values())
    assert all(path.name.startswith("bill") for path in away.home.iterdir())


def test_what_fails_in_the_middle_is_taken_up_and_removed(away: Away) -> None:
    """An API that fails in the middle of provision, and a delete that is refused."""
    assert "cost: 0.10 USD an hour" in away.play("digitalocean", "-e", "digitalocean_state=planned", groups=FEW)
    assert not any(away.account().values())

    away.fail({"method": "POST", "path": "/v2/load_balancers", "status": 500, "times": 99})
    assert "Server Error" in away.play("digitalocean", groups=FEW, fails=True)
    assert sorted(one["name"] for one in away.account()["droplets"].values()) == HOSTS
    assert not away.account()["load_balancers"]

    away.fail()
    taken_up = away.play("digitalocean", groups=FEW)
    assert len(away.account()["droplets"]) == len(HOSTS)
    assert all(f"{host} : ok=" in taken_up for host in HOSTS)
    again = away.play("digitalocean", groups=FEW)
    assert re.findall(r"changed=(\d+)", again) == ["0"] * (1 + len(HOSTS))

    away.fail({"method": "DELETE", "path": "/v2/droplets/.*", "status": 422, "times": 2})
    gone(away)


def test_from_nothing_to_a_report_and_back(away: Away) -> None:
    """A cluster behind the cloud's load balancer, its vnodes on workers of another; what it cost is on the report."""
    away.play("digitalocean")
    said = away.play("hosts")
    assert "512 vnodes are 4 pods on each of 2 workers" in said
    assert "Nothing is left in the cluster of run cloud: no namespace, no pod, no Node, no Lease." in said
    cost = json.loads((away.folder / "runs/cloud/report.json").read_text())["cost"]
    assert cost["pods"] == 512
    assert [(one["name"], one["count"]) for one in cost["machines"]] == [
        *((name, group["count"]) for name, group in GROUPS.items()),
        ("load balancer", 1),
    ]
    hourly = sum(one["count"] * one["usd_per_hour"] for one in cost["machines"])
    assert hourly == pytest.approx(2 * 0.00893 + 5 * 0.03571 + 0.02232)
    assert cost["usd"] == pytest.approx(cost["hours"] * hourly, rel=0.01)  # a millionth of a USD is told
    assert cost["pods_per_usd"] == pytest.approx(512 / cost["usd"], rel=0.01)
    assert cost["node_hours_per_usd"] > 0
    gone(away)
