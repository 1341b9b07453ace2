from __future__ import annotations

import fcntl
import re
import subprocess
import sys

import pytest

from turbokube.vnode.metrics import Counts, exposition
from turbokube.vnode.spec import Spec, SpecError, check


def test_the_exposition_has_every_promised_name_and_adds_up():
    counts = Counts()
    counts.renewals = 3
    for late in (0.001, 0.02, 99.0):
        counts.lateness.observe(late)
    counts.requests["update", "leases", "200"] = 3
    text = exposition(
        counts, {'vnodes{state="joined"}': 2, 'vnodes{state="wanted"}': 3, 'pods{phase="Running"}': 7}, 0.5
    )
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['turbokube_fleet_vnodes{state="joined"}'] == "2"
    assert samples['turbokube_fleet_pods{phase="Running"}'] == "7"
    assert samples["turbokube_fleet_lease_renewals_total"] == "3"
    assert samples['turbokube_fleet_lease_lateness_seconds_bucket{le="0.005"}'] == "1"
    assert samples['turbokube_fleet_lease_lateness_seconds_bucket{le="10.0"}'] == "2"
    assert samples['turbokube_fleet_lease_lateness_seconds_bucket{le="+Inf"}'] == "3"
    assert samples["turbokube_fleet_lease_lateness_seconds_count"] == "3"
    assert samples['turbokube_fleet_requests_total{verb="update",resource="leases",code="200"}'] == "3"
    assert samples["turbokube_fleet_loop_lag_seconds"] == "0.5"
    assert float(samples["process_resident_memory_bytes"]) > 1e6
    assert float(samples["process_cpu_seconds_total"]) > 0
    types = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert len(types) == len(set(types))


def test_quantiles_are_bounds():
    lateness = Counts().lateness
    assert lateness.quantile(0.99) == 0.0
    for _ in range(99):
        lateness.observe(0.003)
    lateness.observe(3.0)
    assert (lateness.quantile(0.99), lateness.quantile(1.0)) == (0.005, 5.0)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("count", -1, "count is -1; allowed is 0 to 100000"),
        ("lease_interval", 40.0, "lease_interval is 40.0; allowed is more than 0 and less than lease_duration (40)"),
        ("placement", "rack", "placement is 'rack'; allowed is namespace or cluster"),
        ("engine", "kwak", "engine is 'kwak'; allowed is builtin or kwok or kubemark or virtual_kubelet"),
        ("connections", 1, "connections is 1; allowed is 2 to 256"),
        ("memory", "lots", "capacity.memory is 'lots'; allowed is a quantity"),
        ("run", "a b", "run is 'a b'; allowed is a label value"),
        ("serve_port", 70000, "serve_port is 70000; allowed is 1 to 65535"),
        ("pod_cpu_usage", "lots", "pod_cpu_usage is 'lots'; allowed is a quantity, or"),
        ("pod_memory_usage", "uniform(2Gi,1Gi)", "pod_memory_usage is 'uniform(2Gi,1Gi)'; allowed is a quantity, or"),
        ("node_ip_range", "10.0.0.0/24", "node_ip_range is '10.0.0.0/24'; allowed is an IPv4 CIDR with 256 addresses"),
        ("name_prefix", "A-", "name_prefix is 'A-'; allowed is lower case letters"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_what_is_allowed(option, value, words):
    with pytest.raises(SpecError, match=re.escape(words)):
        check(Spec(**{"run": "trial", "count": 8, option: value}))


def test_names_and_numbers_are_inverse():
    spec = Spec(run="trial", count=1, name_prefix="a-1")
    assert spec.name(7) == "a-100007"
    assert spec.index("a-100007") == 7
    assert [spec.index(name) for name in ("a-17", "b-00007", "a-1", "a-1x0007")] == [None] * 4


def test_nodes_that_serve_are_on_loopback_unless_told_a_range():
    assert Spec(run="trial", count=1).address(3) == "172.16.1.3"
    assert Spec(run="trial", count=1, serve=True).address(3) == "127.16.1.3"
    assert Spec(run="trial", count=1, serve=True, node_ip_range="10.8.0.0/16").address(3) == "10.8.1.3"


def test_the_daemon_imports_no_heavy_package():
    code = "import sys, turbokube.vnode.__main__; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"yaml", "cryptography", "jinja2", "kubernetes", "ansible", "requests"} & set(loaded)


def test_a_second_engine_of_a_run_is_refused(tmp_path):
    (tmp_path / "fleet").mkdir()
    with open(tmp_path / "fleet" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "turbokube.vnode", "--state", str(tmp_path), "--name", "fleet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"another fleet of the run in {tmp_path} is alive")
