"""The module record_load: what it returns of a run, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.modules import record_load

from turbokube.bundle import trace
from turbokube.bundle.writer import Writer


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the module; `dest` is tmp_path/trace."""
    monkeypatch.setattr(basic.AnsibleModule, "_log_invocation", lambda self: None)

    def run(check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"dest": str(tmp_path / "trace"), **arguments, "_ansible_check_mode": check_mode}
        with patch_module_args(given), pytest.raises(SystemExit):
            record_load.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A run that created two deployments."""
    writer = Writer(tmp_path / "run")
    writer.insert("phases", [("create", "create", msgspec.json.encode({}).decode(), 1.0, 9.0, "done", "")])
    rows = [("create", "Deployment", "shop", name, at, at, at, 201, 0, 0, 0, 2, at, 1)
            for name, at in (("web", 2.0), ("db", 5.0))]  # fmt: skip
    writer.insert("objects", rows)
    writer.close()
    return tmp_path / "run"


def test_a_runs_trace_is_written_once(call: Any, bundle: Path, tmp_path: Path) -> None:
    assert call(check_mode=True, bundle=str(bundle))["changed"]
    assert not (tmp_path / "trace").exists()
    first = call(bundle=str(bundle))
    assert (first["changed"], first["counts"]) == (True, {"create": {"Deployment": 2}})
    assert (first["header"]["method"], first["header"]["seconds"], first["header"]["operations"]) == ("ledger", 3.0, 2)
    assert [one.name for one in trace.read(first["path"]).operations] == ["deployment-1", "deployment-2"]
    assert not call(bundle=str(bundle))["changed"]
    assert call(bundle=str(bundle), keep_names=True)["changed"]
    assert [one.name for one in trace.read(first["path"]).operations] == ["web", "db"]


def test_what_cannot_be_recorded_is_refused_in_one_sentence(call: Any, bundle: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ({"bundle": str(tmp_path / "none")}, "holds no bundle.sqlite"),
        ({"bundle": str(bundle), "window": -1}, "window is -1; it must be at least 0 seconds"),
        ({"kubeconfig": str(tmp_path / "none")}, "none"),
        ({}, "one of the following is required: kubeconfig, target, bundle"),
        ({"bundle": str(bundle), "kubeconfig": "x"}, "mutually exclusive"),
    ):
        failed = call(**arguments)
        assert failed["failed"]
        assert words in failed["msg"]


def test_a_cluster_is_not_asked_in_check_mode(call: Any) -> None:
    assert call(check_mode=True, kubeconfig="/nowhere")["changed"]
