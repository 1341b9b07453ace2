"""What the containers on each vnode would use: CPU that adds up over time, and memory, for those who scrape kubelets.

Kept only where vnodes serve: the engine itself remembers neither names nor containers.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import sys
import time
from collections.abc import Iterable, Iterator

from ...profile.rules import quantity
from .. import behaviour, objects
from ..clock import unix_time
from ..nodes import Vnode
from ..spec import Spec

CPU_ANNOTATION, MEMORY_ANNOTATION = "turbokube.io/cpu-usage", "turbokube.io/memory-usage"
ALLOWED = 'a quantity, or "uniform(least,most)", "exponential(mean)" of quantities, or "lognormal(mu,sigma)"'
CORE, GIB = 1.0, 2.0**30  # the units that are drawn in, and that mu of a lognormal is the logarithm of

# A container that does nothing has used this much when it is up. Not 0: metrics-server drops containers and nodes whose
# CPU time or working set is 0 (pkg/scraper/client/resource/decode.go)
_START_CPU = 0.02  # core-seconds
_LEAST_MEMORY = 2.0**20  # bytes
log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1024)
def parse(text: str, unit: float) -> behaviour.Distribution:
    """What an option or an annotation says, in `unit`s. Raises ValueError for anything else than ALLOWED."""
    kind, bracket, inside = text.strip().partition("(")
    if not bracket:
        return behaviour.parse(repr(quantity(text.strip()) / unit))
    if kind == "lognormal":
        return behaviour.parse(text)
    numbers = (quantity(part.strip()) / unit for part in inside.removesuffix(")").split(","))
    return behaviour.parse(f"{kind}({','.join(map(repr, numbers))})" if inside.endswith(")") else text)


def is_usage(text: str) -> bool:
    """Whether `parse` takes it."""
    try:
        parse(text, CORE)
    except ValueError:
        return False
    return True


class Container:
    """A container as its kubelet's statistics show it. Times are UNIX seconds, 0 before they have come."""

    __slots__ = ("_since", "_spent", "cores", "ended", "image", "last", "memory", "name", "started")

    def __init__(self, name: str, image: str) -> None:
        self.name, self.image = sys.intern(name), sys.intern(image)
        self.started = self.ended = 0.0
        self.last: tuple[float, float] | None = None  # when the one before it started and ended
        self.cores = self.memory = 0.0
        self._spent = self._since = 0.0

    @property
    def running(self) -> bool:
        return bool(self.started) and not self.ended

    def start(self, at: float) -> None:
        """Run anew, with counters of its own."""
        if self.started:
            self.last = self.started, self.ended or at
        self.started, self.ended = at, 0.0
        self._spent, self._since = _START_CPU, at

    def stop(self, at: float) -> None:
        self._spent, self.ended = self.cpu_seconds(at), at

    def use(self, cores: float, memory: float, now: float) -> None:
        """Use so many cores and bytes from now on."""
        self._spent, self._since = self.cpu_seconds(now), max(now, self._since)
        self.cores, self.memory = cores, max(memory, _LEAST_MEMORY)

    def cpu_seconds(self, now: float) -> float:
        """Core-seconds since it was started."""
        return self._spent + self.cores * max(0.0, now - self._since) if self.running else self._spent


class PodUsage:
    """A pod on a vnode."""

    __slots__ = ("containers", "gone", "name", "namespace", "node", "said", "started", "uid", "waiting")

    def __init__(self, pod: objects.Pod, node: str) -> None:
        self.uid, self.name = pod.metadata.uid, pod.metadata.name
        self.namespace = sys.intern(pod.metadata.namespace)
        self.node = node
        self.started = 0.0
        self.gone = 0.0  # core-seconds of containers that were restarted
        self.said: tuple[str, str] | None = None  # what its usage was drawn from
        self.waiting: list[asyncio.Future[None]] | None = None  # those who follow its logs
        sidecars = [one for one in pod.spec.init_containers if one.restart_policy == "Always"]
        self.containers = tuple(Container(one.name, one.image) for one in (*sidecars, *pod.spec.containers))

    @property
    def running(self) -> list[Container]:
        """Those of its containers that use CPU and memory."""
        return [one for one in self.containers if one.running]

    def cpu_seconds(self, now: float) -> float:
        return self.gone + sum(one.cpu_seconds(now) for one in self.containers)

    @property
    def cores(self) -> float:
        return sum(one.cores for one in self.running)

    @property
    def memory(self) -> float:
        return sum(one.memory for one in self.running)

    def container(self, name: str) -> Container | None:
        return next((one for one in self.containers if one.name == name), None)

    def stop(self, container: Container, at: float) -> None:
        """End one of its containers, and tell those who wait for that."""
        container.stop(at)
        for future in self.waiting or ():
            if not future.done():
                future.set_result(None)
        self.waiting = None

    async def end_of(self, container: Container) -> None:
        """Wait until a container runs no more."""
        while container.running:
            future = asyncio.get_running_loop().create_future()
            self.waiting = [*(self.waiting or ()), future]
            await future


class _Node:
    __slots__ = ("gone", "pods")

    def __init__(self) -> None:
        self.pods: dict[str, PodUsage] = {}  # by uid
        self.gone = 0.0  # core-seconds of pods that have ended


