"""What a kubelet writes into a pod's status, as strategic merge patches.

The words, and what is True when, are pkg/kubelet/status/generate.go's and pkg/kubelet/kubelet_pods.go's of 1.36.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from .. import objects
from ..addresses import dotted
from ..clock import rfc3339, unix_time
from .lives import EXITED, RUNNING, Exit, Life, Run, exit_of

_encode = msgspec.json.encode

SIGKILL = 137  # the exit code of what was killed; here because it did not end within its grace period
_UNKNOWN = {
    "terminated": {
        "exitCode": SIGKILL,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "startedAt": None,
        "finishedAt": None,
    }
}
_ORDER = [
    {"type": kind} for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
]
Status = dict[str, Any]


class Statuses:
    """Patches of pods' statuses. `full`: in as many steps, and as large, as a real kubelet's."""

    def __init__(self, full: bool) -> None:
        self._full = full

    def creating(self, pod: objects.Pod, host: str, now: float) -> bytes:
        """A kubelet has seen the pod and makes its containers. Only a full one says so."""
        moment, names = rfc3339(now), [container.name for container in pod.spec.containers]
        waiting = {"waiting": {"reason": "PodInitializing" if pod.spec.init_containers else "ContainerCreating"}}
        status: Status = {
            "conditions": [
                *_conditions(pod, moment, sandbox=False, initialized=not pod.spec.init_containers, unready=names),
                {"type": "PodScheduled", "observedGeneration": pod.metadata.generation},
            ],
            "containerStatuses": [self._container(pod, one, waiting, image_known=False) for one in pod.spec.containers],
            "hostIP": host,
            "hostIPs": [{"ip": host}],
            "resources": _requests(pod),
            "startTime": moment,
        }
        if pod.spec.init_containers:
            status["initContainerStatuses"] = [
                self._container(pod, one, waiting, image_known=False) for one in pod.spec.init_containers
            ]
        if requests := _requests(pod):
            status["allocatedResources"] = requests["requests"]
        return self._patch(pod, status)

    def sandboxed(self, pod: objects.Pod, now: float) -> bytes:
        """The pod has a sandbox and an address. Only a full kubelet says so before its containers run."""
        ready = {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": rfc3339(now)}
        return self._patch(pod, {"conditions": [ready]}, generation=False)

    def running(
        self, pod: objects.Pod, host: str, address: int, seen: float, now: float, life: Life | None = None
    ) -> bytes:
        """The pod, `seen` bound then, runs its containers from `now` on; without a life they are ready at once."""
        moment, ip = rfc3339(now), dotted(address) if address else host
        unready = life.unready if life else []
        status: Status = {
            "phase": "Running",
            "conditions": _conditions(pod, moment, unready=unready),
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "containerStatuses": self._runs(pod, life.runs) if life else self._up(pod, moment),
        }
        if not self._full:
            status |= {"hostIP": host, "hostIPs": [{"ip": host}], "startTime": rfc3339(seen)}
        if pod.spec.init_containers:
            status["initContainerStatuses"] = self._init(pod, moment)
        return self._patch(pod, status, generation=not self._full)

    def measured(self, pod: objects.Pod) -> bytes:
        """What a full kubelet says of a pod's cgroup when it looks again; nothing if it is what was asked for.

        A request of CPU does not survive its way to a weight of cgroup version 2 and back
        (pkg/kubelet/cm/cgroup_manager_linux.go and cgroup_v2_manager_linux.go).
        """
        from ...profile.rules import quantity  # here: it is memory that `lease` can do without

        asked = [one.resources.requests.get("cpu", "0") for one in pod.spec.containers if one.resources]
        milli = round(sum(map(quantity, asked)) * 1000)
        if not milli:
            return b""
        weight = 1 + (max(2, milli * 1024 // 1000) - 2) * 9999 // 262142
        found = -(-((weight - 1) * 262142 // 9999 + 2) * 1000 // 1024)
        resources = {"requests": {"cpu": f"{found}m"}}
        return b"" if found == milli else self._patch(pod, {"resources": resources}, generation=False)

    def changed(self, pod: objects.Pod, life: Life, now: float) -> bytes:
        """What has become of the containers of a pod that runs, or does so no more."""
        moment, phase, ready = rfc3339(now), life.phase, life.ready
        status: Status = {"containerStatuses": self._runs(pod, life.runs)}
        if phase != "Running" and self._full:  # the phase follows, see `concluded`
            status["conditions"] = _end_conditions(pod, phase, moment, life.ready_said)[1:]
        elif phase == "Running":
            status["conditions"] = _conditions(pod, moment, unready=life.unready)[2:]
            if ready == life.ready_said:
                _keep_times(status["conditions"])
        else:
            status |= self._end(pod, phase, rfc3339(life.runs[0].began or now), moment, life.ready_said)
        return self._patch(pod, status, generation=not self._full)

    def concluded(self, pod: objects.Pod, life: Life, now: float) -> bytes:
        """A full kubelet's last word of a pod whose containers have ended by themselves: the sandbox is gone too."""
        moment = rfc3339(now)
        status = self._end(pod, life.phase, rfc3339(life.runs[0].began or now), moment, was_ready=False)
        del status["conditions"][1:]
        return self._patch(pod, status, generation=False)

    def terminating(self, pod: objects.Pod) -> bytes:
        """The pod is to end, which a full kubelet has seen."""
        generation = pod.metadata.generation
        return self._patch(pod, {"conditions": [{**one, "observedGeneration": generation} for one in _ORDER]})

    def terminated(self, pod: objects.Pod, life: Life | None, code: int, now: float) -> bytes:
        """The containers of a pod that was told to end have ended, those that still ran with `code`."""
        exits = _exits(pod, life, code, now)
        containers = [
            self._container(
                pod,
                one,
                {"terminated": _ended(pod, one, restarts, ended)},
                restarts,
                _ended(pod, one, restarts - 1, last) if last else None,
            )
            for one, (restarts, ended, last) in zip(pod.spec.containers, exits, strict=True)
        ]
        phase = "Failed" if any(ended.code for _, ended, _ in exits) else "Succeeded"
        moment = rfc3339(now)
        end = self._end(pod, phase, pod.status.start_time or moment, moment, life.ready_said if life else True)
        return self._patch(pod, {"containerStatuses": containers, **end}, generation=not self._full)

    def never_ran(self, pod: objects.Pod, now: float) -> bytes:
        """A pod was told to end before its containers ran (status_manager.go, TerminatePod)."""
        moment, names = rfc3339(now), [container.name for container in pod.spec.containers]
        initialized = not pod.spec.init_containers
        return self._patch(
            pod,
            {
                "phase": "Failed",
                "conditions": _conditions(pod, moment, sandbox=False, initialized=initialized, unready=names),
                "containerStatuses": [
                    self._container(pod, one, _UNKNOWN, image_known=False) for one in pod.spec.containers
                ],
            },
        )

    # parts

    def _patch(self, pod: objects.Pod, status: Status, generation: bool = True) -> bytes:
        if generation and pod.metadata.generation:
            status["observedGeneration"] = pod.metadata.generation
        if self._full and "conditions" in status:
            status = {"$setElementOrder/conditions": _ORDER, **status}
        return _encode({"metadata": {"uid": pod.metadata.uid}, "status": status})

    def _container(
        self,
        pod: objects.Pod,
        container: objects.Container,
        state: Status,
        restarts: int = 0,
        last: Status | None = None,
        *,
        ready: bool = False,
        started: bool = False,
        image_known: bool = True,
    ) -> Status:
        status = {
            "name": container.name,
            "image": container.image,
            "imageID": _image_id(container.image) if image_known else "",
            "state": state,
            "lastState": {"terminated": last} if last else {},
            "ready": ready,
            "started": started,
            "restartCount": restarts,
        }
        if image_known:
            status["containerID"] = _container_id(pod, container, restarts)
        if self._full:
            status |= _resources(container) if image_known else {}
            status["volumeMounts"] = [_mount(mount) for mount in container.volume_mounts]
        return status

    def _up(self, pod: objects.Pod, moment: str) -> list[Status]:
        state = {"running": {"startedAt": moment}}
        return [self._container(pod, one, state, ready=True, started=True) for one in pod.spec.containers]

    def _init(self, pod: objects.Pod, moment: str) -> list[Status]:
        """Sidecars run; the others have done their work in no time."""
        began = {"running": {"startedAt": moment}}
        statuses = []
        for one in pod.spec.init_containers:
            sidecar = one.restart_policy == "Always"
            done = {"terminated": _exited(pod, one, 0, 0, moment, moment)}
            state = began if sidecar else done
            statuses.append(self._container(pod, one, state, ready=True, started=sidecar))
        return statuses

    def _runs(self, pod: objects.Pod, runs: Iterable[Run]) -> list[Status]:
        return [self._run(pod, run) for run in runs]

    def _run(self, pod: objects.Pod, run: Run) -> Status:
        one, restarts = run.container, run.restarts
        last = _ended(pod, one, restarts - 1, run.last) if run.last else None
        if run.state == RUNNING:
            state = {"running": {"startedAt": rfc3339(run.started)}}
            return self._container(pod, one, state, restarts, last, ready=run.ready, started=True)
        assert run.exit is not None
        ended = _ended(pod, one, restarts, run.exit)
        if run.state != EXITED:
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": backing_off(pod, run)}}
            return self._container(pod, one, waiting, restarts, ended)
        return self._container(pod, one, {"terminated": ended}, restarts, last)

    def _end(self, pod: objects.Pod, phase: str, began: str, moment: str, was_ready: bool) -> Status:
        """The phase and the conditions of a pod that has ended, and its sidecars, which end after the containers."""
        status: Status = {"phase": phase, "conditions": _end_conditions(pod, phase, moment, was_ready)}
        if any(one.restart_policy == "Always" for one in pod.spec.init_containers):
            status["initContainerStatuses"] = [
                self._container(
                    pod,
                    one,
                    {"terminated": _exited(pod, one, 0, 0, began, moment)},
                    ready=one.restart_policy != "Always",
                )
                for one in pod.spec.init_containers
            ]
        return status


