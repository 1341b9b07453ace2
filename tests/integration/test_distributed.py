"""Load by an Indexed Job, on a control plane that is target and carrier at once.

The Job's pods are on vnodes, which run nothing: what they would run are processes of the test, told what their Secret
says, and what is asked of a pod through the API server is asked of these.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane
from tests.integration.fleets import Fleet, wait_for
from turbokube.agent.session import Session
from turbokube.agent.spec import RunSpec
from turbokube.api.credentials import Credential
from turbokube.api.http1 import Http1
from turbokube.api.target import load_target
from turbokube.api.transport import Response, Unreachable
from turbokube.bundle.reader import Reader
from turbokube.load.remove import remove
from turbokube.profile.phases import Create, ObjectSet
from turbokube.vnode.spec import Spec
from turbokube.workload.cluster import Cluster
from turbokube.workload.job import LoadJob, absent

WORKERS = Spec(run="carriers", count=2, name_prefix="carrier-", placement="cluster", connections=2)
VNODES = Spec(run="spread", count=40, connections=2)  # of five namespaces
PHASE = Create(
    run="spread",
    name="create",
    namespaces=5,
    deadline=120.0,
    concurrency=3,
    objects=(ObjectSet(name="turbokube", count=3, replicas=4),),
)
PODS = 5 * 3 * 4
RUN_SEGMENT = (
    "import pathlib, sys, turbokube.agent.segment as s; "
    "s.main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))"
)
pytestmark = pytest.mark.slow


class Pods:
    """Processes in place of the Job's pods."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.ports: dict[int, int] = {}
        self._request = Cluster.request

    async def request(
        self, cluster: Cluster, method: str, path: str, body: Any = None, timeout: float = 30.0
    ) -> Response:
        """As the API server would pass it on to a pod."""
        found = re.search(r"/pods/load-(\d+)-\w+:10255/proxy(/.*)", path)
        if found is None:
            return await self._request(cluster, method, path, body, timeout)
        number = int(found[1])
        if number not in self.running:
            self.start(number)
        url = f"http://127.0.0.1:{self.ports[number]}"
        http = Http1(Credential(url), [url], size=1)
        try:
            for _ in range(100):
                try:
                    data = msgspec.json.encode(body) if body is not None else b""
                    return await http.request(method, found[2], data, timeout=timeout)
                except Unreachable:
                    await asyncio.sleep(0.2)
            raise AssertionError((self.folder / f"{number}.log").read_text())
        finally:
            await http.close()

    def start(self, number: int) -> None:
        secret = json.loads(self.plane.kubectl("get", "-n", "turbokube-spread", "secret", "load", "-o", "json"))
        told, work = self.folder / f"told-{number}", self.folder / f"work-{number}"
        for folder in (told, work):
            folder.mkdir(exist_ok=True)
        for name, data in secret["data"].items():
            (told / name).write_bytes(base64.b64decode(data).replace(b"/etc/turbokube", str(told).encode()))
        if number not in self.ports:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                self.ports[number] = one.getsockname()[1]
        argv = [sys.executable, "-c", RUN_SEGMENT, str(told), str(work), str(self.ports[number])]
        with (self.folder / f"{number}.log").open("ab") as log:
            environment = os.environ | {"TURBOKUBE_ORDINAL": str(number)}
            self.running[number] = subprocess.Popen(argv, env=environment, stderr=log)

    def end(self) -> None:
        for child in self.running.values():
            child.terminate()
        for child in self.running.values():
            child.wait(10)


