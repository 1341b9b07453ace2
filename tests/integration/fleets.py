"""Fleets on a real control plane, and pods for them: what tests do, and see as the admin."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.integration.control_plane import ControlPlane
from turbokube.api.target import load_target
from turbokube.daemon import process
from turbokube.vnode import fleet
from turbokube.vnode.spec import RUN_LABEL, Spec


def deployment(
    name: str,
    replicas: int,
    *,
    on: dict[str, str] | None = None,
    tolerates: str = "turbokube.io/vnode",
    annotations: dict[str, str] | None = None,
    image: str = "pause",
    requests: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A Deployment in namespace default: its pods bear app=name and go where nodes have the labels `on`."""
    resources = {"requests": requests or {"memory": "32Mi"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations or {}},
                "spec": {
                    "nodeSelector": on or {},
                    "tolerations": [{"key": tolerates, "operator": "Exists"}],
                    "containers": [{"name": "pause", "image": image, "resources": resources}],
                },
            },
        },
    }


class Fleet:
    """What the tests do to a fleet, and see of it as the admin. `state`: its own, if it is not the control plane's."""

    def __init__(self, plane: ControlPlane, spec: Spec, state: Path | None = None, timeout: float = 120) -> None:
        self.plane = plane
        self.target = load_target(plane.target)
        self.state = state or plane.state
        self.spec = spec
        self._timeout = timeout

    def present(self, **changes: Any) -> fleet.Result:
        spec = msgspec.structs.replace(self.spec, **changes)
        return fleet.present(lambda: self.target, self.state, spec, timeout=self._timeout)

    def absent(self) -> fleet.Result:
        return fleet.absent(self.target, self.state, self.spec, timeout=120)

    def status(self) -> dict[str, Any]:
        return fleet.info(self.state)

    def process(self) -> process.Process:
        found = process.find(self.state, "fleet")
        assert found is not None
        return found

    def metrics(self, start: str) -> dict[str, float]:
        """The engine's samples whose names begin so."""
        with urllib.request.urlopen(self.status()["metrics_url"]) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(rf"^({start}\S*) (\S+)$", text, re.MULTILINE)}

    def metric(self, name: str) -> float:
        return self.metrics(name)[name]

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.plane.kubectl("get", *arguments, "-o", "json"))["items"]
        return found

    def last_transitions(self) -> dict[str, str]:
        """When each node became Ready; it changes when a node was lost meanwhile."""
        return {
            node["metadata"]["uid"]: condition["lastTransitionTime"]
            for node in self.items("nodes")
            for condition in node["status"]["conditions"]
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def pods(self) -> list[dict[str, Any]]:
        """Those of Deployment load that run and are not going."""
        return [
            pod
            for pod in self.items("pods", "-l", "app=load")
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def running(self) -> dict[str, str]:
        """uid → address of these pods."""
        return {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in self.pods()}

    @contextlib.contextmanager
    def carrying(self, replicas: int, seconds: float = 60.0, **annotations: str) -> Iterator[None]:
        """Deployment load runs within, on these vnodes; `annotations`: turbokube.io/… of its pods, _ for -."""
        made = deployment(
            "load",
            replicas,
            on={RUN_LABEL: self.spec.run},
            tolerates="turbokube.io/vnode" if self.spec.placement == "cluster" else "turbokube.io/namespace",
            annotations={f"turbokube.io/{name.replace('_', '-')}": text for name, text in annotations.items()},
        )
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(made, file)
            file.flush()
            self.plane.kubectl("apply", "-f", file.name)
        wait_for(lambda: len(self.pods()) == replicas, seconds)
        yield
        self.plane.kubectl("delete", "deployment", "load")
        wait_for(lambda: not self.items("pods", "-l", "app=load"), seconds)


def wait_for(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What it gives, once that is something; fails if that takes longer."""
    end = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.3)
    return what
