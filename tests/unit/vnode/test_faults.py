"""Node faults, told the time; the API server is a table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
from vnode_fakes import FakeTransport, until

from turbokube.api.transport import Response
from turbokube.vnode import objects
from turbokube.vnode.client import Client
from turbokube.vnode.clock import Agenda
from turbokube.vnode.crew import Crew
from turbokube.vnode.faults import Faults
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Nodes
from turbokube.vnode.pods import Pods
from turbokube.vnode.spec import Fault, Spec

BEGAN = 1000.0


class Scene:
    """Ten vnodes that have joined and are Ready, and the faults of a spec."""

    def __init__(self, file: Path | None, *faults: Fault, **options: Any) -> None:
        self.spec = Spec(run="trial", count=10, faults=list(faults), **options)
        self.transport = FakeTransport(self.answer)
        client = Client(self.transport, Counts(), 1.0)
        self.crew = Crew(2)
        self.nodes = Nodes(self.spec, "v1.36.3", client, self.crew)
        self.pods = Pods(self.spec, client, self.crew, self.nodes.by_name, Agenda())
        self.faults = Faults(self.spec, self.nodes, self.pods, file)
        self.task = asyncio.create_task(self.crew.run())

    @staticmethod
    def answer(method: str, path: str, body: bytes) -> Response:
        name = json.loads(body)["metadata"]["name"] if method == "POST" else ""
        meta = {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "7", "labels": {"turbokube.io/run": "trial"}}
        return Response(200, msgspec.json.encode({"metadata": meta, "spec": {}, "status": {}}))

    async def complete(self) -> None:
        self.nodes.synced = True
        self.nodes.scale(10)
        await until(lambda: all(vnode.joined for vnode in self.nodes.by_name.values()))
        for vnode in self.nodes.by_name.values():
            vnode.ready = True

    def under(self, action: str) -> set[str]:
        return {self.spec.name(index) for index, one in self.nodes.faults.items() if one == action}

    def asked(self, method: str, part: str) -> list[tuple[str, Any]]:
        return [
            (path, json.loads(body) if body else None)
            for verb, path, body in self.transport.asked
            if verb == method and part in path
        ]


def play(
    story: Callable[[Scene], Coroutine[Any, Any, None]], *faults: Fault, file: Path | None = None, **options: Any
) -> None:
    async def run() -> None:
        scene = Scene(file, *faults, **options)
        await scene.complete()
        try:
            await story(scene)
        finally:
            scene.task.cancel()

    asyncio.run(run())


def test_a_fault_counts_from_when_the_fleet_is_complete_and_is_over_after_its_duration() -> None:
    async def story(scene: Scene) -> None:
        one = scene.nodes.by_name["vnode-00003"]
        one.ready = False
        scene.faults.look(BEGAN - 50)
        one.ready = True
        scene.faults.look(BEGAN)
        scene.faults.look(BEGAN + 29)
        assert scene.faults.status() == {"silence": 0, "not_ready": 0, "disappear": 0}
        scene.faults.look(BEGAN + 30)
        assert scene.faults.status()["silence"] == 4
        silent = {vnode.name for vnode in scene.nodes.by_name.values() if vnode.silent}
        assert silent == scene.under("silence")
        scene.faults.look(BEGAN + 49)
        assert len(scene.under("silence")) == 4
        scene.faults.look(BEGAN + 50)
        assert not any(vnode.silent for vnode in scene.nodes.by_name.values())
        await until(lambda: len(scene.asked("PATCH", "/status")) == 4)  # each objects to having been lost
        scene.faults.look(BEGAN + 500)
        assert scene.faults.status()["silence"] == 0

    play(story, Fault(after=30, share=0.4, action="silence", duration=20))


def test_the_seed_decides_which() -> None:
    chosen: list[set[str]] = []

    async def story(scene: Scene) -> None:
        scene.faults.look(BEGAN)
        chosen.append(scene.under("silence"))

    for seed in (1, 1, 2):
        play(story, Fault(after=0, share=0.5, action="silence"), seed=seed)
    assert chosen[0] == chosen[1] != chosen[2]


def test_processes_that_share_a_fleet_agree_on_who_it_is() -> None:
    def chosen(spec: Spec) -> set[int]:
        async def ask() -> set[int]:
            client = Client(FakeTransport(Scene.answer), Counts(), 1.0)
            nodes = Nodes(spec, "v", client, Crew(1))
            nodes.synced = True
            pods = Pods(spec, client, Crew(1), nodes.by_name, Agenda())
            for index in spec.indices:
                vnode = nodes.by_name[spec.name(index)] = nodes._new(index)
                vnode.joined = vnode.ready = True
            Faults(spec, nodes, pods).look(BEGAN)
            return set(nodes.faults)

        return asyncio.run(ask())

    spec = Spec(run="trial", count=30, processes=3, seed=5, faults=[Fault(after=0, share=0.5, action="silence")])
    parts = [chosen(spec.part(shard)) for shard in range(3)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 15


def test_one_that_is_not_ready_says_so_and_then_that_it_is() -> None:
    async def story(scene: Scene) -> None:
        def ready() -> list[tuple[str, str]]:
            said = [body["status"]["conditions"][-1] for _, body in scene.asked("PATCH", "/status")]
            return [(one["status"], one["reason"]) for one in said]

        scene.faults.look(BEGAN)
        await until(lambda: len(ready()) == 2)
        assert ready() == [("False", "KubeletNotReady")] * 2
        assert not any(vnode.silent for vnode in scene.nodes.by_name.values())
        scene.faults.look(BEGAN + 10)
        await until(lambda: len(ready()) == 4)
        assert ready()[2:] == [("True", "KubeletReady")] * 2

    play(story, Fault(after=0, share=0.2, action="not_ready", duration=10))


def test_one_that_disappears_is_deleted_and_joins_anew() -> None:
    async def story(scene: Scene) -> None:
        posts = len(scene.asked("POST", "/api/v1/nodes"))
        scene.faults.look(BEGAN)
        await until(lambda: len(scene.nodes.by_name) == 7)
        gone = scene.under("disappear")
        assert {path.rpartition("/")[2] for path, _ in scene.asked("DELETE", "/nodes/")} == gone
        assert {path.rpartition("/")[2] for path, _ in scene.asked("DELETE", "/leases/")} == gone
        scene.nodes.scale(10)  # which would let missing ones join
        await asyncio.sleep(0.05)
        assert (len(scene.nodes.by_name), scene.nodes.excused) == (7, 3)
        scene.faults.look(BEGAN + 10)
        await until(lambda: len(scene.nodes.by_name) == 10 and len(scene.asked("POST", "/api/v1/nodes")) == posts + 3)
        assert not scene.nodes.faults

    play(story, Fault(after=0, share=0.3, action="disappear", duration=10))


def test_a_fault_without_a_duration_is_for_good() -> None:
    async def story(scene: Scene) -> None:
        scene.faults.look(BEGAN)
        scene.faults.look(BEGAN + 1e6)
        assert scene.faults.status()["silence"] == 10

    play(story, Fault(after=0, share=1.0, action="silence"))


def test_a_vnode_has_one_fault_at_a_time() -> None:
    async def story(scene: Scene) -> None:
        scene.faults.look(BEGAN)
        scene.faults.look(BEGAN + 1)
        assert scene.faults.status() == {"silence": 10, "not_ready": 0, "disappear": 0}
        scene.faults.look(BEGAN + 5)
        assert scene.faults.status() == {"silence": 0, "not_ready": 0, "disappear": 0}

    play(
        story,
        Fault(after=0, share=1.0, action="silence", duration=5),
        Fault(after=1, share=1.0, action="not_ready"),
    )


def test_a_silent_vnode_whose_node_is_deleted_joins_when_it_is_back() -> None:
    async def story(scene: Scene) -> None:
        scene.faults.look(BEGAN)
        vnode = scene.nodes.by_name["vnode-00000"]
        scene.nodes._gone(vnode)
        await asyncio.sleep(0.05)
        assert "vnode-00000" not in scene.nodes.by_name
        scene.faults.look(BEGAN + 5)
        await until(lambda: scene.nodes.by_name["vnode-00000"].joined)

    play(story, Fault(after=0, share=1.0, action="silence", duration=5))


def test_nothing_objects_while_a_fault_is_why_it_is_lost() -> None:
    async def story(scene: Scene) -> None:
        scene.faults.look(BEGAN)
        lost = objects.Node(
            objects.Meta("vnode-00000", "u"),
            objects.NodeSpec(),
            objects.NodeStatus([objects.Condition("Ready", "Unknown")]),
        )
        scene.nodes._take_in(scene.nodes.by_name["vnode-00000"], lost)
        await asyncio.sleep(0.05)
        assert scene.asked("PATCH", "/status") == []
        assert scene.nodes.excused == 1

    play(story, Fault(after=0, share=1.0, action="silence"))


def test_an_engine_that_takes_over_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    fault = Fault(after=10, share=0.5, action="silence", duration=10)

    async def first(scene: Scene) -> None:
        scene.faults.look(BEGAN)

    async def during(scene: Scene) -> None:
        scene.faults.look(BEGAN + 15)
        assert scene.faults.status()["silence"] == 5

    async def after(scene: Scene) -> None:
        scene.faults.look(BEGAN + 25)
        assert scene.faults.status()["silence"] == 0

    file = tmp_path / "faults.json"
    for story in (first, during, after):
        play(story, fault, file=file)

    async def from_the_start() -> None:
        scene = Scene(file, fault)
        scene.faults.look(BEGAN + 15)  # before the Nodes are known
        under = set(scene.nodes.faults)
        assert len(under) == 5
        assert {index for index in range(10) if scene.nodes._new(index).silent} == under
        scene.task.cancel()

    asyncio.run(from_the_start())

    async def other(scene: Scene) -> None:
        scene.faults.look(BEGAN + 100)
        assert scene.faults.status()["silence"] == 0

    play(other, Fault(after=20, share=0.5, action="silence"), file=file)  # another wish counts anew


def test_a_fleet_that_grows_before_a_fault_is_waited_for() -> None:
    async def story(scene: Scene) -> None:
        scene.faults.look(BEGAN)
        scene.faults.rebase()
        scene.faults.look(BEGAN + 20)
        scene.faults.look(BEGAN + 29)
        assert scene.faults.status()["silence"] == 0
        scene.faults.look(BEGAN + 30)
        assert scene.faults.status()["silence"] == 10

    play(story, Fault(after=10, share=1.0, action="silence"))
