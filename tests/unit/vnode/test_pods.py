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
from turbokube.vnode.clock import Agenda, rfc3339
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
        self.agenda = Agenda()
        self.vnodes = {"vnode-00000": vnode, "vnode-00001": stranger}
        self.pods = Pods(Spec(run="trial", count=1, **spec), client, crew, self.vnodes, self.agenda)
        self.tasks = [asyncio.create_task(each) for each in (crew.run(), self.agenda.run())]

    def see(self, kind: str, pod: objects.Pod, listed: bool = False) -> None:
        self.pods.see(Event(kind, pod, listed))

    def posted(self) -> list[tuple[str, bytes]]:
        return [(path, body) for method, path, body in self.transport.asked if method == "POST"]

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
            for task in scene.tasks:
                task.cancel()

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
        assert [body["status"]["phase"] for _, body in scene.asked("PATCH")] == ["Failed"]
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


# what an annotation says


def annotated(number: int = 1, phase: str = "Pending", **annotations: str) -> objects.Pod:
    return pod(
        number,
        phase=phase,
        annotations={f"turbokube.io/{name.replace('_', '-')}": text for name, text in annotations.items()},
    )


def test_a_pods_annotations_come_before_the_fleets_options():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", annotated(1, start_delay="0"))
        scene.see("ADDED", pod(2))
        await until(lambda: scene.pods.phases()["Running"] == 1)
        assert scene.asked("PATCH")[0][0].endswith("/p1/status")

    play(story, start_delay="60")


def test_a_pod_whose_annotation_cannot_be_used_stays_pending_and_an_event_says_why():
    async def story(scene: Scene) -> None:
        for _ in range(2):
            scene.see("ADDED", annotated(run_time="long"))
        await until(lambda: len(scene.asked("POST")) == 1)
        await asyncio.sleep(0.05)
        ((_, event),) = scene.asked("POST")
        assert (event["type"], event["reason"]) == ("Warning", "Failed")
        assert event["message"].startswith(
            "annotation turbokube.io/run-time is 'long'; allowed is nothing, for a pod that"
        )
        assert scene.asked("PATCH") == []
        assert scene.pods.phases()["Pending"] == 1
        scene.see("MODIFIED", annotated(run_time="9"))
        await until(lambda: scene.pods.phases()["Running"] == 1)

    play(story)


def test_a_mirror_pod_is_left_alone():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod(annotations={"kubernetes.io/config.mirror": "hash"}))
        await asyncio.sleep(0.05)
        assert scene.transport.asked == []
        assert sum(scene.pods.phases().values()) == 0

    play(story)


# lives


def statuses(scene: Scene, number: int = 1) -> list[dict[str, Any]]:
    return [body["status"] for path, body in scene.asked("PATCH", f"/p{number}/status")]


def one(number: int = 1, policy: str = "Always", **meta: Any) -> objects.Pod:
    made = pod(number, **meta)
    made.spec.containers, made.spec.restart_policy = made.spec.containers[:1], policy
    return made


def test_a_job_runs_to_its_end_gives_its_address_back_and_is_then_only_deleted():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", one(policy="Never"))
        await until(lambda: scene.pods.phases()["Succeeded"] == 1)
        assert [status["phase"] for status in statuses(scene)] == ["Running", "Succeeded"]
        scene.see("ADDED", one(2, policy="Never"))
        await until(lambda: len(statuses(scene, 2)) == 1)
        assert statuses(scene, 2)[0]["podIP"] == "10.128.5.2"
        scene.see("MODIFIED", one(phase="Succeeded", deletionTimestamp="2026-01-01T00:00:00Z"))
        await until(lambda: len(scene.asked("DELETE")) == 1)
        assert len(statuses(scene)) == 2

    play(story, run_time="0.2")


def test_a_failure_is_a_failed_pod():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", one(policy="Never"))
        await until(lambda: scene.pods.phases()["Failed"] == 1)
        assert statuses(scene)[-1]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1

    play(story, run_time="0.1", failure_rate=1.0)


def test_a_pod_is_ready_after_its_delay_and_forgotten_but_for_its_name():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod())
        await until(lambda: len(statuses(scene)) == 2)
        ready = [{c["type"]: c["status"] for c in status["conditions"]}["Ready"] for status in statuses(scene)]
        assert ready == ["False", "True"]
        await asyncio.sleep(0.05)
        record = scene.pods._pods["u1"]
        assert (record.life, record.pod) == (None, None)

    play(story, ready_delay="0.2")


def test_a_crashing_container_is_restarted_and_its_events_are_counted():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", one())
        await until(lambda: scene.counts.container_restarts == 1)
        await until(lambda: len(statuses(scene)) == 3)
        states = [next(iter(status["containerStatuses"][0]["state"])) for status in statuses(scene)]
        assert states == ["running", "terminated", "running"]
        assert statuses(scene)[-1]["containerStatuses"][0]["restartCount"] == 1
        await until(lambda: len(scene.asked("PATCH", "/events/")) == 1)
        ((_, first),) = scene.asked("POST")
        ((path, again),) = scene.asked("PATCH", "/events/")
        assert path == f"/api/v1/namespaces/ns/events/{first['metadata']['name']}"
        assert (again["count"], again["message"]) == (2, "Container started")
        assert scene.pods.phases()["Running"] == 1

    play(story, run_time="0.1", failure_rate=1.0)