@pytest.fixture
def pods(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    workers, vnodes = Fleet(plane, WORKERS, tmp_path / "workers"), Fleet(plane, VNODES, tmp_path / "vnodes")
    workers.present()
    vnodes.present()
    it = Pods(plane, tmp_path)
    monkeypatch.setattr(Cluster, "request", lambda *some, **more: it.request(*some, **more))
    try:
        yield it
    finally:
        it.end()
        plane.kubectl("delete", "namespace", "turbokube-spread", "--ignore-not-found")
        asyncio.run(remove(load_target(plane.target), "spread", 60.0))
        vnodes.absent()
        workers.absent()


def a_job(plane: ControlPlane, segments: int) -> LoadJob:
    return LoadJob(
        kubeconfig=load_target(plane.target).kubeconfigs["admin"],
        segments=segments,
        image="localhost/turbokube:0",
        node_selector={"turbokube.io/run": WORKERS.run},
        tolerations=[{"key": "turbokube.io/vnode", "operator": "Exists"}],
    )


def a_session(plane: ControlPlane, folder: Path, segments: int) -> Session:
    target, job = load_target(plane.target), a_job(plane, segments)
    return Session(folder / "bundle", RunSpec(run="spread", target=target, scrape_interval=2.0, job=job), folder)


async def run(session: Session, seen: list[Any]) -> None:
    await session.start()
    session.submit([PHASE])
    while session.working:
        await session.wait(0.5)
        seen.append(session.progress("create"))
    await session.finish()


def test_segments_are_one_run_with_exact_totals(plane: ControlPlane, pods: Pods) -> None:
    seen: list[Any] = []

    async def whole() -> None:
        await run(a_session(plane, pods.folder, 3), seen)

    asyncio.run(whole())
    last = seen[-1]
    assert (last.state, last.note) == ("done", "")
    assert (last.intended, last.created, last.scheduled, last.running) == (PODS, PODS, PODS, PODS)
    listed = json.loads(plane.kubectl("get", "pods", "-A", "-l", "turbokube.io/run=spread,app", "-o", "json"))["items"]
    with Reader(pods.folder / "bundle") as reader:
        known = {row[0] for row in reader.query("SELECT uid FROM pods WHERE running_seen IS NOT NULL")}
        assert known == {pod["metadata"]["uid"] for pod in listed}
        assert len(known) == PODS
        kinds = (
            "SELECT kind, count(*), sum(replicas) FROM objects WHERE accepted IS NOT NULL GROUP BY kind ORDER BY kind"
        )
        assert [tuple(row) for row in reader.query(kinds)] == [("Deployment", 15, PODS), ("Namespace", 5, 0)]
        meta = reader.meta()
        phase = reader.query("SELECT * FROM phases")[0]
        requests = "SELECT sum(accepted) FROM requests WHERE resource = 'deployments'"
        assert reader.query(requests)[0][0] == 15
        counts = dict(tuple(row) for row in reader.query("SELECT source, count FROM counts WHERE resource = 'pods'"))
    assert counts["observer"] == PODS
    told = meta["segments"]
    assert [one["pods"] for one in told] == [12, 24, 24]
    assert {one["worker"] for one in told} == {"carrier-00000", "carrier-00001"}
    assert phase["state"] == "done"
    # its time is that of the load, not that of pods being started and asked
    assert phase["started"] == min(one["started"] for one in told)
    assert phase["ended"] == max(one["ended"] for one in told)
    assert max(one["started"] for one in told) - phase["started"] < 1.0
    gone = "get", "-n", "turbokube-spread", "job,secret", "-l", "app.kubernetes.io/name=turbokube-load", "-o", "name"
    assert plane.kubectl(*gone).strip() == ""
    assert not (pods.folder / "bundle" / "segments").exists()
    how = a_job(plane, 3)
    assert absent("spread", how, 30.0, check_mode=True)
    assert absent("spread", how, 30.0)
    assert "turbokube-spread" not in plane.kubectl("get", "namespaces")
    assert not absent("spread", how, 30.0)


def test_an_agent_that_follows_one_that_died_goes_on_with_the_same_segments(plane: ControlPlane, pods: Pods) -> None:
    async def die() -> None:
        session = a_session(plane, pods.folder, 2)
        await session.start()
        session.submit([PHASE])
        while session.progress("create").created == 0:
            await asyncio.sleep(0.1)
        await session.close()

    asyncio.run(die())
    first = dict(pods.running)
    # a generator that is killed comes back in its pod, with what it had written
    first[1].send_signal(signal.SIGKILL)
    first[1].wait()
    pods.start(1)
    seen: list[Any] = []

    async def whole() -> None:
        await run(a_session(plane, pods.folder, 2), seen)

    asyncio.run(whole())
    assert pods.running[0] is first[0]
    assert seen[-1].state == "done"
    wait_for(lambda: first[0].poll() is not None, 15)  # its bundle was fetched
    with Reader(pods.folder / "bundle") as reader:
        found = "SELECT count(*), count(DISTINCT uid) FROM pods WHERE running_seen IS NOT NULL AND deleted_seen IS NULL"
        assert tuple(reader.query(found)[0]) == (PODS, PODS)
        assert [one["pods"] for one in reader.meta()["segments"]] == [24, 36]


def test_a_generator_that_lost_its_record_stops_the_phase_and_the_others_are_kept(
    plane: ControlPlane, pods: Pods
) -> None:
    seen: list[Any] = []

    async def whole() -> None:
        session = a_session(plane, pods.folder, 2)
        await session.start()
        session.submit([PHASE])
        while session.progress("create").created == 0:
            await asyncio.sleep(0.1)
        pods.running[1].send_signal(signal.SIGKILL)
        pods.running[1].wait()
        shutil.rmtree(pods.folder / "work-1")  # as of a worker that is gone
        pods.start(1)
        while session.working:
            await session.wait(0.5)
        seen.append(session.progress("create"))
        await session.finish()

    asyncio.run(whole())
    assert seen[0].state == "stopped"
    assert "load generators [1] were lost" in seen[0].note
    with Reader(pods.folder / "bundle") as reader:
        assert [one["segment"] for one in reader.meta()["segments"]] == [0]
