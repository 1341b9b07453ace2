"""The objects that are read or written as protobuf: of each, the fields that somebody here needs.

Reading gives what the JSON of the same object would have, under the same names: times as RFC 3339, quantities as text.
What a table lacks is skipped when read, and refused when written.
Field numbers: generated.proto of k8s.io/api and k8s.io/apimachinery 0.36.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from .protobuf import BYTES, VARINT, ProtobufError, field, find, read_varint, unwrap, varint, wrap

T = TypeVar("T")

_ONE, _MANY, _MAP, _INLINE = range(4)


class Kind(NamedTuple):
    """How a value is read from, and written to, the content of a field. What reads as None is left out."""

    wire: int
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


class Field(NamedTuple):
    number: int
    kind: Kind | Message
    shape: int


class Message:
    """A table of fields by their names in JSON. Those of an inlined message stand beside the others."""

    wire = BYTES

    def __init__(self, **table: Field) -> None:
        self._table = table
        self._by_number: dict[int, tuple[str, Callable[[Any], Any], int, int]] = {
            one.number: (name, one.kind.read, one.kind.wire, one.shape) for name, one in table.items()
        }
        self.names: set[str] = set()
        for name, one in table.items():
            self.names |= one.kind.names if one.shape == _INLINE and isinstance(one.kind, Message) else {name}

    def read(self, data: bytes) -> dict[str, Any]:
        """The fields of a message that the table knows. Raises ProtobufError."""
        found: dict[str, Any] = {}
        at, end, table = 0, len(data), self._by_number
        try:
            while at < end:
                tag = data[at]
                at += 1
                if tag >= 0x80:
                    tag, at = read_varint(data, at - 1)
                wire = tag & 7
                if wire > BYTES or wire == 1:
                    raise ProtobufError(f"wire type {wire}, which Kubernetes does not use")
                number = data[at]  # or the length of the content
                at += 1
                if number >= 0x80:
                    number, at = read_varint(data, at - 1)
                begin = at
                if wire == BYTES:
                    at += number
                    if at > end:
                        break
                known = table.get(tag >> 3)
                if known is None or known[2] != wire:
                    continue
                name, read, _, shape = known
                value = read(data[begin:at] if wire == BYTES else number)
                if value is None:
                    continue
                if shape == _ONE:
                    found[name] = value
                elif shape == _MANY:
                    found.setdefault(name, []).append(value)
                elif shape == _MAP:
                    found.setdefault(name, {})[value[0]] = value[1]
                else:
                    found.update(value)
        except IndexError:
            at = end + 1
        if at > end:
            raise ProtobufError("a message that ends in the middle of a field")
        return found

    def write(self, value: Mapping[str, Any]) -> bytes:
        """The message of an object's fields. Raises KeyError for one that the table lacks."""
        if unknown := set(value) - self.names:
            raise KeyError(f"no field {', '.join(sorted(unknown))}")
        out = []
        for name, (number, kind, shape) in self._table.items():
            if shape == _INLINE and isinstance(kind, Message):
                inlined = {key: value[key] for key in kind.names if key in value}
                given = [inlined] if inlined else []
            elif (single := value.get(name)) is None:
                continue
            else:
                given = single if shape == _MANY else list(single.items()) if shape == _MAP else [single]
            for one in given:
                written: Any = kind.write(one)
                out.append(field(number, written) if kind.wire == BYTES else varint(number << 3) + varint(written))
        return b"".join(out)


def decode(data: bytes, message: Message, type: type[T]) -> T:
    """An object, with or without its envelope, as the msgspec Struct that its JSON would be decoded to.

    Raises ProtobufError for what is no message, msgspec.ValidationError for one that does not fit.
    """
    return msgspec.convert(message.read(unwrap(data)), type)


def encode(api_version: str, kind: str, message: Message, value: Mapping[str, Any]) -> bytes:
    """A request's body of an object that is given as its JSON would be, less apiVersion and kind.

    Times may be given as UNIX seconds, too. Raises KeyError for a field that the table lacks.
    """
    return wrap(api_version, kind, message.write(value))


# kinds of values


@functools.lru_cache(maxsize=64)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _read_time(data: bytes) -> str | None:
    return f"{_second(read_varint(data, 1)[0])}Z" if data else None


def _read_micro_time(data: bytes) -> str | None:
    if not data:
        return None
    second, at = read_varint(data, 1)
    nanos = read_varint(data, at + 1)[0] if at < len(data) else 0
    return f"{_second(second)}.{nanos // 1000:06d}Z"


def _write_time(moment: str | float) -> bytes:
    seconds = datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment
    return b"\x08" + varint(int(seconds)) + b"\x10\x00"


