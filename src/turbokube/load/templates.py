"""Objects from jinja2 templates: rendered once per shape, then filled in by replacing bytes."""

from __future__ import annotations

import base64
import bisect
import functools
import importlib.resources
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
import msgspec
import yaml

from turbokube.api.transport import Transport
from turbokube.profile.phases import BUILT_IN, Create, ObjectSet

from . import resources
from .phase import RUN_LABEL, SEGMENT_LABEL, LoadError
from .resources import CRD, Resource

# Where a kind has the template of its pods, and how it is known that those are there: "pods" counts them, the others
# are told by the object's own status (load/ready.py)
_PODS: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("v1", "Pod"): ((), "pods"),
    ("v1", "ReplicationController"): (("spec", "template"), "pods"),
    ("apps/v1", "Deployment"): (("spec", "template"), "pods"),
    ("apps/v1", "ReplicaSet"): (("spec", "template"), "pods"),
    ("apps/v1", "StatefulSet"): (("spec", "template"), "pods"),
    ("apps/v1", "DaemonSet"): (("spec", "template"), "daemonset"),
    ("batch/v1", "Job"): (("spec", "template"), "job"),
    ("batch/v1", "CronJob"): (("spec", "jobTemplate", "spec", "template"), ""),
}
# SIG Scalability's startup SLI is of stateless pods: those with no volumes but these (pod_startup_latency.md)
_STATELESS_VOLUMES = {"name", "secret", "configMap", "downwardAPI", "projected", "emptyDir"}
_STATEFUL = {"StatefulSet", "DaemonSet", "Job", "CronJob"}
_SCHEDULER = "default-scheduler"
# Stand-ins while a shape is rendered; valid object names, and nothing that a template would hold by chance
_MARKS = {
    "name": "zq-name-qz",
    "namespace": "zq-namespace-qz",
    "number": "zq-number-qz",
    "scheduler": "zq-scheduler-qz",
    "taint_value": "zq-taint-qz",
}
_PAYLOAD = b"zq-payload-qz"  # never rendered itself: it may be a megabyte


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object to be sent: `path` is the collection that it is posted to, `all` that of all namespaces.

    `replicas` is how many pods it is to have, 0 where only its status will tell; `stateless` is None without pods.
    `awaits` says how its readiness is known: pods, daemonset, job, established, or empty: accepted is ready.
    """

    kind: str
    resource: str
    path: str
    all: str
    name: str
    namespace: str
    replicas: int
    stateless: bool | None
    awaits: str
    made: bytes
    payload: bytes

    @property
    def body(self) -> bytes:
        """What is posted."""
        return self.made.replace(_PAYLOAD, self.payload)


class Templates:
    """Renders the objects of a phase. Raises LoadError at once when a template cannot be used.

    Kinds that neither Kubernetes nor a template of the same phase defines are to be discovered before they are used.
    """

    def __init__(self, phase: Create) -> None:
        self._phase = phase
        self._sets = [_Set(phase, one) for one in phase.objects]
        crds = [one.sample for one in self._sets if one.kind == CRD]
        custom = {(one.version, one.kind): one for crd in crds for one in resources.defined(crd)}
        for one in self._sets:
            one.resource = resources.known(*one.kind) or custom.get(one.kind)
        self._sort()

    async def discover(self, transport: Transport) -> None:
        """Ask the API server where the objects of unknown kinds go.

        Raises LoadError for a kind that it does not serve, ApiError when refused.
        """
        for one in self._sets:
            if one.resource is None:
                served = await resources.discover(transport, one.kind[0])
                one.resource = next((each for each in served if each.kind == one.kind[1]), None)
                if one.resource is None:
                    raise LoadError(f"template renders to {' '.join(one.kind)}, which the API server does not serve")
        self._sort()

    def _sort(self) -> None:
        unbound = [one for one in self._sets if one.resource is not None and not one.resource.namespaced]
        self._unbound = unbound
        self._bound = [one for one in self._sets if one not in unbound]
        self._ends = list(itertools.accumulate(one.asked.count for one in self._bound))

    @property
    def per_namespace(self) -> int:
        """How many objects each namespace has."""
        return self._ends[-1] if self._ends else 0

    def kinds(self) -> set[tuple[str, str]]:
        """apiVersion and kind of each set of objects."""
        return {one.kind for one in self._sets}

    def manifest(self, namespace: int, number: int) -> Manifest:
        """The object of that number in the namespace of that number."""
        which = bisect.bisect_right(self._ends, number)
        return self._bound[which].manifest(namespace, number - (self._ends[which - 1] if which else 0))

    def makers(self, name: str = "") -> Iterator[Callable[[], Manifest]]:
        """What makes each object of the phase, or of the set of that name."""
        sets = [one for one in (*self._unbound, *self._bound) if not name or one.asked.stem == name]
        for namespace in self._phase.indices:
            for one in sets:
                if one in self._bound or namespace == one.first:
                    yield from (functools.partial(one.manifest, namespace, number) for number in range(one.asked.count))

    def cluster(self) -> list[Manifest]:
        """The objects that are in no namespace, each once, in the order of the phase."""
        return [one.manifest(one.first, number) for one in self._unbound for number in range(one.asked.count)]


class _Rendered(msgspec.Struct, frozen=True):
    """What one rendering gave."""

    name: str
    namespace: str
    replicas: int
    stateless: bool | None
    body: bytes


class _Set:
    """One template's objects, by the number of their namespace and their own."""

    def __init__(self, phase: Create, asked: ObjectSet) -> None:
        self.asked = asked
        self.first = phase.first_namespace
        self._stem = asked.stem
        self.resource: Resource | None = None
        self._phase = phase
        self._payload = _payload(phase.seed, asked)
        environment = jinja2.sandbox.SandboxedEnvironment(
            undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_built_in)
        )
        source = asked.source or _built_in(f"{asked.template}.yaml.j2")
        if source is None:
            raise LoadError(f"template is {asked.template}; it must be one of {', '.join(BUILT_IN)}, or a file's path")
        try:
            self._template = environment.from_string(source)
            used = jinja2.meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise LoadError(f"template cannot be read: {error}") from None
        if hidden := self._variables(self.first, 0).keys() & asked.vars.keys():
            raise LoadError(f"vars has {', '.join(sorted(hidden))}, which every template has already")
        self.sample = self._read(self._variables(self.first, 0))
        self.kind = (str(self.sample["apiVersion"]), str(self.sample["kind"]))
        self.pods: tuple[str, ...] | None
        self.pods, self.awaits = _PODS.get(self.kind, (None, "established" if self.kind == CRD else ""))
        self._shape: _Rendered | None = None
        self._find_shape(used)

    def _find_shape(self, used: set[str]) -> None:
        """Render once for all, if the objects differ in nothing but what is filled in."""
        places = sorted(set(self._corners()))
        samples = [self._render(self._variables(*place)) for place in places]
        if len({(one.namespace, one.name) for one in samples}) < len(places):
            raise LoadError(f"template gives two objects the name {samples[0].name}; it must make use of name")
        if used.isdisjoint({"index", "namespace_index"}):
            self._shape = self._render({**self._variables(self.first, 0), **_MARKS})
            if [self._filled(*place) for place in places] != samples:
                self._shape = None  # the template makes more of the names than to print them

    def manifest(self, namespace: int, index: int) -> Manifest:
        """The object of that number in the namespace of that number."""
        made, resource = self._filled(namespace, index), self.resource
        assert resource is not None, "discover() comes first"
        space = made.namespace if resource.namespaced else ""
        return Manifest(
            resource.kind, resource.plural, resource.collection(space), resource.collection(), made.name, space,
            made.replicas, made.stateless, self.awaits, made.body, self._payload,
        )  # fmt: skip

    def _filled(self, namespace: int, index: int) -> _Rendered:
        shape = self._shape
        if shape is None:
            return self._render(self._variables(namespace, index))
        values = self._values(namespace, index)
        name, body = shape.name, shape.body
        for each, mark in _MARKS.items():
            body = body.replace(mark.encode(), values[each].encode())
            name = name.replace(mark, values[each])
        return _Rendered(name, values["namespace"], shape.replicas, shape.stateless, body)

    def _corners(self) -> Iterator[tuple[int, int]]:
        last = self.asked.count - 1
        for namespace in (self.first, self._phase.indices[-1]):
            yield from ((namespace, 0), (namespace, last // 2), (namespace, last))

    def _values(self, namespace: int, index: int) -> dict[str, str]:
        """What takes the marks' places."""
        phase = self._phase
        return {
            "name": f"{self._stem}-{index:02x}",
            "namespace": phase.namespace(namespace),
            "number": f"{index:02x}",
            "scheduler": f"turbokube-scheduler-{namespace % phase.schedulers:02x}" if phase.schedulers else _SCHEDULER,
            "taint_value": f"{namespace:04x}" if phase.placement == "namespace" else "true",
        }

    def _variables(self, namespace: int, index: int) -> dict[str, Any]:
        phase = self._phase
        return {
            **self._values(namespace, index),
            "run": phase.run,
            "segment": phase.segment,
            "namespace_index": namespace,
            "index": index,
            "replicas": self.asked.replicas,
            "payload": _PAYLOAD.decode(),
            "taint_key": "turbokube.io/namespace" if phase.placement == "namespace" else "turbokube.io/vnode",
            "automount_token": phase.automount_token,
            "requests": {k: v for k, v in (("memory", phase.pod_memory), ("cpu", phase.pod_cpu)) if v},
        }

    def _read(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            made = yaml.safe_load(self._template.render({**self.asked.vars, **variables}))
        except jinja2.TemplateError as error:
            raise LoadError(f"template does not render: {error}") from None
        except yaml.YAMLError as error:
            raise LoadError(f"template renders to what is not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
            raise LoadError("template must render to one Kubernetes object with metadata")
        if not made.get("apiVersion") or not made.get("kind"):
            raise LoadError("template must render to an object with apiVersion and kind")
        return made

    def _render(self, variables: Mapping[str, Any]) -> _Rendered:
        made = self._read(variables)
        kind = (str(made["apiVersion"]), str(made["kind"]))
        if kind != self.kind:
            raise LoadError(f"template renders to {' '.join(self.kind)} and to {' '.join(kind)}; it must be one kind")
        metadata = made["metadata"]
        _label(metadata, variables["run"])
        if not metadata.get("name"):
            raise LoadError("template must give the object a name")
        if (known := resources.known(*kind)) is not None and known.namespaced:
            metadata["namespace"] = variables["namespace"]
        replicas, stateless = 0, None
        if self.pods is not None:
            template = _pod_template(made, self.pods)
            _label(template.setdefault("metadata", {}), variables["run"])
            if variables["segment"]:
                template["metadata"]["labels"][SEGMENT_LABEL] = variables["segment"]
            if template["metadata"]["labels"].setdefault("app", metadata["name"]) != metadata["name"]:
                raise LoadError("template must give its pods no label app but the object's name")
            replicas, stateless = _replicas(made), _stateless(made, template)
        return _Rendered(metadata["name"], variables["namespace"], replicas, stateless, msgspec.json.encode(made))


def _built_in(name: str) -> str | None:
    """The text of a template that is delivered with TurboKube."""
    path = importlib.resources.files(__package__).joinpath("objects", name)
    return path.read_text() if "/" not in name and path.is_file() else None


def _payload(seed: int, asked: ObjectSet) -> bytes:
    """So many bytes that compress badly and need no escaping."""
    drawn = random.Random(f"{seed}/{asked.stem}").randbytes(asked.bytes * 3 // 4 + 1)
    return base64.urlsafe_b64encode(drawn)[: asked.bytes]


def _label(metadata: dict[str, Any], run: str) -> None:
    """Nothing is created that does not carry the run's label: by it things are seen, and removed."""
    metadata["labels"] = {**(metadata.get("labels") or {}), RUN_LABEL: run}


def _pod_template(made: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        made = made.setdefault(key, {})
        if not isinstance(made, dict):
            raise LoadError(f"template has {key} that is not a dictionary")
    return made


def _replicas(made: dict[str, Any]) -> int:
    """Pods that the object is to have; 0 where only the cluster can tell."""
    spec, kind = made.get("spec") or {}, made["kind"]
    if kind in ("DaemonSet", "CronJob"):
        return 0
    if kind == "Job":
        return int(spec.get("completions", spec.get("parallelism", 1)))
    return 1 if kind == "Pod" else int(spec.get("replicas", 1))


def _stateless(made: dict[str, Any], template: dict[str, Any]) -> bool:
    volumes = (template.get("spec") or {}).get("volumes") or []
    return made["kind"] not in _STATEFUL and all(set(volume) <= _STATELESS_VOLUMES for volume in volumes)
