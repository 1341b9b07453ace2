"""A finding from one command: two runs on control planes of their own, judged, compared, nothing left behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_finding_is_reproduced_judged_and_repeated(tmp_path: Path) -> None:
    """The controller manager's default QPS holds 512 pods at some 16 a second; so it does the second time."""
    play = ["ansible-playbook", "playbooks/findings/04-default-qps.yml"]
    settings = ["-e", f"turbokube_home={tmp_path}", "-e", "turbokube_namespaces=2"]
    for times in (1, 2):
        subprocess.run([*play, *settings], cwd=ROOT, check=True, timeout=600, capture_output=True)
        found = json.loads((tmp_path / "comparisons/04-default-qps/verdict.json").read_text())
        assert found["verdict"] == "CONFIRMED", found
        assert {case: len(runs) for case, runs in found["runs"].items()} == {"defaults": times, "raised": times}
    assert (tmp_path / "comparisons/04-default-qps/compare.html").is_file()
    assert not list((tmp_path / ".turbokube").glob("*"))
