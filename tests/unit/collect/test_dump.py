"""What is asked of kubectl for a dump."""

from __future__ import annotations

from pathlib import Path

from turbokube.api.target import Target
from turbokube.collect.dump import collect


def test_paths_and_contexts_keep_their_capitals(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@"\n')
    kubectl.chmod(0o755)
    target = Target(name="t", servers=[], kubeconfigs={"admin": "/Users/Ann/admin.conf"}, contexts={"admin": "Prod"})
    found = collect(target, "r", tmp_path / "state", tmp_path / "dump", str(kubectl))
    assert found.errors == {}
    asked = (tmp_path / "dump" / "nodes.json").read_text().split()
    assert "--kubeconfig=/Users/Ann/admin.conf" in asked
    assert "--context=Prod" in asked
    assert asked[-1] == "/api/v1/nodes?labelSelector=turbokube.io%2Frun%3Dr&limit=500"