def final_delete(uid: str) -> bytes:
    """DeleteOptions with which a kubelet takes a pod off the API once its containers are gone."""
    return (
        b'{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0,"preconditions":{"uid":"%b"}}' % uid.encode()
    )


def backing_off(pod: objects.Pod, run: Run) -> str:
    """Why a container that failed does not run now, as kubectl shows it."""
    meta = pod.metadata
    named = f"{meta.name}_{meta.namespace}({meta.uid})"
    return f"back-off {go_duration(run.backoff)} restarting failed container={run.container.name} pod={named}"


def go_duration(seconds: float) -> str:
    """Whole seconds as Go prints a time.Duration."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


# conditions


def _conditions(
    pod: objects.Pod, moment: str, *, sandbox: bool = True, initialized: bool = True, unready: list[str]
) -> list[Status]:
    """The kubelet's four; PodScheduled is the scheduler's and stays as it is."""
    said: Status = {"lastProbeTime": None, "lastTransitionTime": moment}
    if pod.metadata.generation:
        said["observedGeneration"] = pod.metadata.generation
    ready = {"status": "True", "reason": None, "message": None, **said}
    if unready:
        words = f"containers with unready status: [{' '.join(unready)}]"
        ready = {"status": "False", "reason": "ContainersNotReady", "message": words, **said}
    init: Status = {"type": "Initialized", "status": "True", **said}
    if not initialized:
        names = " ".join(one.name for one in pod.spec.init_containers)
        words = f"containers with incomplete status: [{names}]"
        init |= {"status": "False", "reason": "ContainersNotInitialized", "message": words}
    return [
        {"type": "PodReadyToStartContainers", "status": "True" if sandbox else "False", **said},
        init,
        {"type": "Ready", **ready},
        {"type": "ContainersReady", **ready},
    ]


def _end_conditions(pod: objects.Pod, phase: str, moment: str, was_ready: bool) -> list[Status]:
    reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
    said: Status = {"status": "False", "lastTransitionTime": moment}
    if pod.metadata.generation:
        said["observedGeneration"] = pod.metadata.generation
    unready = [{"type": kind, "reason": reason, "message": None, **said} for kind in ("Ready", "ContainersReady")]
    if not was_ready:
        _keep_times(unready)
    init = {"type": "Initialized", **said, "status": "True"}
    del init["lastTransitionTime"]
    if phase == "Succeeded":
        init["reason"] = reason
    return [{"type": "PodReadyToStartContainers", **said}, init, *unready]


def _keep_times(conditions: list[Status]) -> None:
    """Their status stays as it was, and so does the time of its last change."""
    for condition in conditions:
        del condition["lastTransitionTime"]


# containers


@functools.lru_cache(maxsize=256)
def _image_id(image: str) -> str:
    name = image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
    return f"{name}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def _container_id(pod: objects.Pod, container: objects.Container, restarts: int) -> str:
    which = f"{pod.metadata.uid}/{container.name}/{restarts}"
    return f"containerd://{hashlib.sha256(which.encode()).hexdigest()}"


def _exited(
    pod: objects.Pod, container: objects.Container, restarts: int, code: int, started: str, finished: str
) -> Status:
    return {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": started,
        "finishedAt": finished,
        "containerID": _container_id(pod, container, restarts),
    }


def _ended(pod: objects.Pod, container: objects.Container, restarts: int, ended: Exit) -> Status:
    return _exited(pod, container, restarts, ended.code, rfc3339(ended.started), rfc3339(ended.finished))


def _exits(pod: objects.Pod, life: Life | None, code: int, now: float) -> list[tuple[int, Exit, Exit | None]]:
    """Of each container how often it was started again, how it ended, and how it did the time before."""
    if life is not None:
        return [(run.restarts, run.exit or Exit(code, run.started, now), run.last) for run in life.runs]
    told = {status.name: status for status in pod.status.container_statuses}
    began = unix_time(pod.status.start_time) or now
    exits: list[tuple[int, Exit, Exit | None]] = []
    for container in pod.spec.containers:
        status = told.get(container.name)
        if status is None or status.state is None:
            exits.append((0, Exit(code, began, now), None))
            continue
        running = status.state.running
        ended = exit_of(status.state) or Exit(code, unix_time(running.started_at) if running else began, now)
        exits.append((status.restart_count, ended, exit_of(status.last_state)))
    return exits


def _requests(pod: objects.Pod) -> Status:
    """What all containers of a pod ask for, if it is one container: sums of quantities are the server's to make."""
    asked = [one.resources.requests for one in pod.spec.containers if one.resources and one.resources.requests]
    return {"requests": asked[0]} if len(asked) == len(pod.spec.containers) == 1 else {}


def _resources(container: objects.Container) -> Status:
    asked = container.resources
    if asked is None or not (asked.requests or asked.limits):
        return {"resources": {}}
    resources = {"requests": asked.requests, "limits": asked.limits}
    return {
        "resources": {name: amounts for name, amounts in resources.items() if amounts},
        **({"allocatedResources": asked.requests} if asked.requests else {}),
    }


def _mount(mount: objects.VolumeMount) -> Status:
    said: Status = {"name": mount.name, "mountPath": mount.mount_path}
    return {**said, "readOnly": True, "recursiveReadOnly": "Disabled"} if mount.read_only else said