class Usage:
    """Every pod of the fleet, by node. `see` and `forget` are the hooks of Pods."""

    def __init__(self, spec: Spec) -> None:
        self.began = time.time()
        self._seed = spec.seed
        self._cpu, self._memory = spec.pod_cpu_usage, spec.pod_memory_usage
        self._nodes: dict[str, _Node] = {}
        self._pods: dict[str, PodUsage] = {}

    def see(self, pod: objects.Pod, vnode: Vnode) -> None:
        """A pod as the API server has it now."""
        uid = pod.metadata.uid
        known = self._pods.get(uid)
        if known is None:
            known = self._pods[uid] = PodUsage(pod, vnode.name)
            self._node(vnode.name).pods[uid] = known
        self._follow(known, pod)
        self._listen(known, pod)

    def forget(self, uid: str) -> None:
        """A pod is no more."""
        if (known := self._pods.pop(uid, None)) is not None:
            now = time.time()
            for container in known.running:
                known.stop(container, now)
            node = self._nodes[known.node]
            node.gone += known.cpu_seconds(now)
            del node.pods[uid]

    def pods(self, node: str) -> Iterable[PodUsage]:
        """What is bound to a vnode."""
        return self._nodes[node].pods.values() if node in self._nodes else ()

    def running(self, node: str) -> Iterator[PodUsage]:
        """What uses CPU and memory on a vnode."""
        return (pod for pod in self.pods(node) if pod.running)

    def pod(self, node: str, namespace: str, name: str) -> PodUsage | None:
        """A vnode's pod; of two with that name, the later."""
        found = [pod for pod in self.pods(node) if pod.name == name and pod.namespace == namespace]
        return found[-1] if found else None

    def node(self, name: str, now: float) -> tuple[float, float, float]:
        """A vnode's core-seconds, cores and bytes: those of its pods, and of a container that does nothing."""
        pods = self.pods(name)
        gone = self._nodes[name].gone if name in self._nodes else 0.0
        return (
            _START_CPU + gone + sum(pod.cpu_seconds(now) for pod in pods),
            sum(pod.cores for pod in pods),
            _LEAST_MEMORY + sum(pod.memory for pod in pods),
        )

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())

    def _follow(self, known: PodUsage, pod: objects.Pod) -> None:
        """Start and stop containers as their statuses, or else the pod's phase, say that they run."""
        now = time.time()
        if not known.started:
            known.started = unix_time(pod.status.start_time)
        states = {status.name: status.state for status in pod.status.container_statuses}
        for container in known.containers:
            if container.name in states:
                state = states[container.name] or objects.ContainerState()
            else:  # not told one by one
                running = pod.status.phase == "Running"
                state = objects.ContainerState(running=objects.Running(pod.status.start_time) if running else None)
            _follow(known, container, state, now)

    def _listen(self, known: PodUsage, pod: objects.Pod) -> None:
        """Take up what is to be used: at first, and when annotations change, so that a load can come and go."""
        notes = pod.metadata.annotations
        said = notes.get(CPU_ANNOTATION, self._cpu), notes.get(MEMORY_ANNOTATION, self._memory)
        if said != known.said and known.running:
            # an engine that takes a pod over goes on from what it would have used since its start
            since = 0.0 if known.said is None else time.time()
            known.said = said
            self._use(known, pod, since)

    def _use(self, known: PodUsage, pod: objects.Pod, since: float) -> None:
        assert known.said is not None
        chance = random.Random(f"{self._seed}/{known.uid}")
        share = 1 / max(1, len(known.containers))
        cores = _draw(known.said[0], self._cpu, CORE, chance) * share
        memory = _draw(known.said[1], self._memory, GIB, chance) * share if known.said[1] else 0.0
        requests = {one.name: one.resources for one in (*pod.spec.init_containers, *pod.spec.containers)}
        for container in known.containers:
            asked = requests.get(container.name)
            container.use(cores, memory or (_bytes(asked.requests.get("memory", "")) / 2 if asked else 0.0), since)


def _follow(known: PodUsage, container: Container, state: objects.ContainerState, now: float) -> None:
    if state.running:
        began = unix_time(state.running.started_at) or now
        if not container.running or began > container.started:
            known.gone += container.cpu_seconds(began)
            container.start(began)
    elif state.terminated and not container.started:  # an earlier engine's
        container.start(unix_time(state.terminated.started_at) or now)
        container.stop(unix_time(state.terminated.finished_at) or now)
    elif container.running:
        known.stop(container, now)


def _draw(text: str, default: str, unit: float, chance: random.Random) -> float:
    try:
        return parse(text, unit).draw(chance) * unit
    except ValueError:
        _complain(text)
    return parse(default, unit).draw(chance) * unit if default else 0.0


@functools.lru_cache(maxsize=1024)
def _complain(text: str) -> None:
    """Once for each text: a template's pods are many."""
    log.warning("annotation %s or %s is %r; allowed is %s", CPU_ANNOTATION, MEMORY_ANNOTATION, text, ALLOWED)


@functools.lru_cache(maxsize=256)
def _bytes(request: str) -> float:
    try:
        return quantity(request)
    except ValueError:
        return 0.0
