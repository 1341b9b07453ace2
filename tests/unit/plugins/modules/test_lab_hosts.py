"""The module lab_hosts: what it refuses, and what it would do; nothing is raised here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.module_utils import _lab
from ansible_collections.turbokube.scale.plugins.modules import lab_hosts


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the module in check mode on a machine without cgroups of a lab."""
    monkeypatch.setattr(_lab, "hierarchies", lambda: [])

    def call(**arguments: Any) -> dict[str, Any]:
        given = {"name": "unit", "folder": str(tmp_path), "template": "/t", "authorized_key": "k", **arguments}
        with patch_module_args({**given, "_ansible_check_mode": True}), pytest.raises(SystemExit):
            lab_hosts.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return call


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"hosts": {"Etcd_0": "198.51.100.11"}}, "no name of a lab or a host"),
        ({"hosts": {"a": "198.51.100.11", "b": "198.51.100.11"}}, "which another has"),
        ({"hosts": {"a": "198.51.100.1"}}, "198.51.100.0/24 has not"),  # the bridge's
        ({"hosts": {"a": "192.0.2.1"}}, "198.51.100.0/24 has not"),
        ({"hosts": {"a": "198.51.100.11"}, "network": "198.51.100.5/24"}, "host bits set"),
        ({"name": "../other", "hosts": {}}, "no name of a lab or a host"),
    ],
)
def test_refused(run: Any, arguments: dict[str, Any], said: str) -> None:
    result = run(**arguments)
    assert result["failed"]
    assert said in result["msg"]


def test_hosts_that_are_not_wanted_go(run: Any, tmp_path: Path) -> None:
    (tmp_path / "unit/old/root").mkdir(parents=True)
    result = run(hosts={"a": "198.51.100.11"})
    assert (result["changed"], result["raised"], result["removed"]) == (True, ["a"], ["old"])
    assert (tmp_path / "unit/old/root").is_dir()  # it only said so


def test_nothing_to_remove_or_to_kill(run: Any) -> None:
    result = run(state="absent")
    assert (result["changed"], result["removed"], result["left"]) == (False, [], [])
    assert not run(state="killed", hosts={"a": "198.51.100.11"})["changed"]


def test_what_is_left_is_told(run: Any, tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    result = run(state="absent")
    assert result["changed"]
    assert result["left"] == [str(tmp_path / "unit")]
