"""Recording: what events of watches become, and what objects and Events tell afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from turbokube.api.transport import ApiError, Response
from turbokube.collect import reconstruct, record
from turbokube.collect.reconstruct import Event, tell
from turbokube.collect.record import Choice, Object, Recorder, creation

POD = {"containers": [{"name": "c", "image": "registry.example/secret-thing", "env": [{"name": "TOKEN", "value": "s3"}],
                       "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}  # fmt: skip


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def thing(
    name: str = "web", uid: str = "", space: str = "shop", pod: Any = POD, created: float = 0, **spec: Any
) -> Any:
    """An object as the API gives it, of any kind with a template."""
    meta = {"name": name, "namespace": space, "uid": uid or name, "creationTimestamp": moment(created),
            "labels": {"owner": "alice"}}  # fmt: skip
    return {"metadata": meta, "spec": {"template": {"spec": pod}, **spec}}


def read(made: Any) -> Object:
    return msgspec.json.decode(msgspec.json.encode(made), type=Object)


class Watched:
    """A recorder and its clock."""

    def __init__(self, choice: Choice | None = None) -> None:
        self.now = 0.0
        self.recorder = Recorder(choice or Choice(), lambda: self.now)

    def see(self, at: float, event: str, made: Any, kind: Any = "Deployment", *, listed: bool = False) -> None:
        self.now = at
        self.recorder.see(kind, event, read(made), listed=listed)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [(one.t, one.verb, one.name, one.replicas) for one in self.recorder.operations]


def test_a_deployments_life() -> None:
    watched = Watched()
    other = {"containers": [*POD["containers"], {"name": "more"}]}
    watched.see(1.0, "ADDED", thing(replicas=2))
    watched.see(1.1, "MODIFIED", thing(replicas=2))  # its status
    watched.see(2.0, "MODIFIED", thing(replicas=5))
    watched.see(3.0, "MODIFIED", thing(replicas=5, pod=other))
    watched.see(4.0, "MODIFIED", thing(replicas=0, pod=POD))
    watched.see(5.0, "DELETED", thing(replicas=0, pod=POD))
    assert watched.told == [
        (1.0, "create", "web", 2), (2.0, "scale", "web", 5), (3.0, "roll", "web", None),
        (4.0, "scale", "web", 0), (4.0, "roll", "web", None), (5.0, "delete", "web", None),
    ]  # fmt: skip


def test_nothing_that_tells_what_it_is_for_is_kept() -> None:
    watched = Watched()
    watched.see(1.0, "ADDED", thing(replicas=2))
    text = msgspec.json.encode(watched.recorder.operations).decode()
    for word in ("secret-thing", "TOKEN", "s3", "alice", "registry"):
        assert word not in text
    one = watched.recorder.operations[0]
    assert one.requests == {"cpu": "100m", "memory": "64Mi"}
    assert one.bytes == len(msgspec.json.encode(POD))


def test_what_is_there_at_the_beginning_was_there_before() -> None:
    watched = Watched()
    watched.see(0.0, "ADDED", thing("old", replicas=3), listed=True)
    watched.see(2.0, "ADDED", thing("listed-again", replicas=3), listed=True)  # the watch began anew
    assert [(one.t, one.name, one.before) for one in watched.recorder.operations] == [
        (0.0, "old", True), (2.0, "listed-again", False)
    ]  # fmt: skip


def test_what_went_while_nobody_looked_is_gone() -> None:
    watched = Watched()
    watched.see(0.0, "ADDED", thing("a"), listed=True)
    watched.see(0.0, "ADDED", thing("p", pod=POD), kind="Job", listed=True)
    watched.now = 5.0
    watched.recorder.gone("Deployment", set())
    assert watched.told[2:] == [(5.0, "delete", "a", None)]


def owned(made: Any, kind: str, controller: bool = True) -> Any:
    made["metadata"]["ownerReferences"] = [{"kind": kind, "controller": controller, "name": "x"}]
    return made


@pytest.mark.parametrize(
    ("made", "recorded"),
    [
        (owned(thing(), "ReplicaSet"), False),
        (owned(thing(), "Node"), False),
        (owned(thing(), "CronJob"), True),  # which is not in a trace itself
        (owned(thing(), "Application"), True),
        (owned(thing(), "ReplicaSet", controller=False), True),
        (thing(space="kube-system"), False),
    ],
)
def test_what_controllers_make_is_not_recorded_but_what_they_act_on(made: Any, recorded: bool) -> None:
    watched = Watched()
    watched.see(1.0, "ADDED", made, kind="ReplicaSet")
    assert bool(watched.told) == recorded


def test_namespaces_are_chosen() -> None:
    for choice, recorded in ((Choice(frozenset({"shop"})), True), (Choice(frozenset({"bank"})), False),
                             (Choice(frozenset({"shop"}), frozenset({"shop"})), True),
                             (Choice(exclude=frozenset({"shop"})), False)):  # fmt: skip
        watched = Watched(choice)
        watched.see(1.0, "ADDED", thing())
        assert bool(watched.told) == recorded


def pod(name: str = "p", **status: Any) -> Any:
    made = thing(name)
    return {**made, "spec": POD, "status": status}


def test_a_pod_is_deleted_when_that_is_asked_for() -> None:
    watched = Watched()
    watched.see(1.0, "ADDED", pod(), kind="Pod")
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = moment(2)
    watched.see(2.0, "MODIFIED", leaving, kind="Pod")
    watched.see(32.0, "DELETED", leaving, kind="Pod")
    assert watched.told == [(1.0, "create", "p", None), (2.0, "delete", "p", None)]
    assert watched.recorder.operations[0].run_time is None


def test_how_long_pods_ran_is_told_once_they_have_ended() -> None:
    watched = Watched()
    watched.see(1.0, "ADDED", pod(), kind="Pod")
    ended = {"state": {"terminated": {"startedAt": moment(5), "finishedAt": moment(12)}}}
    watched.see(9.0, "MODIFIED", pod(containerStatuses=[ended]), kind="Pod")
    job = thing("j", completions=6, parallelism=2)
    watched.see(10.0, "ADDED", job, kind="Job")
    times = {"startTime": moment(10), "completionTime": moment(40)}
    watched.see(40.0, "MODIFIED", {**job, "status": times}, kind="Job")
    first, second = watched.recorder.operations
    assert (first.run_time, second.run_time) == (7.0, 10.0)  # three rounds of two
    assert (second.replicas, second.parallelism) == (6, 2)


@pytest.mark.parametrize(
    ("requests", "total"),
    [([{"cpu": "250m"}, {"cpu": "1"}], {"cpu": "1250m"}), ([{"memory": "1Gi"}], {"memory": "1Gi"}),
     ([{"memory": "1Gi"}, {"memory": "1Mi"}], {"memory": str(2**30 + 2**20)}), ([{}], {}),
     ([{"cpu": "1e3"}, {"cpu": "1"}], {})],
)  # fmt: skip
def test_requests_are_those_of_the_whole_pod(requests: list[dict[str, str]], total: dict[str, str]) -> None:
    containers = [{"resources": {"requests": each}} for each in requests]
    assert creation("Deployment", read(thing(pod={"containers": containers})), 0.0).requests == total


# from what is left


def event(at: float, reason: str, message: str, kind: str, name: str, uid: str = "", **more: Any) -> Event:
    involved = {"kind": kind, "namespace": "shop", "name": name, "uid": uid or name}
    made = {"metadata": {"name": "e", "uid": "e"}, "involvedObject": involved, "reason": reason, "message": message,
            "firstTimestamp": moment(at), "lastTimestamp": moment(at), **more}  # fmt: skip
    return msgspec.convert(made, Event)


def scaled(at: float, name: str, was: int | None, to: int, of: str = "web") -> Event:
    way = "up" if to > (was or 0) else "down"
    middle = "" if was is None else f"from {was} "
    return event(at, "ScalingReplicaSet", f"Scaled {way} replica set {name} {middle}to {to}", "Deployment", of)


def told(objects: dict[Any, list[Any]], events: list[Event], begin: float = 1000.0) -> list[tuple[Any, ...]]:
    found, _ = tell({kind: [read(one) for one in each] for kind, each in objects.items()}, events, begin, Choice())
    ordered = sorted(found, key=lambda one: (not one.before, one.t))
    return [(round(one.t), one.verb, one.name, one.replicas, one.before) for one in ordered]


def test_scales_and_rolls_are_told_by_events() -> None:
    events = [
        scaled(1010, "web-1", 0, 2), scaled(1020, "web-1", 2, 5),
        # a roll in steps, and a scale after it
        scaled(1030, "web-2", 0, 2), scaled(1031, "web-1", 5, 3), scaled(1032, "web-2", 2, 5),
        scaled(1033, "web-1", 3, 0), scaled(1050, "web-2", 5, 1),
    ]  # fmt: skip
    assert told({"Deployment": [thing(created=1010, replicas=1)]}, events) == [
        (10, "create", "web", 2, False), (20, "scale", "web", 5, False), (30, "roll", "web", None, False),
        (50, "scale", "web", 1, False),
    ]  # fmt: skip


def test_what_is_older_than_the_window_was_there_before() -> None:
    events = [scaled(1020, "web-1", 4, 6)]
    assert told({"Deployment": [thing(created=100, replicas=6), thing("idle", created=900, replicas=3)]}, events) == [
        (0, "create", "web", 4, True), (0, "create", "idle", 3, True), (20, "scale", "web", 6, False)
    ]  # fmt: skip


def test_servers_before_1_27_do_not_say_from_what() -> None:
    events = [scaled(1010, "web-1", None, 2), scaled(1020, "web-1", None, 7)]
    assert told({"Deployment": [thing(created=1010, replicas=7)]}, events) == [
        (10, "create", "web", 2, False), (20, "scale", "web", 7, False)
    ]  # fmt: skip


def test_what_is_gone_is_told_by_its_events_and_those_of_its_pods() -> None:
    events = [
        scaled(1010, "api-1", 0, 3, of="api"),
        event(1011, "SuccessfulCreate", "Created pod: api-1-x", "ReplicaSet", "api-1"),
        event(1012, "Scheduled", "", "Pod", "api-1-x"), event(1044, "Killing", "", "Pod", "api-1-x"),
        event(1015, "SuccessfulCreate", "Created pod: j-a", "Job", "j"),
        event(1016, "SuccessfulCreate", "Created pod: j-b", "Job", "j", count=3),
        event(1027, "Completed", "Job completed", "Job", "j"),
        event(1018, "Scheduled", "", "Pod", "lone"), event(1025, "Killing", "", "Pod", "lone"),
    ]  # fmt: skip
    assert told({}, events) == [
        (10, "create", "api", 3, False), (15, "create", "j", 4, False), (18, "create", "lone", None, False),
        (25, "delete", "lone", None, False), (27, "delete", "j", None, False), (44, "delete", "api", None, False),
    ]  # fmt: skip


def test_one_of_the_same_name_comes_after_the_one_that_is_gone() -> None:
    """Its last Events are as late as the creation of the next, and its pods cannot be told from those of that."""
    events = [event(1010, "ScalingReplicaSet", "Scaled up replica set web-1 from 0 to 3", "Deployment", "web", "old"),
              event(1040, "ScalingReplicaSet", "Scaled up replica set web-1 from 3 to 9", "Deployment", "web", "old"),
              event(1020, "ScalingReplicaSet", "Scaled up replica set web-1 from 0 to 1", "Deployment", "web", "older"),
              event(1050, "Killing", "", "Pod", "web-1-x"), scaled(1040, "web-2", 0, 2)]  # fmt: skip
    found, notes = tell({"Deployment": [read(thing(created=1040, replicas=2))]}, events, 1000.0, Choice())
    assert [(one.verb, one.replicas) for one in sorted(found, key=lambda one: one.t)] == [
        ("create", 3), ("scale", 9), ("delete", None), ("create", 1), ("delete", None), ("create", 2)
    ]  # fmt: skip
    assert any("2 objects are gone" in note for note in notes)


def test_a_list_that_shows_the_next_of_a_name_ends_the_one_before() -> None:
    watched = Watched()
    watched.see(0.0, "ADDED", thing(uid="old", replicas=1), listed=True)
    watched.see(7.0, "ADDED", thing(uid="new", replicas=2), listed=True)
    watched.recorder.gone("Deployment", {"new"})
    assert watched.told[1:] == [(7.0, "delete", "web", None), (7.0, "create", "web", 2)]


# whole recordings


class Cluster:
    """A transport that lists what is there, and watches what happens 0.1 s apart. It can only be read."""

    def __init__(self, there: dict[str, list[Any]], news: dict[str, list[tuple[str, Any]]]) -> None:
        self.there, self.news = there, news
        self.closed = False

    async def request(self, method: str, path: str, *_: Any, **__: Any) -> Response:
        assert method == "GET"
        if path == "/version":
            return Response(200, b'{"gitVersion": "v1.36.3"}')
        if path.startswith("/apis/batch") and "jobs" not in self.there:
            return Response(403, b'{"reason": "Forbidden", "message": "jobs.batch is forbidden"}')
        items = self.there.get(path.split("?")[0].rpartition("/")[2], [])
        return Response(200, msgspec.json.encode({"metadata": {"resourceVersion": "1"}, "items": items}))

    async def stream(self, path: str, accept: str = "") -> AsyncIterator[bytes]:
        for kind, made in self.news.get(path.split("?")[0].rpartition("/")[2], []):
            await asyncio.sleep(0.1)
            made["metadata"] = {"resourceVersion": "2", **made["metadata"]}
            yield msgspec.json.encode({"type": kind, "object": made})
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


class Somewhere:
    """What a recording needs of a Target."""

    def credential(self, actor: str) -> None: ...

    def addresses(self, credential: None) -> list[str]:
        return ["https://192.0.2.1"]


def in_place(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> Any:
    monkeypatch.setattr(record, "Http1", lambda *_, **__: cluster)
    return Somewhere()


def test_a_cluster_is_watched_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(
        {"deployments": [thing("old", replicas=1)], "jobs": []},
        {"deployments": [("ADDED", thing("web", replicas=2)), ("MODIFIED", thing("web", replicas=3))],
         "pods": [("ADDED", pod("p")), ("DELETED", pod("p"))]},
    )  # fmt: skip
    found = asyncio.run(record.watch(in_place(monkeypatch, cluster), 0.4, Choice()))
    assert (found.header.method, found.header.seconds, found.header.kubernetes) == ("watched", 0.4, "v1.36.3")
    assert (found.header.namespaces, found.header.operations) == (1, 5)
    assert found.operations[0].before
    assert sorted((one.verb, one.name, one.replicas) for one in found.operations[1:]) == [
        ("create", "deployment-2", 2), ("create", "pod-1", None), ("delete", "pod-1", None),
        ("scale", "deployment-2", 3),
    ]  # fmt: skip
    times = {one.verb: one.t for one in found.operations[1:]}
    assert 0.0 < times["create"] < times["scale"] < 0.4
    assert cluster.closed


def test_the_past_of_a_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    events = [
        msgspec.to_builtins(scaled(now - 30, "web-1", 0, 2)),
        msgspec.to_builtins(scaled(now - 20, "web-1", 2, 4)),
    ]
    there = {"deployments": [thing(created=now - 30, replicas=4)], "jobs": [], "events": events}
    target = in_place(monkeypatch, Cluster(there, {}))
    found = asyncio.run(reconstruct.reconstruct(target, 60.0, Choice(), keep_names=True))
    assert [(one.verb, one.name, one.replicas) for one in found.operations] == [
        ("create", "web", 2),
        ("scale", "web", 4),
    ]
    assert found.operations[1].t - found.operations[0].t == pytest.approx(10, abs=1)
    assert (found.header.method, found.header.seconds, len(found.header.notes)) == ("reconstructed", 60.0, 2)


def test_a_kind_that_may_not_be_read_ends_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    for recording in (record.watch, reconstruct.reconstruct):
        cluster = Cluster({}, {})
        with pytest.raises(ApiError, match=r"jobs\.batch is forbidden"):
            asyncio.run(recording(in_place(monkeypatch, cluster), 5.0, Choice()))
        assert cluster.closed
