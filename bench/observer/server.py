"""An API server that knows one thing: how a great many pods come to run, as a watch tells it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from turbokube.api import pki

STEPS = 5  # of a pod: it comes to be, is bound, starts, runs, is ready
REPLICAS, DEPLOYMENTS = 8, 32  # of a deployment, of a namespace: the unit of load
_WAVE = (
    REPLICAS * DEPLOYMENTS * 4
)  # pods that are on their way together: four namespaces, as turbokube_concurrency says
_TOGETHER = 32  # events in one write
_FIRST, _STEP = 0x6A09E667F3BCC908B2FB1366EA957D3E, 0x9E3779B97F4A7C15F39CC0605CEDC835  # makes uids that look random


def events(pods: int) -> Iterator[bytes]:
    """Every line of the watch, without its newline: steps of the pods of a wave in turn."""
    version = 0
    for first in range(0, pods, _WAVE):
        wave = [_words(number) for number in range(first, min(first + _WAVE, pods))]
        for line in _LINES:
            for words in wave:
                version += 1
                yield (line % {**words, "version": version}).encode()


def space_of(deployment: int) -> tuple[str, str]:
    """Namespace and name of a deployment by its number in the run."""
    space, index = divmod(deployment, DEPLOYMENTS)
    return f"turbokube-{space:04}", f"turbokube-{index:02}"


def _words(number: int) -> dict[str, str]:
    deployment, replica = divmod(number, REPLICAS)
    space, owner = space_of(deployment)
    return {
        "uid": str(uuid.UUID(int=(_FIRST + number * _STEP) % 2**128)),
        "namespace": space,
        "owner": owner,
        "name": f"{owner}-7c9d8f6b5d-{number % 0xFFFFF:05x}",
        "node": f"vnode-{space[-4:]}{replica}",
        "ip": f"10.{128 + (number >> 16)}.{(number >> 8) % 256}.{number % 256}",
    }


def serve(port: int, pods: int, rate: float, folder: Path) -> None:
    """Until the process is ended. `rate`: events per second, 0: as they are taken."""
    uvloop.run(_serve(port, pods, rate, folder))


async def _serve(port: int, pods: int, rate: float, folder: Path) -> None:
    key = pki.new_key()
    pki.write(folder / "server.pem", key, pki.self_signed(key, "localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                if "watch=1" not in path:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_EMPTY), _EMPTY))
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                if path.startswith("/api/v1/pods"):
                    await _send(writer, pods, rate)
                await asyncio.Event().wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


async def _send(writer: asyncio.StreamWriter, pods: int, rate: float) -> None:
    batch: list[bytes] = []
    began, sent = time.monotonic(), 0
    for line in events(pods):
        batch.append(b"%x\r\n%b\n\r\n" % (len(line) + 1, line))
        if len(batch) < _TOGETHER:
            continue
        writer.writelines(batch)
        sent += len(batch)
        batch.clear()
        await writer.drain()
        if rate and (early := began + sent / rate - time.monotonic()) > 0:
            await asyncio.sleep(early)
    writer.writelines(batch)


# a pod of a deployment, as kubelet and API server write it


def _pod(step: int) -> dict[str, Any]:
    spec = {
        "volumes": [{"name": "kube-api-access-x7k2p", "projected": {"sources": _SOURCES, "defaultMode": 420}}],
        "containers": [_CONTAINER],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        **({"nodeName": "%(node)s"} if step > 0 else {}),
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": "turbokube.io/namespace", "operator": "Equal", "value": "%(namespace)s", "effect": "NoSchedule"},
            *(
                {
                    "key": f"node.kubernetes.io/{key}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for key in ("not-ready", "unreachable")
            ),
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "%(name)s",
            "generateName": "%(owner)s-7c9d8f6b5d-",
            "namespace": "%(namespace)s",
            "uid": "%(uid)s",
            "resourceVersion": "%(version)d",
            "generation": 1,
            "creationTimestamp": _TIME,
            "labels": {"app": "%(owner)s", "pod-template-hash": "7c9d8f6b5d", "turbokube.io/run": "observer"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "%(owner)s-7c9d8f6b5d",
                    "uid": "5d2f0b64-6c1e-4d8f-9e4f-0f4f5b7ad1c2",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": _MANAGED[: 1 if step < 2 else 2],
        },
        "spec": spec,
        "status": _status(step),
    }


def _status(step: int) -> dict[str, Any]:
    if step == 0:
        return {"phase": "Pending", "qosClass": "Burstable"}
    true = {"PodScheduled"}
    if step > 1:
        true |= {"Initialized"}
    if step > 2:
        true |= {"PodReadyToStartContainers"}
    if step > 3:
        true |= {"Ready", "ContainersReady"}
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    conditions = [
        {
            "type": kind,
            "observedGeneration": 1,
            "status": str(kind in true),
            "lastProbeTime": None,
            "lastTransitionTime": _TIME,
        }
        for kind in (kinds if step > 1 else ("PodScheduled",))
    ]
    found: dict[str, Any] = {"observedGeneration": 1, "phase": "Running" if step > 2 else "Pending"}
    found["conditions"] = conditions
    if step < 2:
        return {**found, "qosClass": "Burstable"}
    state = {"running": {"startedAt": _TIME}} if step > 2 else {"waiting": {"reason": "ContainerCreating"}}
    container = {
        "name": "c",
        "state": state,
        "lastState": {},
        "ready": step > 3,
        "restartCount": 0,
        "image": "registry.k8s.io/pause:3.10",
        "imageID": "registry.k8s.io/pause@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a",
        "containerID": "containerd://5f0a3c1b9d3c4a1d8f5b7e2c9a6d4f1e0b3c5a7d9e2f4b6c8a1d3e5f7b9c2a4d",
        "started": step > 2,
        "resources": {"requests": {"memory": "32Mi"}},
    }
    ips = {"podIP": "%(ip)s", "podIPs": [{"ip": "%(ip)s"}]} if step > 2 else {}
    found |= {"hostIP": "172.16.0.9", "hostIPs": [{"ip": "172.16.0.9"}], **ips, "startTime": _TIME}
    return {**found, "containerStatuses": [container], "qosClass": "Burstable"}


def _fields(*paths: str) -> dict[str, Any]:
    """What managedFields says of so many fields."""
    found: dict[str, Any] = {}
    for path in paths:
        at = found
        for part in path.split("/"):
            at = at.setdefault(f"f:{part}" if part[:2] != "k:" else part, {})
    return found


_TIME = "2026-01-01T12:00:00Z"
_EMPTY = b'{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}'
_SOURCES = [
    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {
        "downwardAPI": {
            "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
        }
    },
]
_CONTAINER = {
    "name": "c",
    "image": "registry.k8s.io/pause:3.10",
    "resources": {"requests": {"memory": "32Mi"}},
    "volumeMounts": [
        {
            "name": "kube-api-access-x7k2p",
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
    ],
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
_MANAGED = [
    {
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": "v1",
        "time": _TIME,
        "fieldsType": "FieldsV1",
        "fieldsV1": _fields(
            "metadata/generateName",
            "metadata/labels/app",
            "metadata/labels/pod-template-hash",
            "metadata/labels/turbokube.io~1run",
            'metadata/ownerReferences/k:{"uid":"5d2f0b64-6c1e-4d8f-9e4f-0f4f5b7ad1c2"}',
            *(
                f'spec/containers/k:{{"name":"c"}}/{name}'
                for name in (
                    *("image", "imagePullPolicy", "name", "resources/requests/memory"),
                    *("terminationMessagePath", "terminationMessagePolicy"),
                )
            ),
            *(
                f"spec/{name}"
                for name in (
                    *("dnsPolicy", "enableServiceLinks", "restartPolicy", "schedulerName"),
                    *("securityContext", "terminationGracePeriodSeconds", "tolerations"),
                )
            ),
        ),
    },
    {
        "manager": "kubelet",
        "operation": "Update",
        "apiVersion": "v1",
        "time": _TIME,
        "fieldsType": "FieldsV1",
        "fieldsV1": _fields(
            *(
                f'status/conditions/k:{{"type":"{kind}"}}/{name}'
                for kind in ("ContainersReady", "Initialized", "PodReadyToStartContainers", "Ready")
                for name in ("lastProbeTime", "lastTransitionTime", "observedGeneration", "status", "type")
            ),
            *(f"status/{name}" for name in ("containerStatuses", "hostIP", "hostIPs", "phase", "podIP", "startTime")),
        ),
        "subresource": "status",
    },
]


def _line(step: int) -> str:
    event = {"type": "MODIFIED" if step else "ADDED", "object": _pod(step)}
    return json.dumps(event, separators=(",", ":"))


_LINES = [_line(step) for step in range(STEPS)]
