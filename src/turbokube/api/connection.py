"""One HTTP/2 connection: a TLS socket, its frames (RFC 9113, the client's side) and the streams on it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from typing import Protocol

from . import hpack
from .transport import Unreachable

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_HEADERS = 1, 2, 3, 4, 6
_REFUSED_STREAM, _CANCEL = 7, 8

_ERRORS = {
    0: "NO_ERROR",
    1: "PROTOCOL_ERROR",
    2: "INTERNAL_ERROR",
    3: "FLOW_CONTROL_ERROR",
    5: "STREAM_CLOSED",
    7: "REFUSED_STREAM",
    8: "CANCEL",
    11: "ENHANCE_YOUR_CALM",
}

_FRAME = 16384  # the largest payload of a frame: what every peer takes, and all that we announce to take
_DEFAULT_WINDOW = 65535
_MAX_ID = 2**31 - 1

# Go's client (golang.org/x/net/http2, transport.go) announces these, and so does every kubelet
_STREAM_WINDOW = 4 << 20  # bytes that a stream may be behind its reader
_CONNECTION_WINDOW = 1 << 30
_HEADER_LIST = 10 << 20
_FIRST_MAX_STREAMS = 100  # of a server that has not said its own yet

# client-go's (k8s.io/apimachinery/pkg/util/net/http.go): a PING after so many silent seconds, so many for its answer
_READ_IDLE, _PING_TIMEOUT = 30.0, 15.0

_STATUS_200 = b"\x88"  # nearly every answer begins so
_CLOSED = "connection closed by the server"

_head = struct.Struct(">HBBBI")  # of a frame: length (high, low), type, flags, stream
_setting = struct.Struct(">HI")

# One for all connections: between two callbacks of the loop nothing is left in it
_BUFFER = memoryview(bytearray(2 * (9 + _FRAME)))


class Listener(Protocol):
    """Who hears of a stream. Called by the loop, so it neither blocks nor raises."""

    def head(self, status: int, retry_after: float) -> None:
        """The answer begins; `retry_after` in seconds, 0 when not given. The data of 300 and above is an error's."""

    def data(self, chunk: bytes) -> None:
        """Some bytes, cut wherever the network cut them."""

    def ended(self, why: str) -> None:
        """Nothing follows. "": the server ended it; else why it broke. Not called after `cancel`."""


class Stream:
    """A request under way: what `open` gives and `cancel` takes."""

    __slots__ = ("again", "connection", "held", "listener", "number", "owed", "sent")

    def __init__(self, connection: Connection | None, listener: Listener) -> None:
        self.connection = connection  # None: it has ended
        self.listener = listener
        self.number = 0
        self.owed = 0  # bytes received for which the server has not got new room yet
        self.held = False  # room is given by the reader, as it reads
        self.sent = True  # False: the server has certainly not acted on it
        self.again = False  # it was lost in a way that a new connection mends


