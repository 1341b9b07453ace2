from __future__ import annotations

from typing import Any

import msgspec
import pytest

from turbokube.load.phase import LoadError
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
