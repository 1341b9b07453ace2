from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from vnode_fakes import FakeTransport, until

from turbokube.api.transport import Response, Unreachable
from turbokube.api.watch import Event
from turbokube.vnode import objects
from turbokube.vnode.addresses import Range
from turbokube.vnode.client import Client
from turbokube.vnode.crew import Crew
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Vnode
from turbokube.vnode.pods import Pods
from turbokube.vnode.spec import Spec


def pod(number: int = 1, node: str = "vnode-00000", phase: str = "Pending", **meta: Any) -> objects.Pod:
    raw = {
        "metadata": {"name": f"p{number}", "namespace": "ns", "uid": f"u{number}", **meta},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": "pause"}, {"name": "b", "image": "pause"}]},
        "status": {"phase": phase, "podIP": meta.pop("ip", "")},
    }
    return msgspec.convert(raw, objects.Pod)


class Scene:
    def __init__(self, answer: Callable[[str, str, bytes], Response | Exception], **spec: Any) -> None:
        self.counts = Counts()
        self.transport = FakeTransport(answer)
        client = Client(self.transport, self.counts, 1.0)
        vnode = Vnode(0, "vnode-00000", client)
        vnode.uid, vnode.addresses = "node-uid", Range("10.128.5.0/24")
        stranger = Vnode(1, "vnode-00001", client)  # its name is taken by a node that is not ours
        crew = Crew(2)
        self.pods = Pods(
            Spec(run="trial", count=1, **spec),
            client,
            crew,
            {"vnode-00000": vnode, "vnode-00001": stranger},
        )
        self.task = asyncio.create_task(crew.run())

    def see(self, kind: str, pod: objects.Pod, listed: bool = False) -> None:
        self.pods.see(Event(kind, pod, listed))

    def asked(self, method: str, part: str = "") -> list[tuple[str, Any]]:
        return [
            (path, json.loads(body) if body else None)
            for asked, path, body in self.transport.asked
            if asked == method and part in path
        ]


def play(
    story: Callable[[Scene], Coroutine[Any, Any, None]],
    answer: Callable[[str, str, bytes], Response | Exception] = lambda *_: Response(200, b"{}"),
    **spec: Any,
) -> None:
    async def run() -> None:
        scene = Scene(answer, **spec)
        try:
            await story(scene)
        finally:
            scene.task.cancel()

    asyncio.run(run())


def test_a_bound_pod_runs_and_each_container_has_its_event():
    async def story(scene: Scene) -> None:
        for number in (1, 2):
            scene.see("ADDED", pod(number))
        await until(lambda: len(scene.asked("POST")) == 4)
        patches = scene.asked("PATCH")
        assert {path for path, _ in patches} == {f"/api/v1/namespaces/ns/pods/p{n}/status" for n in (1, 2)}
        assert {body["status"]["podIP"] for _, body in patches} == {"10.128.5.2", "10.128.5.3"}
        assert scene.pods.phases()["Running"] == 2
        assert scene.counts.pod_starts == 2
        assert {path for path, _ in scene.asked("POST")} == {"/api/v1/namespaces/ns/events"}

    play(story)


def test_the_echo_of_our_own_patch_starts_nothing_again():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod())
        await until(lambda: len(scene.asked("POST")) == 2)
        scene.see("MODIFIED", pod(phase="Running"))
        scene.see("MODIFIED", pod())
        await asyncio.sleep(0.05)
        assert len(scene.asked("PATCH")) == 1

    play(story)


def test_the_server_side_sees_pods_of_ours_and_hears_when_they_are_gone():
    async def story(scene: Scene) -> None:
        seen: list[tuple[str, str]] = []
        gone: list[str] = []
        scene.pods.on_seen = lambda pod, vnode: seen.append((pod.metadata.uid, vnode.name))
        scene.pods.on_gone = gone.append
        scene.see("ADDED", pod(1))
        scene.see("MODIFIED", pod(1, phase="Running"))
        scene.see("ADDED", pod(2, node="vnode-00001"))
        assert seen == [("u1", "vnode-00000")] * 2
        scene.see("DELETED", pod(1))
        scene.see("DELETED", pod(2, node="vnode-00001"))
        assert gone == ["u1"]

    play(story)