def test_an_event_that_has_expired_is_told_anew():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", one())
        await until(lambda: len(scene.asked("POST")) == 2)
        assert scene.asked("POST")[1][1]["count"] == 2

    def answer(method: str, path: str, body: bytes) -> Response:
        return Response(404 if method == "PATCH" and "/events/" in path else 200, b"{}")

    play(story, answer, run_time="0.1")


def test_changes_while_the_api_server_is_away_are_told_once_as_they_are_then():
    away: list[bool] = []

    async def story(scene: Scene) -> None:
        scene.see("ADDED", one(policy="Never"))
        await until(lambda: scene.pods.phases()["Running"] == 1)
        away.append(True)
        await asyncio.sleep(0.6)  # ready at 0.2, ended at 0.4
        away.clear()
        await until(lambda: scene.pods.phases()["Succeeded"] == 1)
        told = [body for path, body in scene.asked("PATCH") if body["status"].get("phase") == "Succeeded"]
        assert told[-1]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0

    def answer(*_: Any) -> Response | Exception:
        return Unreachable("refused", sent=False) if away else Response(200, b"{}")

    play(story, answer, run_time="0.4", ready_delay="0.2")


def test_a_report_that_is_refused_is_not_the_last():
    refused = [200, 422, 200]

    async def story(scene: Scene) -> None:
        scene.see("ADDED", one())
        await until(lambda: len(statuses(scene)) == 3)
        assert "running" in statuses(scene)[-1]["containerStatuses"][0]["state"]

    def answer(method: str, path: str, body: bytes) -> Response:
        return Response(refused.pop(0) if method == "PATCH" and refused else 200, b"{}")

    play(story, answer, run_time="0.1")


def test_an_engine_that_takes_over_counts_from_the_pods_own_timestamps():
    async def story(scene: Scene) -> None:
        now = time.time()
        begun = one(1, policy="Never", phase="Running")
        begun.status.container_statuses = [
            objects.ContainerStatus("a", True, 0, objects.ContainerState(running=objects.Running(rfc3339(now - 100))))
        ]
        bound = one(2, policy="Never")
        bound.status.conditions = [objects.PodCondition("PodScheduled", "True", rfc3339(now - 100))]
        fresh = one(3, policy="Never", creationTimestamp=rfc3339(now))
        for made in (begun, bound, fresh):
            scene.see("ADDED", made, listed=True)
        await until(lambda: scene.pods.phases()["Succeeded"] == 1)
        assert [status["phase"] for status in statuses(scene, 1)] == ["Succeeded"]
        await until(lambda: scene.pods.phases()["Running"] == 1)
        assert [status["phase"] for status in statuses(scene, 2)] == ["Running"]
        assert scene.pods.phases()["Pending"] == 1

    play(story, run_time="60", start_delay="50")


def test_what_an_earlier_engine_began_to_end_is_ended_in_time():
    async def story(scene: Scene) -> None:
        told = {"deletionTimestamp": rfc3339(time.time() + 10), "deletionGracePeriodSeconds": 30}
        scene.see("ADDED", pod(1, phase="Running", **told), listed=True)
        await until(lambda: len(scene.asked("DELETE")) == 1)

    play(story, stop_delay="15")


def test_containers_that_are_killed_make_a_failed_pod():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod(1, phase="Running", deletionTimestamp="x", deletionGracePeriodSeconds=0))
        await until(lambda: len(scene.asked("DELETE")) == 1)
        (status,) = statuses(scene)
        assert status["phase"] == "Failed"
        assert {c["state"]["terminated"]["exitCode"] for c in status["containerStatuses"]} == {137}

    play(story, stop_delay="60")


# nodes that are not there


def test_a_vnode_that_is_cut_off_does_everything_later():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod(1))
        await until(lambda: scene.pods.phases()["Running"] == 1)
        scene.pods.hold("vnode-00000")
        scene.see("ADDED", pod(2))
        scene.see("MODIFIED", pod(1, phase="Running", deletionTimestamp="x", deletionGracePeriodSeconds=30))
        await asyncio.sleep(0.1)
        assert len(scene.asked("PATCH")) == 1
        scene.pods.resume("vnode-00000")
        await until(lambda: len(scene.asked("DELETE")) == 1 and scene.pods.phases()["Running"] == 1)

    play(story)


def test_a_vnode_whose_network_is_not_ready_ends_pods_and_starts_none():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod(1))
        await until(lambda: scene.pods.phases()["Running"] == 1)
        scene.pods.hold("vnode-00000", starts=True)
        scene.see("ADDED", pod(2))
        scene.see("MODIFIED", pod(1, phase="Running", deletionTimestamp="x", deletionGracePeriodSeconds=30))
        await until(lambda: len(scene.asked("DELETE")) == 1)
        assert scene.pods.phases()["Pending"] == 1

    play(story)


