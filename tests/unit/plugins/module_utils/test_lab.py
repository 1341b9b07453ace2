"""What a lab is called, and that nothing of another one is taken for its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.turbokube.scale.plugins.module_utils import _lab
from ansible_collections.turbokube.scale.plugins.module_utils._lab import Hierarchy, Lab


@pytest.fixture
def hierarchies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two hierarchies of cgroups with hosts of two labs whose names begin alike."""
    for kind in ("memory", "unified"):
        for name in ("turbokube-lab.etcd-0", "turbokube-lab.etcd-0/payload", "turbokube-lab-2.etcd-9", "other"):
            (tmp_path / kind / "session" / name).mkdir(parents=True)
    events = "populated 1\nfrozen 0\n"
    (tmp_path / "unified/session/turbokube-lab.etcd-0/cgroup.events").write_text(events)
    mounts = [
        Hierarchy(str(tmp_path / "memory"), "/session", frozenset({"memory"})),
        Hierarchy(str(tmp_path / "unified"), "/session", frozenset()),
    ]
    monkeypatch.setattr(_lab, "hierarchies", lambda: mounts)
    return tmp_path


def test_hosts_are_found_by_their_cgroups_whoever_raised_them(hierarchies: Path) -> None:
    lab = Lab("lab", str(hierarchies / "machines"), "198.51.100.0/24")
    assert lab.known() == {"etcd-0"}
    assert lab.running("etcd-0")
    assert not lab.running("etcd-1")
    assert lab.left() == [str(hierarchies / kind / "session/turbokube-lab.etcd-0") for kind in ("memory", "unified")]


def test_another_lab_is_another(hierarchies: Path) -> None:
    lab = Lab("lab-2", str(hierarchies / "machines"), "198.51.100.0/24")
    assert lab.known() == {"etcd-9"}
    assert not lab.running("etcd-9")


def test_hosts_are_found_by_their_disks(hierarchies: Path) -> None:
    (hierarchies / "machines/lab-3/admin-0/root").mkdir(parents=True)
    (hierarchies / "machines/lab-3/key").mkdir()
    assert Lab("lab-3", str(hierarchies / "machines"), "198.51.100.0/24").known() == {"admin-0"}


def test_the_bridge_has_the_first_address() -> None:
    assert Lab("lab", "/nowhere", "192.0.2.128/25").gateway == "192.0.2.129"


def test_ports_have_names_that_an_interface_can_have() -> None:
    assert _lab._port("198.51.100.255") == "v100-255"
    assert len(_lab._port("255.255.255.255")) <= 15


def test_own_hierarchies_are_read() -> None:
    for hierarchy in _lab.hierarchies():
        assert Path(hierarchy.mount).is_dir()
        assert hierarchy.own.startswith("/")
