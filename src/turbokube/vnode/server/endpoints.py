"""A kubelet's server side for every vnode: health, metrics, statistics, pods, and plain words for logs.

Paths, answers and errors are those of pkg/kubelet/server/server.go of Kubernetes 1.36. What would need a process is
refused: a vnode has none.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec

from ...api.transport import JSON, ApiError, Unreachable
from ..addresses import node_index
from ..clock import rfc3339, rfc3339_micro
from ..nodes import Vnode
from ..spec import Spec
from . import listener, stats
from .access import Access, Refused
from .listener import Answer, Listener, Request
from .usage import Container, PodUsage, Usage

_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_NOT_FOUND = Answer("404: Page Not Found", 404)
_NEED_A_PROCESS = ("exec", "attach", "portForward", "run", "cri")


class Server:
    """The server side of all vnodes of an engine. Make it inside a running loop; `run` for ever."""

    def __init__(
        self, spec: Spec, vnodes: dict[str, Vnode], version: str, certificate: str, authority: str | None
    ) -> None:
        """`certificate`: path of the PEM file that vnodes serve with; `authority`: the CA of clients, PEM."""
        self.usage = Usage(spec)
        self._spec = spec
        self._vnodes = vnodes
        self._version = version
        self._context = listener.tls(certificate, authority)
        self._access = Access(shared=spec.fidelity == "lease")
        self._capacity = stats.memory_capacity(spec)
        self._routes: dict[str, Callable[[Vnode, Request], Awaitable[Answer]]] = {
            "healthz": self._healthz,
            "metrics": self._metrics,
            "stats": self._stats,
            "pods": self._pods,
            "containerLogs": self._logs,
            **dict.fromkeys(_NEED_A_PROCESS, self._refuse),
        }

    async def run(self) -> None:
        """Serve for ever. Raises SpecError where it cannot listen."""
        await Listener(self.answer).run(listener.listen(self._spec), self._context)

    async def answer(self, request: Request) -> Answer | None:
        """What the vnode at the address that was called says; None where none is."""
        vnode = self._vnodes.get(self._spec.name(node_index(self._spec.node_ips, request.address)))
        if vnode is None or not vnode.joined or vnode.silent:
            return None
        try:
            await self._access.admit(vnode, request.certificate, request.authorization, request.method, request.path)
        except Refused as refused:
            return Answer(str(refused), refused.status)
        route = self._routes.get(request.path.lstrip("/").partition("/")[0])
        return await route(vnode, request) if route else _NOT_FOUND

    async def _healthz(self, vnode: Vnode, request: Request) -> Answer:
        return Answer("ok") if request.path.strip("/") in ("healthz", "healthz/ping") else _NOT_FOUND

    async def _metrics(self, vnode: Vnode, request: Request) -> Answer:
        match request.path.rstrip("/"):
            case "/metrics":
                return Answer(stats.kubelet_metrics(self.usage, vnode.name, self._version), kind=_METRICS)
            case "/metrics/resource":
                return Answer(stats.resource_metrics(self.usage, vnode.name, time.time()), kind=_METRICS)
            case "/metrics/cadvisor" | "/metrics/probes":
                return Answer("", kind=_METRICS)  # of what a vnode has not: cgroups, probes
        return _NOT_FOUND

    async def _stats(self, vnode: Vnode, request: Request) -> Answer:
        if request.path.rstrip("/") != "/stats/summary":
            return _NOT_FOUND
        return Answer(stats.summary(self.usage, vnode.name, self._capacity, time.time()), kind=JSON)

    async def _pods(self, vnode: Vnode, request: Request) -> Answer:
        """As the API server has them: what a kubelet would have in its memory, an engine has not."""
        path = f"/api/v1/pods?fieldSelector=spec.nodeName={vnode.name}"
        try:
            answer = await vnode.client.call("list", "pods", "GET", path, accept=JSON)
            return Answer(answer.checked().body, kind=JSON)
        except (Unreachable, ApiError) as error:
            return Answer(f"the pods of {vnode.name} cannot be had: {error}", 500)

    async def _logs(self, vnode: Vnode, request: Request) -> Answer:
        parts = request.path.strip("/").split("/")
        if len(parts) != 4:
            return _NOT_FOUND
        _, namespace, name, wanted = parts
        if (pod := self.usage.pod(vnode.name, namespace, name)) is None:
            return Answer(f'pod "{name}" does not exist', 404)
        if (container := pod.container(wanted)) is None:
            return Answer(f'container "{wanted}" not found in pod "{name}"', 404)
        started, ended = container.started, container.ended
        if request.query.get("previous") == "true":
            if container.last is None:
                return Answer(f'previous terminated container "{wanted}" in pod "{name}" not found', 400)
            started, ended = container.last
        elif not started:
            return Answer(f'container "{wanted}" in pod "{name}" is waiting to start: ContainerCreating', 400)
        try:
            text = _log(_lines(self._spec.run, pod, container, started, ended), request.query)
        except ValueError:
            return Answer('{"message": "Invalid request."}', 422)
        follow = request.query.get("follow") == "true" and not ended
        return Answer(text, rest=self._end(pod, container, request.query) if follow else None)

    async def _end(self, pod: PodUsage, container: Container, query: dict[str, str]) -> bytes:
        """The last line, when it is written."""
        await pod.end_of(container)
        return _log([_last(container.ended)], {"timestamps": query.get("timestamps", "")})

    async def _refuse(self, vnode: Vnode, request: Request) -> Answer:
        what, *rest = request.path.strip("/").split("/")
        if len(rest) < 2 or self.usage.pod(vnode.name, rest[0], rest[1]) is None:
            return Answer("pod does not exist", 404)
        words = f"{vnode.name} is a virtual node: its containers run no process, so {what} has nothing to work on"
        # kubectl and the API server show a Status' message where a stream cannot be had
        # (client-go/transport/spdy, apimachinery/pkg/util/httpstream/spdy)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": words}
        return Answer(msgspec.json.encode({**status, "reason": "NotImplemented", "code": 501}), 501, JSON)


def _lines(run: str, pod: PodUsage, container: Container, started: float, ended: float) -> list[tuple[float, str]]:
    """All that a container of a vnode has to say, and when it said so."""
    words = [
        f"{pod.node} is a virtual node of run {run}: no process runs here, and nothing else is written",
        f"container {container.name} of pod {pod.namespace}/{pod.name} ({pod.uid}), image {container.image}",
        f"running since {rfc3339(started)}",
    ]
    return [(started, line) for line in words] + ([_last(ended)] if ended else [])


def _last(ended: float) -> tuple[float, str]:
    return ended, f"ended at {rfc3339(ended)}"


def _log(lines: list[tuple[float, str]], query: dict[str, str]) -> bytes:
    """The lines that PodLogOptions ask for. Raises ValueError for those that make no sense."""
    since = 0.0
    if "sinceSeconds" in query:
        since = time.time() - _whole(query["sinceSeconds"], 1)
    elif "sinceTime" in query:
        since = datetime.fromisoformat(query["sinceTime"]).timestamp()
    lines = [line for line in lines if line[0] >= since]
    if "tailLines" in query:
        lines = lines[max(0, len(lines) - _whole(query["tailLines"], 0)) :]
    stamped = query.get("timestamps") == "true"
    text = "".join(f"{_nano(moment) if stamped else ''}{line}\n" for moment, line in lines).encode()
    return text[: _whole(query["limitBytes"], 1)] if "limitBytes" in query else text


def _nano(moment: float) -> str:
    return f"{rfc3339_micro(moment)[:-1]}000Z "


def _whole(text: str, least: int) -> int:
    number = int(text)
    if number < least:
        raise ValueError
    return number