class Owner(Protocol):
    """Who has a connection: api.http2.Http2."""

    loop: asyncio.AbstractEventLoop

    async def connect(self) -> ssl.SSLSocket:
        """A socket that has agreed on HTTP/2. Raises Unreachable."""
        ...

    def up(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection:
    """One socket and its streams. From its making on it takes requests, which leave once it is up."""

    __slots__ = (
        "_block",
        "_blocked",
        "_early",
        "_heard",
        "_max_streams",
        "_next",
        "_out",
        "_owed",
        "_owner",
        "_pinged",
        "_rest",
        "_room",
        "_stream_room",
        "_task",
        "_tls",
        "_used",
        "_writing",
        "leaving",
        "streams",
    )

    def __init__(self, owner: Owner) -> None:
        self.streams: dict[int, Stream] = {}
        self.leaving = False  # it takes no new streams
        self._owner = owner
        self._tls: ssl.SSLSocket | None = None
        self._used = False  # it has answered before
        self._heard = 0.0  # loop time of the last bytes from the server
        self._pinged = 0.0  # loop time of a PING that is not answered
        self._early: dict[int, tuple[bytes, bytes]] = {}  # headers and bodies from before it was up
        self._out = b""  # what waits to be written
        self._writing = False  # the loop tells when more can be
        self._rest = b""  # a frame that has not come whole
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and headers that CONTINUATIONs go on with
        self._next = 1
        self._owed = 0  # as Stream.owed, of all streams
        self._room = _DEFAULT_WINDOW  # bytes of bodies that the server takes now
        self._stream_room = _DEFAULT_WINDOW  # the same, of each new stream
        self._blocked: dict[
            int, tuple[memoryview, int]
        ] = {}  # bodies that found no room: what is left, the stream's room
        self._max_streams = _FIRST_MAX_STREAMS
        self._task: asyncio.Task[None] | None = owner.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            self._tls = await self._owner.connect()
        except Unreachable as error:
            self._task = None
            self.lose(str(error), sent=False)
            return
        self._task = None
        self._heard = self._owner.loop.time()
        self._owner.loop.add_reader(self._tls, self._readable)
        self._owner.up(self)
        self._write(_HELLO)
        for number, (block, body) in self._early.items():
            self._send(number, block, body)
        self._early = {}

    @property
    def is_up(self) -> bool:
        return self._tls is not None

    # requests

    def has_room(self) -> bool:
        return not self.leaving and len(self.streams) < self._max_streams

    def start(self, block: bytes, body: bytes, listener: Listener) -> Stream:
        """Send a request; `block` is its headers."""
        stream = Stream(self, listener)
        number = stream.number = self._next
        self._next = number + 2
        self.leaving = self.leaving or number + 2 > _MAX_ID
        self.streams[number] = stream
        if self._tls is None:
            self._early[number] = block, body
        else:
            self._send(number, block, body)
        return stream

    def _send(self, number: int, block: bytes, body: bytes) -> None:
        if not body:
            self._write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, number, block))
        elif len(body) <= self._room and len(body) <= self._stream_room:
            self._room -= len(body)
            self._write(_frame(_HEADERS, _END_HEADERS, number, block) + _body(_END_STREAM, number, body))
        else:
            self._write(_frame(_HEADERS, _END_HEADERS, number, block))
            self._blocked[number] = memoryview(body), self._stream_room
            self._unblock(number)

    def cancel(self, stream: Stream) -> None:
        if self.streams.pop(stream.number, None) is not None:
            stream.connection = None
            self._blocked.pop(stream.number, None)
            if self._early.pop(stream.number, None) is None:
                self._write(_frame(_RST_STREAM, 0, stream.number, _CANCEL.to_bytes(4, "big")))
            self._done()

    def give_room(self, stream: Stream) -> None:
        """Let the server send what the reader of a held stream has read."""
        if stream.owed >= _STREAM_WINDOW // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, stream.number, stream.owed.to_bytes(4, "big")))
            stream.owed = 0

    def check(self, now: float, spare: bool) -> None:
        """Ask a server that has long been silent whether it is there; give it up when it does not answer.

        `now` is the loop's time; a `spare` connection is one of several, and closed when nothing uses it.
        """
        if self._pinged:
            if now - self._pinged > _PING_TIMEOUT:
                self.lose("no answer to a ping")
        elif now - self._heard > _READ_IDLE:
            if spare and not self.streams:
                self.lose("idle")
                return
            self._pinged = now
            self._write(_frame(_PING, 0, 0, bytes(8)))

    def lose(self, why: str, *, sent: bool = True, again: bool = False) -> None:
        """The end of the connection, and of every stream on it."""
        self.leaving = True
        self._owner.lost(self)
        if self._task is not None:
            self._task.cancel()
            self._task, sent = None, False
        if self._tls is not None:
            self._owner.loop.remove_reader(self._tls)
            self._owner.loop.remove_writer(self._tls)
            self._tls.close()
            self._tls = None
        while self.streams:  # who hears of it may cancel others
            self._end(next(iter(self.streams.values())), why, sent=sent, again=again)

    # the socket

    def _write(self, data: bytes) -> None:
        if self._tls is None:
            return
        if self._out:
            self._out += data
            return
        try:
            sent = self._tls.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:  # not from here: the caller has not got its stream yet
            self._owner.loop.call_soon(self._broke, error)
            return
        if sent < len(data):
            self._out = data[sent:]
            self._flush()

    def _flush(self) -> None:
        """Write what waits, as far as the socket takes it; the rest when it takes more."""
        if self._tls is None:
            return
        try:
            while self._out:
                self._out = self._out[self._tls.send(self._out) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._broke(error)
            return
        if bool(self._out) != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._owner.loop.add_writer(self._tls, self._flush)
            else:
                self._owner.loop.remove_writer(self._tls)

    def _broke(self, error: OSError) -> None:
        closed = isinstance(error, (ConnectionError, ssl.SSLEOFError))
        self.lose(_CLOSED if closed else reason(error), again=closed and self._used)

    def _readable(self) -> None:
        """One TLS record; the loop calls again when there is more, since nothing is read ahead."""
        assert self._tls is not None
        kept = len(self._rest)
        try:
            if kept:
                _BUFFER[:kept] = self._rest
                count = self._tls.recv_into(_BUFFER[kept:])
            else:
                count = self._tls.recv_into(_BUFFER)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._broke(error)
            return
        if not count:
            self.lose(_CLOSED, again=self._used)
            return
        self._heard, self._pinged = self._owner.loop.time(), 0.0
        try:
            self._feed(kept + count)
        except hpack.HeaderError as error:
            self.lose(f"not HTTP/2: {error}")
        except BaseException as error:  # a listener's: what came behind it in the same frame is lost
            self.lose(f"{type(error).__name__} in a listener")
            raise

    def _feed(self, end: int) -> None:
        at = 0
        while end - at >= 9:
            high, low, kind, flags, number = _head.unpack_from(_BUFFER, at)
            length = high << 8 | low
            if length > _FRAME:
                self.lose("a frame larger than allowed")
                return
            if end - at - 9 < length:
                break
            start, at = at + 9, at + 9 + length
            self._receive(kind, flags, number & _MAX_ID, bytes(_BUFFER[start:at]))
            if self._tls is None:  # whoever heard of it closed us
                return
        self._rest = bytes(_BUFFER[at:end]) if at < end else b""

    # frames

    def _receive(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._data(flags, number, payload)
        elif kind == _HEADERS:
            block = _unpadded(payload) if flags & _PADDED else payload
            self._headers(flags, number, block[5:] if flags & _PRIORITY else block)
        elif kind == _CONTINUATION and self._block is not None:
            number, first, block = self._block
            self._headers(first | flags, number, block + payload)
        elif kind == _WINDOW_UPDATE:
            self._widen(number, int.from_bytes(payload, "big") & _MAX_ID)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _RST_STREAM and (stream := self.streams.get(number)) is not None:
            code = int.from_bytes(payload, "big")
            refused = code == _REFUSED_STREAM
            self._end(stream, f"stream reset by the server: {_error(code)}", sent=not refused, again=refused)
            self._done()
        elif kind == _GOAWAY:
            self._goaway(int.from_bytes(payload[:4], "big") & _MAX_ID, int.from_bytes(payload[4:8], "big"))

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        self._owed += length
        if self._owed >= _CONNECTION_WINDOW // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, self._owed.to_bytes(4, "big")))
            self._owed = 0
        if (stream := self.streams.get(number)) is None:
            return  # cancelled
        if flags & _PADDED:
            payload = _unpadded(payload)
        stream.owed += length
        if stream.owed >= _STREAM_WINDOW // 2 and not stream.held and not flags & _END_STREAM:
            self.give_room(stream)
        if payload:
            stream.listener.data(payload)
        if flags & _END_STREAM:
            self._end(stream, "")
            self._done()

    def _headers(self, flags: int, number: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            if len(block) > _HEADER_LIST:
                raise hpack.HeaderError("more headers than allowed")
            self._block = number, flags, block
            return
        self._block = None
        if (stream := self.streams.get(number)) is None:
            return
        status, retry_after = _answer(block)
        if status >= 200:  # else an interim answer; 0: trailers
            self._used = True
            stream.listener.head(status, retry_after)
        if flags & _END_STREAM and number in self.streams:
            self._end(stream, "")
            self._done()

    def _settings(self, payload: bytes) -> None:
        for name, value in _setting.iter_unpack(payload[: len(payload) // 6 * 6]):
            if name == _MAX_STREAMS:
                self._max_streams = value
            elif name == _INITIAL_WINDOW:
                more, self._stream_room = value - self._stream_room, value
                self._blocked = {number: (rest, room + more) for number, (rest, room) in self._blocked.items()}
        self._write(_frame(_SETTINGS, _ACK, 0, b""))
        self._widen(0, 0)

    def _widen(self, number: int, more: int) -> None:
        if number:
            if number in self._blocked:
                rest, room = self._blocked[number]
                self._blocked[number] = rest, room + more
                self._unblock(number)
            return
        self._room += more
        for waiting in list(self._blocked):
            self._unblock(waiting)

    def _unblock(self, number: int) -> None:
        """Send of a body what the server has room for."""
        rest, room = self._blocked[number]
        length = min(len(rest), room, self._room)
        if length <= 0:
            return
        self._room -= length
        if length < len(rest):
            self._blocked[number] = rest[length:], room - length
            self._write(_body(0, number, rest[:length]))
        else:
            del self._blocked[number]
            self._write(_body(_END_STREAM, number, rest))

    def _goaway(self, last: int, code: int) -> None:
        """New requests go elsewhere; the server finishes those up to `last` and knows nothing of the others."""
        self.leaving = True
        why = f"connection ended by the server: {_error(code)}"
        for number in [number for number in self.streams if number > last]:
            if number in self.streams:  # who hears of it may cancel others
                self._end(self.streams[number], why, sent=False, again=True)
        self._done()

    def _end(self, stream: Stream, why: str, *, sent: bool = True, again: bool = False) -> None:
        stream.connection = None
        stream.sent, stream.again = sent, again
        self.streams.pop(stream.number, None)
        self._blocked.pop(stream.number, None)
        stream.listener.ended(why)

    def _done(self) -> None:
        if self.leaving and not self.streams:
            self.lose("done")


def _answer(block: bytes) -> tuple[int, float]:
    """Status and Retry-After in seconds; a status of 0 where there is none, as in trailers."""
    if block[:1] == _STATUS_200:
        return 200, 0.0
    fields = hpack.fields(block)
    name, value = next(fields, (b"", b""))
    if name != b":status" or not value.isdigit():
        return 0, 0.0
    status = int(value)
    if status < 300:
        return status, 0.0
    wait = dict(fields).get(b"retry-after", b"")
    return status, float(wait) if wait.isdigit() else 0.0


def reason(error: OSError) -> str:
    """What went wrong with a socket, in the system's words or in TLS's."""
    if error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):  # whose numbers are of their own
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise hpack.HeaderError("more padding than there is")
    return payload[1 : len(payload) - payload[0]]


def _frame(kind: int, flags: int, number: int, payload: bytes | memoryview) -> bytes:
    size = len(payload)
    return _head.pack(size >> 8, size & 0xFF, kind, flags, number) + payload


def _body(flags: int, number: int, body: bytes | memoryview) -> bytes:
    """DATA frames, `flags` on the last."""
    if len(body) <= _FRAME:
        return _frame(_DATA, flags, number, body)
    cuts = range(0, len(body), _FRAME)
    return b"".join(
        _frame(_DATA, flags if cut + _FRAME >= len(body) else 0, number, body[cut : cut + _FRAME]) for cut in cuts
    )


def _error(code: int) -> str:
    return _ERRORS.get(code, f"error {code}")


_HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(
        _SETTINGS,
        0,
        0,
        b"".join(
            _setting.pack(*setting)
            for setting in (
                (_ENABLE_PUSH, 0),
                (_INITIAL_WINDOW, _STREAM_WINDOW),
                (_MAX_HEADERS, _HEADER_LIST),
                (_HEADER_TABLE_SIZE, 0),
            )
        ),
    )
    + _frame(_WINDOW_UPDATE, 0, 0, _CONNECTION_WINDOW.to_bytes(4, "big"))
)
