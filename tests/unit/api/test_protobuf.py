"""Kubernetes' protobuf: bytes that a kube-apiserver 1.36 sent, and what must not be taken for a message."""

from __future__ import annotations

import base64

import msgspec
import pytest

from turbokube.api import messages, protobuf

# a Lease of 2026-11-22, written with labels {"x": "y"} and a renewTime of 1750000000.25; as an answer, and in a watch
LEASE = base64.b64decode(
    "azhzAAofChZjb29yZGluYXRpb24uazhzLmlvL3YxEgVMZWFzZRKsAgqSAgoBYRIAGgdkZWZhdWx0IgAqJGE2YjVmYTdiLWQxMTUtNGQ5NC04MD"
    "VmLWIwYTg2ZGFkYjc1MTIEMTc0NTgAQggI46eL2AYQAFoGCgF4EgF5igG+AQoHa3ViZWxldBIGVXBkYXRlGhZjb29yZGluYXRpb24uazhzLmlv"
    "L3YxIggI46eL2AYQADIIRmllbGRzVjE6fQp7eyJmOm1ldGFkYXRhIjp7ImY6bGFiZWxzIjp7Ii4iOnt9LCJmOngiOnt9fX0sImY6c3BlYyI6ey"
    "JmOmhvbGRlcklkZW50aXR5Ijp7fSwiZjpsZWFzZUR1cmF0aW9uU2Vjb25kcyI6e30sImY6cmVuZXdUaW1lIjp7fX19QgASFQoEcGItMBAoIgsI"
    "gMO7wgYQgOWadxoAIgA="
)
LIST = (
    bytes.fromhex("6b3873000a230a16636f6f7264696e6174696f6e2e6b38732e696f2f763112094c656173654c69737412")
    + b"\xbb\x02\x0a\x0a\x0a\x00\x12\x041746\x1a\x00\x12\xac\x02"
    + protobuf.unwrap(LEASE)
    + b"\x1a\x00\x22\x00"
)
INITIAL_END, BOOKMARK = (
    base64.b64decode(text)
    for text in (
        "AAAAdAoIQk9PS01BUksSaApmazhzAAofChZjb29yZGluYXRpb24uazhzLmlvL3YxEgVMZWFzZRI7CjcKABIAGgAiACoAMgQxNzQ2OABCAGIhCh"
        "lrOHMuaW8vaW5pdGlhbC1ldmVudHMtZW5kEgR0cnVlEgAaACIA",
        "AAAAUQoIQk9PS01BUksSRQpDazhzAAofChZjb29yZGluYXRpb24uazhzLmlvL3YxEgVMZWFzZRIYChQKABIAGgAiACoAMgQxNzQ3OABCABIAGg"
        "AiAA==",
    )
)
GONE = base64.b64decode(
    "AAAAZAoFRVJST1ISWwpZazhzAAoMCgJ2MRIGU3RhdHVzEkEKBgoAEgAaABIHRmFpbHVyZRoidG9vIG9sZCByZXNvdXJjZSB2ZXJzaW9uOiAxIC"
    "gxNjMxKSIHRXhwaXJlZDCaAxoAIgA="
)


class Meta(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str = ""
    generate_name: str = "?"
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}


class Spec(msgspec.Struct, rename="camel"):
    holder_identity: str
    lease_duration_seconds: int
    renew_time: str


class Lease(msgspec.Struct):
    metadata: Meta
    spec: Spec


def test_a_watch_is_cut_into_events_however_it_arrives():
    data, rest, seen = INITIAL_END + BOOKMARK + GONE, b"", []
    for byte in data:
        found, rest = protobuf.frames(rest + bytes((byte,)))
        seen += [protobuf.event(frame) for frame in found]
    assert rest == b""
    assert [kind for kind, _ in seen] == ["BOOKMARK", "BOOKMARK", "ERROR"]
    assert [protobuf.initial_events_end(thing) for _, thing in seen] == [True, False, False]
    assert [protobuf.resource_version(thing) for _, thing in seen[:2]] == [b"1746", b"1747"]
    assert protobuf.status(seen[2][1]) == protobuf.Status(410, "Expired", "too old resource version: 1 (1631)")
    assert protobuf.frames(data) == ([INITIAL_END[4:], BOOKMARK[4:], GONE[4:]], b"")


