"""The module preflight: what it returns, and when it fails."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.modules import preflight

from turbokube.predict import machine

GIB = 2**30
TWO_CORES = machine.Machine(cores=2, memory=22 * GIB, home_free=50 * GIB, cache_free=50 * GIB, open_files=20000)
Version = namedtuple("Version", "major minor micro releaselevel serial")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the module on a machine of two cores."""
    monkeypatch.setattr(machine, "look", lambda *_: TWO_CORES)

    def call(check_mode: bool = False, components: dict[str, int] | None = None, **settings: object) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "home": str(tmp_path),
            "settings": {f"turbokube_{name}": value for name, value in settings.items()},
            "_ansible_check_mode": check_mode,
        }
        if components:
            arguments["components"] = components
        with patch_module_args(arguments), pytest.raises(SystemExit):
            preflight.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return call


def test_a_profile_that_is_carried(run: Any, tmp_path: Path) -> None:
    result = run(run="trial")
    assert not result.get("failed")
    assert result["changed"] is False
    assert (result["run"], result["run_state"]) == ("trial", "new")
    assert result["bundle"] == str(tmp_path / "runs" / "trial")
    assert result["profile"]["turbokube_namespaces"] == 32
    assert result["problems"] == []
    assert len(result["plan"]) == 4
    assert any(line.endswith("of 2 cores") for line in result["prediction"])


def test_every_problem_is_told(run: Any) -> None:
    result = run(namespaces=-1, namespace=3)
    assert result["failed"]
    assert result["problems"] == [
        "turbokube_namespace is not a variable of TurboKube; did you mean turbokube_namespaces?",
        "turbokube_namespaces is -1, but it must be a whole number from 1 to 65536",
    ]
    assert result["msg"] == "\n".join(result["problems"])


def test_a_machine_that_is_too_small(run: Any) -> None:
    result = run(namespaces=1024)
    assert result["failed"]
    assert "this machine does not carry profile quickstart" in result["msg"]
    assert result["plan"]
    assert result["prediction"]


@pytest.mark.parametrize("how", [{"preflight": "warn"}, {"check_mode": True}])
def test_warn_and_check_mode_let_it_pass_with_a_warning(run: Any, how: dict[str, Any]) -> None:
    result = run(namespaces=1024, **how)
    assert not result.get("failed")
    assert "this machine does not carry" in json.dumps(result["warnings"])


@pytest.mark.parametrize("how", [{"preflight": "warn"}, {"check_mode": True}])
def test_mistakes_end_it_all_the_same(run: Any, how: dict[str, Any]) -> None:
    assert run(namespaces=-1, **how)["failed"]


def test_components_of_this_machine(run: Any) -> None:
    result = run(components={"etcd": 3, "kube-apiserver": 2, "kube-scheduler": 0})
    assert result["plan"][1] == "target: Kubernetes 1.36.3: 3 etcd, 2 kube-apiserver"


def test_few_open_files(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "look", lambda *_: replace(TWO_CORES, open_files=256))
    assert "opens up to 1032 files, where the hard limit (ulimit -Hn) is 256" in run()["msg"]


def test_an_old_python(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight.old_python((3, 11, 0)) == ""
    monkeypatch.setattr(preflight.sys, "version_info", Version(3, 10, 12, "final", 0))
    result = run()
    assert result["failed"]
    assert " is Python 3.10.12, but TurboKube needs 3.11 or newer on the hosts" in result["msg"]
