"""Objects from a jinja2 template: rendered once per shape, then filled in by replacing bytes."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
import msgspec
import yaml

from .phase import RUN_LABEL, LoadError, Phase

# What may be created: each of these has its pods' template where it is known, and pods that stay
_COLLECTIONS = {
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "ReplicaSet"): "replicasets",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("v1", "Pod"): "pods",
}
# Stand-ins while a shape is rendered; valid object names, and nothing that a template would hold by chance
_MARKS = {
    "name": "zq-name-qz",
    "namespace": "zq-namespace-qz",
    "scheduler": "zq-scheduler-qz",
    "taint_value": "zq-taint-qz",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object, ready to be sent. `path` is the collection that it is posted to, without the namespace's objects."""

    kind: str
    resource: str
    path: str
    name: str
    namespace: str
    replicas: int
    body: bytes


class Templates:
    """Renders the objects of a phase. Raises LoadError at once when the template cannot be used."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        source = phase.template or importlib.resources.files(__package__).joinpath("deployment.yaml.j2").read_text()
        environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
        try:
            self._template = environment.from_string(source)
            used = jinja2.meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise LoadError(f"template cannot be read: {error}") from None
        self._shape: Manifest | None = None
        samples = [self._render(self._variables(*place)) for place in self._corners()]
        if used.isdisjoint({"index", "namespace_index"}):
            self._shape = self._render({**self._variables(phase.first_namespace, 0), **_MARKS})
            if [self.manifest(*place) for place in self._corners()] != samples:
                self._shape = None  # the template makes more of the names than to print them

    def manifest(self, namespace: int, index: int) -> Manifest:
        """The object of that number in the namespace of that number."""
        variables = self._variables(namespace, index)
        if self._shape is None:
            return self._render(variables)
        shape, values = self._shape, {name: str(variables[name]) for name in _MARKS}
        body = shape.body
        for name, mark in _MARKS.items():
            body = body.replace(mark.encode(), values[name].encode())
        path = shape.path.replace(_MARKS["namespace"], values["namespace"])
        name = shape.name.replace(_MARKS["name"], values["name"])
        return Manifest(shape.kind, shape.resource, path, name, values["namespace"], shape.replicas, body)

    def _corners(self) -> Iterator[tuple[int, int]]:
        last = self._phase.deployments - 1
        for namespace in (self._phase.first_namespace, self._phase.indices[-1]):
            yield from ((namespace, 0), (namespace, last // 2), (namespace, last))

    def _variables(self, namespace: int, index: int) -> dict[str, Any]:
        phase = self._phase
        own = phase.placement == "namespace"
        extra = f"turbokube-scheduler-{namespace % phase.schedulers:02x}" if phase.schedulers else ""
        return {
            "run": phase.run,
            "namespace": phase.namespace(namespace),
            "namespace_index": namespace,
            "name": f"turbokube-{index:02x}",
            "index": index,
            "replicas": phase.replicas,
            "scheduler": extra or "default-scheduler",
            "taint_key": "turbokube.io/namespace" if own else "turbokube.io/vnode",
            "taint_value": f"{namespace:04x}" if own else "true",
            "automount_token": phase.automount_token,
            "requests": {k: v for k, v in (("memory", phase.pod_memory), ("cpu", phase.pod_cpu)) if v},
        }

    def _render(self, variables: dict[str, Any]) -> Manifest:
        try:
            made = yaml.safe_load(self._template.render(variables))
        except jinja2.TemplateError as error:
            raise LoadError(f"template does not render: {error}") from None
        except yaml.YAMLError as error:
            raise LoadError(f"template renders to what is not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
            raise LoadError("template must render to one Kubernetes object with metadata")
        kind = (str(made.get("apiVersion")), str(made.get("kind")))
        if kind not in _COLLECTIONS:
            allowed = ", ".join(f"{version} {name}" for version, name in _COLLECTIONS)
            raise LoadError(f"template renders to {' '.join(kind)}; it must be one of {allowed}")
        return _manifest(made, kind, variables)


def _manifest(made: dict[str, Any], kind: tuple[str, str], variables: dict[str, Any]) -> Manifest:
    version, name = kind
    metadata, namespace = made["metadata"], str(variables["namespace"])
    _label(metadata, variables["run"])
    metadata["namespace"] = namespace
    replicas = 1
    if name != "Pod":
        spec = made.get("spec") or {}
        replicas = int(spec.get("replicas", 1))
        template = spec.setdefault("template", {}).setdefault("metadata", {})
        _label(template, variables["run"])
    owner = (metadata if name == "Pod" else template)["labels"].setdefault("app", metadata.get("name"))
    if not metadata.get("name") or owner != metadata["name"]:
        raise LoadError("template must give the object a name, and its pods no label app but that name")
    resource = _COLLECTIONS[kind]
    path = f"/{'api' if version == 'v1' else 'apis'}/{version}/namespaces/{namespace}/{resource}"
    return Manifest(name, resource, path, metadata["name"], namespace, replicas, msgspec.json.encode(made))


def _label(metadata: dict[str, Any], run: str) -> None:
    """Nothing is created that does not carry the run's label: by it things are seen, and removed."""
    metadata["labels"] = {**(metadata.get("labels") or {}), RUN_LABEL: run}