def test_a_list_has_its_version_and_its_objects():
    assert protobuf.items(LIST) == ("1746", [protobuf.unwrap(LEASE)])
    assert protobuf.resource_version(LIST) == b"1746"
    assert protobuf.continue_token(LIST) == ""
    assert protobuf.resource_version(LEASE) == protobuf.resource_version(protobuf.unwrap(LEASE)) == b"1745"


def test_an_object_is_what_its_json_would_be():
    lease = messages.decode(LEASE, messages.LEASE, Lease)
    assert lease == Lease(
        Meta("a", "1745", "", "2026-11-22T11:37:07Z", "", {"x": "y"}),
        Spec("pb-0", 40, "2025-06-15T15:06:40.250000Z"),
    )


def test_what_is_written_is_what_the_server_would_read():
    value = {
        "metadata": {"name": "a", "labels": {"x": "y", "": ""}, "finalizers": ["f", "g"], "generation": 300},
        "spec": {"podCIDR": "10.0.0.0/24", "unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "capacity": {"cpu": "2", "memory": "64Gi"},
            "conditions": [{"type": "Ready", "lastHeartbeatTime": "2025-06-15T15:06:40Z"}],
            "images": [{"names": ["one", "two"], "sizeBytes": 5 << 32}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": -1}},
        },
    }
    body = messages.encode("v1", "Node", messages.NODE, value)
    assert body.startswith(b"k8s\0\x0a\x0a\x0a\x02v1\x12\x04Node\x12")
    assert messages.NODE.read(protobuf.unwrap(body)) == value
    when = messages.encode("v1", "Event", messages.EVENT, {"firstTimestamp": 1750000000.9, "eventTime": 1750000000.25})
    assert messages.EVENT.read(protobuf.unwrap(when)) == {
        "firstTimestamp": "2025-06-15T15:06:40Z",
        "eventTime": "2025-06-15T15:06:40.250000Z",
    }


def test_an_inlined_message_stands_beside_the_others():
    volume = {"name": "v", "configMap": {"name": "c", "optional": True}}
    spec = {"spec": {"volumes": [volume, {"name": "w"}], "imagePullSecrets": [{"name": "s"}]}}
    raw = messages.POD.write(spec)
    assert messages.POD.read(raw) == spec
    source = protobuf.field(19, protobuf.field(1, protobuf.field(1, b"c")) + b"\x20\x01")
    assert protobuf.field(1, protobuf.field(1, b"v") + protobuf.field(2, source)) in raw


def test_a_field_that_is_not_known_is_refused_and_not_forgotten():
    with pytest.raises(KeyError, match="holderIdentitty"):
        messages.encode("v1", "Lease", messages.LEASE, {"spec": {"holderIdentitty": "x"}})


def test_a_renewal_changes_the_time_and_nothing_else():
    now = 1750000010.123456
    body = protobuf.renewed(LEASE, now)
    before, after = (messages.LEASE.read(protobuf.unwrap(data)) for data in (LEASE, body))
    assert after["spec"].pop("renewTime") == "2025-06-15T15:06:50.123456Z"
    del before["spec"]["renewTime"]
    assert after == before
    assert b'{"f:metadata":{"f:labels":{".":{},"f:x":{}}}' in body
    assert protobuf.renewed(body, 1750000000.25) == LEASE
    assert protobuf.renewed(protobuf.renewed(LEASE, 0), now) == body


@pytest.mark.parametrize("whole", [LEASE, LIST])
def test_half_a_message_is_no_message(whole):
    raw = protobuf.unwrap(whole)
    readers = [
        lambda data: messages.LEASE.read(data),
        lambda data: protobuf.items(data),
        lambda data: protobuf.find(data, 99),
        lambda data: list(protobuf.fields(data)),
    ]
    boundaries = {0, len(raw)} | {raw.index(content) + len(content) for _, _, content in protobuf.fields(raw)}
    for cut in range(len(raw)):
        if cut not in boundaries:
            for read in readers:
                with pytest.raises(protobuf.ProtobufError):
                    read(raw[:cut])
