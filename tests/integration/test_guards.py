"""A load that a guard rail ends: really a full store, really an API server that is away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.control_plane import control_plane
from tests.integration.runs import Run
from turbokube.agent.control import TAKEOVER_S
from turbokube.daemon import process
from turbokube.daemon.control import ControlError
from turbokube.profile.phases import ObjectSet

QUOTA = 16 * 2**20


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Makes a control plane of variables, and a run on it that needs no vnodes; teardown fails if anything is left."""
    with contextlib.ExitStack() as stack:

        def make(guards: dict[str, Any], **variables: Any) -> Run:
            run = Run(stack.enter_context(control_plane(**variables)), tmp_path, "http://127.0.0.1:1/metrics")
            run.spec |= {"extra_components": [], "scrape_interval": 1.0}
            run.spec["profile"] = {"turbokube_namespaces": 2, **guards}
            return run

        yield make


def test_a_store_that_fills(own: Callable[..., Run]) -> None:
    run = own({"turbokube_guard_store": 0.8}, etcd_args={"quota-backend-bytes": QUOTA})
    big = ObjectSet(name="big", template="configmap", count=400, bytes=200_000)
    phase = run.phase(objects=(big,), concurrency=2)
    answer = run.to_the_end(phase)
    assert (answer["progress"]["state"], answer["progress"]["guard"]) == ("stopped", "store")
    assert answer["progress"]["note"].startswith("etcd-0 nears its quota: ")
    accepted = run.query("SELECT count(*) FROM objects WHERE accepted IS NOT NULL AND kind = 'ConfigMap'")[0][0]
    assert 20 < accepted < 400
    with pytest.raises(ControlError, match="phase more of run loadtest does not begin: etcd-0 nears its quota"):
        run.advance(run.phase(name="more"))
    assert run.finish()
    _, found = run.judged()
    assert found.word == "FAIL"
    assert found.reasons[0].startswith("Phase create ended: a guard stopped it: etcd-0 nears its quota: ")


@pytest.mark.slow
def test_an_api_server_that_stays_away_and_comes_back(own: Callable[..., Run]) -> None:
    run = own({"turbokube_guard_outage_s": 8.0})
    phase = run.phase(objects=(ObjectSet(name="s", template="configmap", count=200, bytes=64),), rate=20)
    run.to_the_end(phase, until=lambda progress: progress["elapsed"] > 3)
    server = next(one for one in process.marked(run.state) if one.name == "kube-apiserver-0")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        answer = run.to_the_end(phase)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert (answer["progress"]["state"], answer["progress"]["guard"]) == ("stopped", "outage")
    run.client = run.driver("another")  # as the next ansible-playbook
    time.sleep(TAKEOVER_S)
    assert run.to_the_end(phase)["progress"]["state"] == "done"
    run.finish()
    assert run.query("SELECT count(*) FROM objects WHERE accepted IS NOT NULL AND kind = 'ConfigMap'") == [(400,)]
