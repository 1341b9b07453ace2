"""Kubernetes' protobuf: the wire format, the envelope of an object, the frames of a watch.

Read here is only what answers and watches are asked for at every turn; objects are api/messages.py's.
Field numbers: generated.proto of k8s.io/apimachinery 0.36.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

MAGIC = b"k8s\0"
VARINT, BYTES = 0, 2  # wire types, beside 1 (eight bytes) and 5 (four)


_SMALL = [bytes((value,)) for value in range(0x80)]


class ProtobufError(ValueError):
    """Bytes that are no message."""


class Status(msgspec.Struct):
    """A refusal. `code` is HTTP's."""

    code: int = 0
    reason: str = ""
    message: str = ""


# the wire format


def varint(value: int) -> bytes:
    """A number; a negative one as 64 bits of two's complement."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises IndexError where the data ends before."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def field(number: int, content: bytes) -> bytes:
    """A field that is text, bytes or a message."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def fields(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, value and content of each field: a number has a value, all else has content. Raises ProtobufError."""
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = (data[at], at + 1) if data[at] < 0x80 else read_varint(data, at)
            wire = tag & 7
            if wire == BYTES:
                size, at = (data[at], at + 1) if data[at] < 0x80 else read_varint(data, at)
                yield tag >> 3, 0, data[at : at + size]
                at += size
            elif wire == VARINT:
                value, at = read_varint(data, at)
                yield tag >> 3, value, b""
            else:
                size = {1: 8, 5: 4}[wire]
                yield tag >> 3, 0, data[at : at + size]
                at += size
    except (IndexError, KeyError):
        at = end + 1
    if at > end:
        raise ProtobufError("bytes that are no protobuf message")


def span(data: bytes, number: int, at: int, end: int) -> tuple[int, int, int]:
    """Where in the message from `at` to `end` the first field of that number begins, and its content begins and ends.

    All three are `end` when there is none. Raises ProtobufError.
    """
    try:
        while at < end:
            begin, tag = at, data[at]
            at += 1
            if tag >= 0x80:
                tag, at = read_varint(data, begin)
            size = data[at]  # or the value of a number
            at += 1
            if size >= 0x80:
                size, at = read_varint(data, at - 1)
            wire = tag & 7
            if wire == BYTES:
                at += size
                if tag >> 3 == number and at <= end:
                    return begin, at - size, at
            elif wire != VARINT:
                raise ProtobufError(f"wire type {wire}, which Kubernetes does not use")
    except IndexError:
        at = end + 1
    if at > end:
        raise ProtobufError("a message that ends in the middle of a field")
    return end, end, end


def find(data: bytes, number: int) -> bytes:
    """The content of the first field of that number; b"" when there is none. Raises ProtobufError."""
    _, begin, end = span(data, number, 0, len(data))
    return data[begin:end]


# the envelope, runtime.Unknown


def unwrap(data: bytes) -> bytes:
    """The object in an envelope; what has no envelope is the object."""
    if not data.startswith(MAGIC):
        return data
    _, begin, end = span(data, 2, len(MAGIC), len(data))
    return data[begin:end]


def wrap(api_version: str, kind: str, raw: bytes) -> bytes:
    """An object in its envelope, as the bodies of requests have it."""
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    return MAGIC + field(1, type_meta) + field(2, raw) + b"\x1a\x00\x22\x00"  # Go writes texts that are empty, too


# watches and lists


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The frames of a watch that are whole, and the rest."""
    found, at = [], 0
    while len(data) - at >= 4:
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        found.append(data[at + 4 : end])
        at = end
    return found, data[at:]


def event(frame: bytes) -> tuple[str, bytes]:
    """Type and object of a watch's frame. In an ERROR the object is a Status."""
    _, begin, end = span(frame, 2, 0, len(frame))
    _, begin, end = span(frame, 1, begin, end)  # runtime.RawExtension
    _, begin, end = span(frame, 2, begin + len(MAGIC), end)
    return find(frame, 1).decode(), frame[begin:end]


def items(data: bytes) -> tuple[str, list[bytes]]:
    """A list's resourceVersion, and its objects."""
    raw = unwrap(data)
    return resource_version(raw).decode(), [content for number, _, content in fields(raw) if number == 2]


def continue_token(data: bytes) -> str:
    """With what a list that is not whole goes on; "" when it is."""
    return find(find(unwrap(data), 1), 3).decode()


def resource_version(data: bytes) -> bytes:
    """The resourceVersion of an object or a list, with or without its envelope."""
    at, end = 0, len(data)
    if data.startswith(MAGIC):
        _, at, end = span(data, 2, len(MAGIC), end)
    _, at, end = span(data, 1, at, end)
    _, begin, stop = span(data, 6, at, end)
    if begin == stop:  # a list's is field 2, where an object has its generateName
        _, begin, stop = span(data, 2, at, end)
    return data[begin:stop]


def initial_events_end(data: bytes) -> bool:
    """Whether a BOOKMARK ends the initial events of a watch that asked for them."""
    return b"k8s.io/initial-events-end" in data


def status(data: bytes) -> Status:
    """A Status, with or without its envelope."""
    known = {number: (value, content) for number, value, content in fields(unwrap(data))}
    nothing = 0, b""
    return Status(known.get(6, nothing)[0], known.get(4, nothing)[1].decode(), known.get(3, nothing)[1].decode())


def renewed(lease: bytes, now: float) -> bytes:
    """The body that renews a Lease: all that the server last answered with, but renewTime is `now` (UNIX seconds)."""
    raw_at, raw, raw_end = span(lease, 2, len(MAGIC), len(lease))
    spec_at, spec, spec_end = span(lease, 2, raw, raw_end)
    time_at, _, time_end = span(lease, 4, spec, spec_end)
    moment = b"\x08" + varint(int(now)) + b"\x10" + varint(int(now % 1 * 1e6) * 1000)
    spec_now = field(2, lease[spec:time_at] + field(4, moment) + lease[time_end:spec_end])
    return lease[:raw_at] + field(2, lease[raw:spec_at] + spec_now + lease[spec_end:raw_end]) + lease[raw_end:]