def _write_micro_time(moment: str | float) -> bytes:
    micros = round((datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment) * 1e6)
    return b"\x08" + varint(micros // 1_000_000) + b"\x10" + varint(micros % 1_000_000 * 1000)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


TEXT = Kind(BYTES, bytes.decode, str.encode)
INT = Kind(VARINT, _signed, int)
BOOL = Kind(VARINT, bool, int)
TIME = Kind(BYTES, _read_time, _write_time)
MICRO_TIME = Kind(BYTES, _read_micro_time, _write_micro_time)
QUANTITY = Kind(BYTES, lambda data: find(data, 1).decode(), lambda text: field(1, text.encode()))


def one(number: int, kind: Kind | Message = TEXT) -> Field:
    return Field(number, kind, _ONE)


def many(number: int, kind: Kind | Message = TEXT) -> Field:
    return Field(number, kind, _MANY)


def inline(number: int, message: Message) -> Field:
    return Field(number, message, _INLINE)


def mapping(number: int, kind: Kind | Message = TEXT) -> Field:
    """A map from text; on the wire, each entry is a message of key and value."""

    def read(entry: bytes) -> tuple[str, Any]:
        return find(entry, 1).decode(), kind.read(find(entry, 2))

    def write(item: tuple[str, Any]) -> bytes:
        return field(1, item[0].encode()) + field(2, kind.write(item[1]))

    return Field(number, Kind(BYTES, read, write), _MAP)


# the objects

_NAMED = Message(name=one(1))

OWNER = Message(
    kind=one(1), name=one(3), uid=one(4), apiVersion=one(5), controller=one(6, BOOL), blockOwnerDeletion=one(7, BOOL)
)
META = Message(
    name=one(1),
    generateName=one(2),
    namespace=one(3),
    uid=one(5),
    resourceVersion=one(6),
    generation=one(7, INT),
    creationTimestamp=one(8, TIME),
    deletionTimestamp=one(9, TIME),
    deletionGracePeriodSeconds=one(10, INT),
    labels=mapping(11),
    annotations=mapping(12),
    ownerReferences=many(13, OWNER),
    finalizers=many(14),
)
DELETE_OPTIONS = Message(
    gracePeriodSeconds=one(1, INT), preconditions=one(2, Message(uid=one(1))), propagationPolicy=one(4)
)

# of a Pod, what a kubelet acts on
_CONFIG_MAP_OR_SECRET = Message(_ref=inline(1, _NAMED), optional=one(4, BOOL))
_ENV_FROM = Message(_ref=inline(1, _NAMED), optional=one(2, BOOL))
_KEY_REF = Message(_ref=inline(1, _NAMED), key=one(2), optional=one(3, BOOL))
_PROJECTION = Message(
    secret=one(1, _CONFIG_MAP_OR_SECRET),
    configMap=one(3, _CONFIG_MAP_OR_SECRET),
    serviceAccountToken=one(4, Message(audience=one(1), expirationSeconds=one(2, INT), path=one(3))),
)
_VOLUME_SOURCE = Message(
    secret=one(6, Message(secretName=one(1), optional=one(4, BOOL))),
    configMap=one(19, _CONFIG_MAP_OR_SECRET),
    projected=one(26, Message(sources=many(1, _PROJECTION))),
)
_RESOURCES = Message(limits=mapping(1, QUANTITY), requests=mapping(2, QUANTITY))
CONTAINER = Message(
    name=one(1),
    image=one(2),
    env=many(
        7,
        Message(
            name=one(1), valueFrom=one(3, Message(configMapKeyRef=one(3, _KEY_REF), secretKeyRef=one(4, _KEY_REF)))
        ),
    ),
    resources=one(8, _RESOURCES),
    imagePullPolicy=one(14),
    volumeMounts=many(9, Message(name=one(1), readOnly=one(2, BOOL), mountPath=one(3))),
    envFrom=many(19, Message(configMapRef=one(2, _ENV_FROM), secretRef=one(3, _ENV_FROM))),
    restartPolicy=one(24),
)
_TERMINATED = Message(exitCode=one(1, INT), reason=one(3), startedAt=one(5, TIME), finishedAt=one(6, TIME))
_CONTAINER_STATE = Message(
    waiting=one(1, Message(reason=one(1))),
    running=one(2, Message(startedAt=one(1, TIME))),
    terminated=one(3, _TERMINATED),
)
_CONTAINER_STATUS = Message(
    name=one(1),
    state=one(2, _CONTAINER_STATE),
    lastState=one(3, _CONTAINER_STATE),
    ready=one(4, BOOL),
    restartCount=one(5, INT),
    containerID=one(8),
    started=one(9, BOOL),
)
_CONDITION = Message(type=one(1), status=one(2), lastTransitionTime=one(4, TIME))
POD = Message(
    metadata=one(1, META),
    spec=one(
        2,
        Message(
            volumes=many(1, Message(name=one(1), _source=inline(2, _VOLUME_SOURCE))),
            containers=many(2, CONTAINER),
            restartPolicy=one(3),
            terminationGracePeriodSeconds=one(4, INT),
            activeDeadlineSeconds=one(5, INT),
            serviceAccountName=one(8),
            nodeName=one(10),
            hostNetwork=one(11, BOOL),
            imagePullSecrets=many(15, _NAMED),
            initContainers=many(20, CONTAINER),
        ),
    ),
    status=one(
        3,
        Message(
            phase=one(1),
            conditions=many(2, _CONDITION),
            podIP=one(6),
            startTime=one(7, TIME),
            containerStatuses=many(8, _CONTAINER_STATUS),
            initContainerStatuses=many(10, _CONTAINER_STATUS),
        ),
    ),
)

NODE = Message(
    metadata=one(1, META),
    spec=one(
        2,
        Message(
            podCIDR=one(1),
            providerID=one(3),
            unschedulable=one(4, BOOL),
            taints=many(5, Message(key=one(1), value=one(2), effect=one(3))),
            podCIDRs=many(7),
        ),
    ),
    status=one(
        3,
        Message(
            capacity=mapping(1, QUANTITY),
            allocatable=mapping(2, QUANTITY),
            conditions=many(
                4,
                Message(
                    type=one(1),
                    status=one(2),
                    lastHeartbeatTime=one(3, TIME),
                    lastTransitionTime=one(4, TIME),
                    reason=one(5),
                    message=one(6),
                ),
            ),
            addresses=many(5, Message(type=one(1), address=one(2))),
            daemonEndpoints=one(6, Message(kubeletEndpoint=one(1, Message(Port=one(1, INT))))),
            nodeInfo=one(
                7,
                Message(
                    machineID=one(1),
                    systemUUID=one(2),
                    bootID=one(3),
                    kernelVersion=one(4),
                    osImage=one(5),
                    containerRuntimeVersion=one(6),
                    kubeletVersion=one(7),
                    kubeProxyVersion=one(8),
                    operatingSystem=one(9),
                    architecture=one(10),
                    swap=one(11, Message(capacity=one(1, INT))),
                ),
            ),
            images=many(8, Message(names=many(1), sizeBytes=one(2, INT))),
            volumesInUse=many(9),
            runtimeHandlers=many(
                12,
                Message(
                    name=one(1),
                    features=one(2, Message(recursiveReadOnlyMounts=one(1, BOOL), userNamespaces=one(2, BOOL))),
                ),
            ),
            features=one(13, Message(supplementalGroupsPolicy=one(1, BOOL))),
            declaredFeatures=many(14),
        ),
    ),
)
CSI_NODE = Message(metadata=one(1, META), spec=one(2, Message(drivers=many(1, _NAMED))))

LEASE = Message(
    metadata=one(1, META),
    spec=one(
        2,
        Message(
            holderIdentity=one(1),
            leaseDurationSeconds=one(2, INT),
            acquireTime=one(3, MICRO_TIME),
            renewTime=one(4, MICRO_TIME),
            leaseTransitions=one(5, INT),
        ),
    ),
)

_REFERENCE = Message(
    kind=one(1), namespace=one(2), name=one(3), uid=one(4), apiVersion=one(5), resourceVersion=one(6), fieldPath=one(7)
)
_SOURCE = Message(component=one(1), host=one(2))
EVENT = Message(  # of v1
    metadata=one(1, META),
    involvedObject=one(2, _REFERENCE),
    reason=one(3),
    message=one(4),
    source=one(5, _SOURCE),
    firstTimestamp=one(6, TIME),
    lastTimestamp=one(7, TIME),
    count=one(8, INT),
    type=one(9),
    eventTime=one(10, MICRO_TIME),
    action=one(12),
    reportingComponent=one(14),
    reportingInstance=one(15),
)
EVENTS_EVENT = Message(  # of events.k8s.io/v1
    metadata=one(1, META),
    eventTime=one(2, MICRO_TIME),
    reportingController=one(4),
    reportingInstance=one(5),
    action=one(6),
    reason=one(7),
    regarding=one(8, _REFERENCE),
    note=one(10),
    type=one(11),
)
TOKEN_REQUEST = Message(
    metadata=one(1, META),
    spec=one(
        2,
        Message(
            audiences=many(1),
            boundObjectRef=one(3, Message(kind=one(1), apiVersion=one(2), name=one(3), uid=one(4))),
            expirationSeconds=one(4, INT),
        ),
    ),
    status=one(3, Message(token=one(1), expirationTimestamp=one(2, TIME))),
)