def test_pods_of_a_node_that_was_made_anew_are_those_of_the_new_one():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", pod(1))
        await until(lambda: scene.pods.phases()["Running"] == 1)
        new = Vnode(0, "vnode-00000", scene.vnodes["vnode-00000"].client)
        new.uid = "another"
        scene.vnodes["vnode-00000"] = new
        scene.see("MODIFIED", pod(1, phase="Running"))
        assert scene.pods._pods["u1"].vnode is new

    play(story)


# above lease


class OneVnode:
    """What a vnode has of its own at fidelity `kubelet`, as far as pods see it."""

    def __init__(self) -> None:
        self.referred: list[tuple[str, str]] = []

    def refer(self, pod: objects.Pod) -> None:
        self.referred.append(("refer", pod.metadata.uid))
        assert list(objects.references(pod)) == [("configmaps", "kube-root-ca.crt")]

    def unrefer(self, pod: objects.Pod) -> None:
        self.referred.append(("unrefer", pod.metadata.uid))
        assert list(objects.references(pod)) == [("configmaps", "kube-root-ca.crt")]


def with_token(number: int = 1, **meta: Any) -> objects.Pod:
    made = one(number, **meta)
    made.spec.service_account_name = "default"
    sources = [
        objects.Projection(service_account_token=objects.TokenProjection(expiration_seconds=3607)),
        objects.Projection(config_map=objects.Reference("kube-root-ca.crt")),
    ]
    made.spec.volumes = [objects.Volume(projected=objects.ProjectedVolume(sources))]
    return made


def test_a_full_kubelet_asks_before_it_writes_mounts_tokens_and_tells_of_every_step():
    async def story(scene: Scene) -> None:
        own: Any = OneVnode()
        scene.vnodes["vnode-00000"].kubelet = own
        scene.see("ADDED", with_token())
        await until(lambda: sum(path.endswith("/events") for path, _ in scene.posted()) == 3)
        methods = [(method, path.rpartition("/p1")[2]) for method, path, _ in scene.transport.asked if "/p1" in path]
        assert methods == [("GET", ""), ("PATCH", "/status")] * 3
        assert statuses(scene)[0]["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
        assert statuses(scene)[-1]["phase"] == "Running"
        ((path, body),) = [said for said in scene.posted() if "/serviceaccounts/" in said[0]]
        assert path == "/api/v1/namespaces/ns/serviceaccounts/default/token"
        assert body.startswith(b"k8s\0")
        dying = with_token(phase="Running", deletionTimestamp="x", deletionGracePeriodSeconds=30, generation=2)
        scene.see("MODIFIED", dying)
        await until(lambda: len(scene.asked("DELETE")) == 1)
        methods = [method[0] for method, path, _ in scene.transport.asked if "/p1" in path][len(methods) :]
        assert "".join(methods) == "GPGPGGD"
        await until(lambda: sum(path.endswith("/events") for path, _ in scene.posted()) == 4)
        assert statuses(scene)[-2]["observedGeneration"] == 2
        assert statuses(scene)[-1]["phase"] == "Succeeded"
        scene.see("DELETED", dying)
        assert own.referred == [("refer", "u1"), ("unrefer", "u1")]

    play(story, fidelity="kubelet")


def test_a_full_kubelet_concludes_a_job_after_its_containers():
    async def story(scene: Scene) -> None:
        scene.see("ADDED", one(policy="Never"))
        await until(lambda: scene.pods.phases()["Succeeded"] == 1)
        assert [status.get("phase") for status in statuses(scene)] == [None, None, "Running", None, "Succeeded"]

    play(story, fidelity="kubelet", run_time="0.2")


def test_an_end_that_an_earlier_engine_told_half_of_is_told_to_the_end():
    async def story(scene: Scene) -> None:
        ended = objects.Terminated(0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z")
        half = one(policy="Never", phase="Running")
        half.status.container_statuses = [objects.ContainerStatus("a", state=objects.ContainerState(terminated=ended))]
        scene.see("ADDED", half, listed=True)
        await until(lambda: scene.pods.phases()["Succeeded"] == 1)
        assert statuses(scene)[-1]["phase"] == "Succeeded"

    play(story, fidelity="kubelet", run_time="9")


def test_a_vnodes_own_list_tells_which_of_its_pods_are_gone():
    async def story(scene: Scene) -> None:
        first, other = scene.vnodes.values()
        other.uid = "u"
        for number, name in ((1, first.name), (2, first.name), (3, other.name)):
            scene.see("ADDED", pod(number, node=name))
        scene.see("ADDED", pod(1), listed=True)
        scene.pods.synced(first)
        assert set(scene.pods._pods) == {"u1", "u3"}
        scene.pods.synced(other)
        assert set(scene.pods._pods) == {"u1"}
        scene.pods.left(first.name)
        assert scene.pods._pods == {}
        assert sum(scene.pods.phases().values()) == 0

    play(story, fidelity="kubelet")
