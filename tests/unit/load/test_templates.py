from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from turbokube.api.transport import Response
from turbokube.load import resources
from turbokube.load.phase import LoadError
from turbokube.load.resources import Resource
from turbokube.load.templates import Templates
from turbokube.profile.phases import Create, ObjectSet


def phase(template: str = "", **changes: Any) -> Create:
    given = {"template": "mine.yaml.j2", "source": template} if template else {}
    sets = (ObjectSet(name="turbokube", count=4, replicas=8, **given),)
    return Create(**{"run": "r", "name": "create", "namespaces": 20, "objects": sets, **changes})


def made(asked: Create, namespace: int, index: int) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(Templates(asked).manifest(namespace, index).body)
    return body


def test_built_in_deployment_is_the_originals() -> None:
    manifest = Templates(phase()).manifest(17, 3)
    assert manifest.path == "/apis/apps/v1/namespaces/turbokube-0011/deployments"
    assert (manifest.kind, manifest.resource, manifest.name, manifest.replicas) == (
        "Deployment",
        "deployments",
        "turbokube-03",
        8,
    )
    body = msgspec.json.decode(manifest.body)
    assert body["metadata"]["labels"] == {"app": "turbokube", "turbokube.io/run": "r"}
    assert body["spec"]["selector"]["matchLabels"] == {"app": "turbokube-03"}
    assert body["spec"]["template"]["metadata"]["labels"] == {"app": "turbokube-03", "turbokube.io/run": "r"}
    pod = body["spec"]["template"]["spec"]
    assert pod["schedulerName"] == "default-scheduler"
    assert pod["automountServiceAccountToken"] is True
    assert pod["nodeSelector"] == {"kubernetes.io/role": "agent", "type": "virtual-kubelet"}
    assert pod["tolerations"] == [
        {"key": "turbokube.io/namespace", "operator": "Equal", "value": "0011", "effect": "NoSchedule"}
    ]
    assert pod["containers"][0]["resources"] == {"requests": {"memory": "32Mi"}}
    assert [port["containerPort"] for port in pod["containers"][0]["ports"]] == [80, 443]


def test_what_differs_between_objects_is_filled_in() -> None:
    asked = phase(schedulers=4, placement="namespace")
    template = made(asked, 7, 1)["spec"]["template"]["spec"]
    assert template["schedulerName"] == "turbokube-scheduler-03"
    assert template["tolerations"][0]["value"] == "0007"
    cluster = made(phase(placement="cluster"), 7, 1)["spec"]["template"]["spec"]
    assert cluster["tolerations"][0] == {
        "key": "turbokube.io/vnode",
        "operator": "Equal",
        "value": "true",
        "effect": "NoSchedule",
    }
    assert made(phase(pod_memory="", pod_cpu="100m", automount_token=False), 0, 0)["spec"]["template"]["spec"] | {
        "containers": None
    } == {**made(phase(), 0, 0)["spec"]["template"]["spec"], "automountServiceAccountToken": False, "containers": None}


POD = """
apiVersion: v1
kind: Pod
metadata: {name: "%s", labels: {tier: "%s"}}
spec: {containers: [{name: a, image: b}]}
"""


@pytest.mark.parametrize(
    "label",
    ["{{ namespace_index % 3 }}", "{{ name | upper }}", "{{ 'first' if name == 'turbokube-00' else 'other' }}"],
)
def test_a_template_that_computes_is_rendered_for_each_object(label: str) -> None:
    templates = Templates(phase(template=POD % ("{{ name }}", label)))
    tiers = {
        (n, i): msgspec.json.decode(templates.manifest(n, i).body)["metadata"]["labels"]["tier"]
        for n in (0, 1)
        for i in (0, 1)
    }
    expected = {
        "{{ namespace_index % 3 }}": lambda n, i: n % 3,
        "{{ name | upper }}": lambda n, i: f"TURBOKUBE-{i:02}",
        "{{ 'first' if name == 'turbokube-00' else 'other' }}": lambda n, i: "other" if i else "first",
    }[label]
    assert {key: str(tier) for key, tier in tiers.items()} == {key: str(expected(*key)) for key in tiers}