def test_start_delay_is_waited_for():
    async def story(scene: Scene) -> None:
        began = time.monotonic()
        scene.see("ADDED", pod())
        await asyncio.sleep(0.1)
        assert scene.pods.phases()["Pending"] == 1
        await until(lambda: scene.pods.phases()["Running"] == 1)
        assert time.monotonic() - began >= 0.25

    play(story, start_delay="0.25")


def test_pods_of_other_nodes_are_left_alone():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod(1, node="worker-1"))
        scene.see("ADDED", pod(2, node="vnode-00001"))
        await asyncio.sleep(0.05)
        assert scene.transport.asked == []
        assert sum(scene.pods.phases().values()) == 0

    play(story)


def test_pods_of_an_earlier_engine_go_on_and_keep_their_addresses():
    async def story(scene: Scene) -> None:
        running = pod(1, phase="Running")
        running.status.pod_i_p = "10.128.5.2"
        scene.see("ADDED", running, listed=True)
        scene.see("ADDED", pod(2), listed=True)
        await until(lambda: scene.pods.phases()["Running"] == 2)
        ((path, body),) = scene.asked("PATCH")
        assert path.endswith("/p2/status")
        assert body["status"]["podIP"] == "10.128.5.3"

    play(story)


def test_a_deleted_pod_ends_is_taken_off_and_gives_its_address_back():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod())
        await until(lambda: scene.pods.phases()["Running"] == 1)
        dying = pod(deletionTimestamp="2026-01-01T00:00:30Z", deletionGracePeriodSeconds=30, phase="Running")
        scene.see("MODIFIED", dying)
        scene.see("MODIFIED", dying)
        await until(lambda: len(scene.asked("DELETE")) == 1)
        assert scene.asked("PATCH")[-1][1]["status"]["phase"] == "Succeeded"
        ((path, options),) = scene.asked("DELETE")
        assert path == "/api/v1/namespaces/ns/pods/p1"
        assert (options["gracePeriodSeconds"], options["preconditions"]) == (0, {"uid": "u1"})
        assert scene.pods.phases()["Terminating"] == 1
        scene.see("DELETED", dying)
        assert sum(scene.pods.phases().values()) == 0
        scene.see("ADDED", pod(9))
        await until(lambda: scene.pods.phases()["Running"] == 1)
        assert scene.asked("PATCH")[-1][1]["status"]["podIP"] == "10.128.5.2"

    play(story)


def test_containers_that_need_longer_than_the_grace_period_are_killed_at_its_end():
    async def story(scene: Scene) -> None:
        began = time.monotonic()
        scene.see("ADDED", pod(1, phase="Running", deletionTimestamp="x", deletionGracePeriodSeconds=1))
        scene.see("ADDED", pod(2, phase="Running", deletionTimestamp="x", deletionGracePeriodSeconds=0))
        await until(lambda: len(scene.asked("DELETE")) == 1)
        assert scene.asked("DELETE")[0][0].endswith("/p2")
        await until(lambda: len(scene.asked("DELETE")) == 2)
        assert 0.9 <= time.monotonic() - began < 1.6

    play(story, stop_delay="60")


def test_a_pod_deleted_before_it_ran_never_runs():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod())
        scene.see("MODIFIED", pod(deletionTimestamp="x", deletionGracePeriodSeconds=30))
        await until(lambda: len(scene.asked("DELETE")) == 1)
        await asyncio.sleep(0.3)
        assert [body["status"]["phase"] for _, body in scene.asked("PATCH")] == ["Succeeded"]
        assert scene.counts.pod_starts == 0

    play(story, start_delay="0.2")


def test_an_outage_delays_a_start_and_loses_none():
    trouble: list[Response | Exception] = [
        Unreachable("refused", sent=False),
        Response(429, b"{}", 0.05),
        Response(409, b"{}"),
    ]

    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod())
        await until(lambda: scene.pods.phases()["Running"] == 1)
        assert len(scene.asked("PATCH")) == 4
        assert scene.counts.pod_starts == 1

    play(story, lambda *_: trouble.pop(0) if trouble else Response(200, b"{}"))


def test_a_pod_that_vanished_meanwhile_is_no_trouble():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod())
        await until(lambda: len(scene.asked("PATCH")) == 1)
        await asyncio.sleep(0.02)
        assert scene.counts.pod_starts == 0
        assert scene.asked("POST") == []

    play(story, lambda *_: Response(404, b"{}"))