def test_pods_are_found_by_label_whatever_the_template_says() -> None:
    manifest = Templates(phase(template=POD % ("{{ name }}", "x"))).manifest(2, 1)
    assert manifest.path == "/api/v1/namespaces/turbokube-0002/pods"
    assert manifest.replicas == 1
    assert msgspec.json.decode(manifest.body)["metadata"]["labels"] == {
        "tier": "x",
        "app": "turbokube-01",
        "turbokube.io/run": "r",
    }


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ nothing }}", "template does not render: 'nothing' is undefined"),
        ("{{ name", "template cannot be read"),
        ("a: [", "not YAML"),
        ("just text", "one Kubernetes object"),
        (POD % ("", "x"), "must give the object a name"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_once(template: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        Templates(phase(template=template))


def one_set(**given: Any) -> Create:
    return Create(run="r", name="create", namespaces=2, objects=(ObjectSet(**given),))


@pytest.mark.parametrize(
    ("template", "path", "replicas", "stateless", "awaits"),
    [
        ("deployment", "/apis/apps/v1/namespaces/turbokube-0001/deployments", 3, True, "pods"),
        ("statefulset", "/apis/apps/v1/namespaces/turbokube-0001/statefulsets", 3, False, "pods"),
        ("daemonset", "/apis/apps/v1/namespaces/turbokube-0001/daemonsets", 0, False, "daemonset"),
        ("job", "/apis/batch/v1/namespaces/turbokube-0001/jobs", 3, False, "job"),
        ("service", "/api/v1/namespaces/turbokube-0001/services", 0, None, ""),
        ("configmap", "/api/v1/namespaces/turbokube-0001/configmaps", 0, None, ""),
        ("secret", "/api/v1/namespaces/turbokube-0001/secrets", 0, None, ""),
        ("pod", "/api/v1/namespaces/turbokube-0001/pods", 1, True, "pods"),
    ],
)
def test_every_built_in_kind(template: str, path: str, replicas: int, stateless: bool | None, awaits: str) -> None:
    manifest = Templates(one_set(template=template, count=2, replicas=3)).manifest(1, 1)
    assert (manifest.path, manifest.name, manifest.namespace) == (path, f"{template}-01", "turbokube-0001")
    assert (manifest.replicas, manifest.stateless, manifest.awaits) == (replicas, stateless, awaits)
    body = msgspec.json.decode(manifest.body)
    assert body["metadata"]["name"] == manifest.name
    assert body["metadata"]["labels"]["turbokube.io/run"] == "r"
    if awaits:
        pods = body if template == "pod" else body["spec"]["template"]
        assert pods["metadata"]["labels"] == {"app": manifest.name, "turbokube.io/run": "r"}
        assert pods["spec"]["tolerations"][0]["value"] == "0001"


def test_payloads_are_as_large_as_asked_and_the_seeds() -> None:
    bodies = [Templates(one_set(template="configmap", bytes=size)).manifest(0, 0).body for size in (0, 1, 1000, 1000)]
    payloads = [msgspec.json.decode(body)["data"]["payload"] for body in bodies]
    assert [len(payload) for payload in payloads] == [0, 1, 1000, 1000]
    assert payloads[2] == payloads[3]
    assert len(set(payloads[2])) > 32
    secret = msgspec.json.decode(Templates(one_set(template="secret", bytes=50)).manifest(0, 0).body)
    assert len(secret["stringData"]["payload"]) == 50


def test_a_service_selects_the_pods_of_the_set_that_vars_name() -> None:
    body = Templates(one_set(template="service", count=12, vars={"select": "web"})).manifest(0, 11).body
    assert msgspec.json.decode(body)["spec"]["selector"] == {"app": "web-0b"}
    with pytest.raises(LoadError, match="vars has name, which every template has already"):
        Templates(one_set(template="service", vars={"name": "x"}))


def test_sets_follow_each_other_in_a_namespace() -> None:
    sets = (ObjectSet(template="configmap", count=2), ObjectSet(template="service"), ObjectSet(template="pod", count=3))
    templates = Templates(Create(run="r", name="c", namespaces=1, objects=sets))
    assert templates.per_namespace == 6
    names = [templates.manifest(0, number).name for number in range(6)]
    assert names == ["configmap-00", "configmap-01", "service-00", "pod-00", "pod-01", "pod-02"]
    assert [make().name for make in templates.makers("service")] == ["service-00"]
    assert [make().name for make in templates.makers()] == names


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: geese.example.com}
spec:
  group: example.com
  scope: %s
  names: {plural: geese, singular: goose, kind: Goose}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
    - {name: v0, served: false, storage: false, schema: {openAPIV3Schema: {type: object}}}
"""
GOOSE = "{apiVersion: example.com/v1, kind: Goose, metadata: {name: '{{ name }}'}, spec: {size: {{ size }}}}"


def geese(scope: str, *, crd: bool = True) -> Templates:
    sets = [ObjectSet(template="./crd.yaml", source=CRD % scope)] if crd else []
    sets.append(ObjectSet(template="./goose.yaml", source=GOOSE, count=2, vars={"size": 7}))
    return Templates(Create(run="r", name="c", namespaces=2, objects=tuple(sets)))


def test_custom_resources_go_where_their_definition_says() -> None:
    templates = geese("Namespaced")
    (crd,) = templates.cluster()
    assert (crd.path, crd.namespace, crd.awaits) == (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "",
        "established",
    )
    assert resources.defined(msgspec.json.decode(crd.body)) == [Resource("example.com/v1", "Goose", "geese")]
    assert templates.per_namespace == 2
    goose = templates.manifest(1, 1)
    assert (goose.path, goose.all) == (
        "/apis/example.com/v1/namespaces/turbokube-0001/geese",
        "/apis/example.com/v1/geese",
    )
    body = msgspec.json.decode(goose.body)
    assert body["spec"] == {"size": 7}
    assert body["metadata"]["labels"] == {"turbokube.io/run": "r"}
    assert [make().name for make in templates.makers("goose")] == ["goose-00", "goose-01"] * 2
    unbound = geese("Cluster")
    assert [made.path for made in unbound.cluster()] == [crd.path, *["/apis/example.com/v1/geese"] * 2]
    assert [make() for make in unbound.makers()] == unbound.cluster()


class Discovery:
    """An API server that has been given the definition by somebody else."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def request(self, method: str, path: str, *_: Any, **__: Any) -> Response:
        self.asked.append(path)
        if path != "/apis/example.com/v1":
            return Response(404, b"{}")
        served = [("geese", "Goose", False), ("geese/status", "Goose", False)]
        resources = [
            {"name": name, "kind": kind, "namespaced": within, "verbs": ["get", "list"]}
            for name, kind, within in served
        ]
        return Response(200, msgspec.json.encode({"resources": resources}))


def test_unknown_kinds_are_discovered() -> None:
    server = Discovery()
    templates = geese("", crd=False)
    asyncio.run(templates.discover(server))  # type: ignore[arg-type]
    assert [made.path for made in templates.cluster()] == ["/apis/example.com/v1/geese"] * 2
    assert server.asked == ["/apis/example.com/v1"]
    asyncio.run(Templates(phase()).discover(server))  # type: ignore[arg-type]
    assert len(server.asked) == 1  # what is built in is known
    other = Templates(one_set(template="x.yaml", source=GOOSE.replace("Goose", "Gander"), vars={"size": 1}))
    with pytest.raises(LoadError, match="v1 Gander, which the API server does not serve"):
        asyncio.run(other.discover(server))  # type: ignore[arg-type]


def test_volumes_tell_stateless_from_stateful() -> None:
    def stateless(volume: str) -> bool | None:
        text = POD % ("{{ name }}", "x")
        source = text.replace("image: b}]", f"image: b}}], volumes: [{{name: v, {volume}}}]")
        return Templates(phase(template=source)).manifest(0, 0).stateless

    assert stateless("emptyDir: {}")
    assert stateless("secret: {secretName: x}")
    assert stateless("hostPath: {path: /x}") is False
