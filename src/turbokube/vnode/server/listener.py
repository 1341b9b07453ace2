"""Where a fleet's kubelets listen: one TCP socket for all vnodes of an engine, told apart by the address called.

On loopback all of 127/8 is this machine's, so a vnode at 127.16.1.7 needs nothing else. Addresses that are not loopback
must be routed to this host and be its own (AnyIP: `ip route add local 172.16.0.0/12 dev lo`).
"""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httptools

from ..addresses import number
from ..spec import Spec, SpecError

_BACKLOG = 1024
_IDLE = 90.0  # seconds; the kubelet's IdleTimeout (pkg/kubelet/server/server.go)
_HANDSHAKE = 10.0  # seconds
_MOST_KEPT = 512  # connections beyond these are closed after an answer: TLS keeps about 50 KB for each
_MOST_HEAD = 64 * 1024  # bytes of a request
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
_REASONS |= {405: "Method Not Allowed", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway"}
_LO = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])(:|/|$)")
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
log = logging.getLogger(__name__)


def check(spec: Spec, servers: list[str]) -> None:
    """Raises SpecError where the fleet cannot listen as it shall, in one sentence."""
    if is_loopback(spec.node_ips) and not all(map(_LO.match, servers)):
        raise SpecError(
            f"serve is on, but with the API server {servers[0]} on another machine the vnodes cannot be reached at "
            f"{spec.node_ips}; give node_ip_range, addresses that are routed to this host and local to it"
        )
    listen(spec).close()


def is_loopback(cidr: str) -> bool:
    return cidr.startswith("127.")


def listen(spec: Spec) -> socket.socket:
    """The fleet's socket: reachable through loopback only, or only at the addresses of its range. Raises SpecError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_loopback(spec.node_ips):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        else:
            _accept_only(listening, spec.node_ips)
        listening.bind(("0.0.0.0", spec.serve_port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise SpecError(f"serve_port is {spec.serve_port}, {_why(error, spec.serve_port)}") from None
    listening.setblocking(False)
    return listening


def _why(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return "but another process listens there; allowed is a port that is free on this machine"
    if error.errno in (errno.EACCES, errno.EPERM) and port < 1024:
        return "but ports below 1024 are the superuser's; allowed is 1024 to 65535"
    return f"where no socket can be had: {error.strerror}"


def _accept_only(listening: socket.socket, cidr: str) -> None:
    """Have the kernel drop every segment that is not for an address of the range (socket(7), SO_ATTACH_FILTER)."""
    base, _, bits = cidr.partition("/")
    mask = 0xFFFFFFFF << 32 - int(bits) & 0xFFFFFFFF
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0xFFF00000 + 16),  # load the word at SKF_NET_OFF + 16: the IPv4 destination
            (0x54, 0, 0, mask),  # and
            (0x15, 0, 1, number(base)),  # equal, else skip one
            (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
            (0x06, 0, 0, 0),  # keep nothing
        )
    )
    kept = array.array("B", program)
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 5, kept.buffer_info()[0]))


class Request:
    """What was asked, of whom and by whom."""

    __slots__ = ("address", "authorization", "certificate", "keep", "method", "path", "query")

    def __init__(self, address: str, certificate: dict[str, Any] | None, method: str, target: str) -> None:
        self.address = address  # that was called
        self.certificate = certificate  # the peer's, verified
        self.method = method
        url = urlsplit(target)
        self.path = unquote(url.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.authorization = ""
        self.keep = True


class Answer:
    """What is said. `rest` follows `body` when it comes."""

    __slots__ = ("body", "kind", "rest", "status")

    def __init__(
        self,
        body: bytes | str,
        status: int = 200,
        kind: str = "text/plain; charset=utf-8",
        rest: Awaitable[bytes] | None = None,
    ) -> None:
        self.body = body.encode() if isinstance(body, str) else body
        self.status = status
        self.kind = kind
        self.rest = rest


Handler = Callable[[Request], Awaitable[Answer | None]]  # None: nobody is there


class Listener:
    """HTTP/1.1 over TLS for a handler."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections: set[_Connection] = set()

    async def run(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """Serve for ever."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Connection(self), sock=listening, ssl=context, ssl_handshake_timeout=_HANDSHAKE, backlog=_BACKLOG
        )
        try:
            while True:
                await asyncio.sleep(_IDLE / 9)
                for connection in list(self.connections):
                    connection.reap(loop.time() - _IDLE)
        finally:
            server.close()
            for connection in list(self.connections):
                connection.abort()


def tls(certificate: str, authority: str | None) -> ssl.SSLContext:
    """A server's context: its PEM file, and the CA that clients' certificates are of, if they have any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])
    if authority:
        context.load_verify_locations(cadata=authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class _Connection(asyncio.Protocol):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._head = 0  # bytes of the request that is being read
        self._target = b""
        self._authorization = ""
        self._idle_since = 0.0
        self._task: asyncio.Task[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._idle_since = asyncio.get_running_loop().time()
        self._listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        if self._head > _MOST_HEAD:
            self.abort()  # a kubelet's requests have no bodies to speak of
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # it is answered without one
        except httptools.HttpParserError:
            self.abort()

    def eof_received(self) -> None:
        return None  # closes

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    # httptools callbacks

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._authorization = value.decode("latin-1")

    def on_message_complete(self) -> None:
        transport = self._transport
        if self._task is not None:
            self.abort()  # asks anew before it was answered: nobody's client does
            return
        request = Request(
            transport.get_extra_info("sockname")[0],
            transport.get_extra_info("peercert") or None,
            self._parser.get_method().decode(),
            self._target.decode("latin-1"),
        )
        request.authorization = self._authorization
        crowded = len(self._listener.connections) > _MOST_KEPT
        request.keep = self._parser.should_keep_alive() and not self._parser.should_upgrade() and not crowded
        self._target, self._authorization, self._head = b"", "", 0
        self._task = asyncio.create_task(self._answer(request))

    # what is done

    async def _answer(self, request: Request) -> None:
        try:
            answer = await self._listener.handler(request)
        except Exception:
            log.exception("%s %s at %s", request.method, request.path, request.address)
            answer = Answer("internal error\n", 500)
        if answer is None:
            self.abort()
            return
        await self._write(answer, request.keep)
        self._task = None
        self._idle_since = asyncio.get_running_loop().time()
        if not request.keep:
            self._transport.close()

    async def _write(self, answer: Answer, keep: bool) -> None:
        fields = [
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}",
            f"Content-Type: {answer.kind}",
            f"Content-Length: {len(answer.body)}" if answer.rest is None else "Transfer-Encoding: chunked",
            *([] if keep else ["Connection: close"]),
        ]
        head = "\r\n".join([*fields, "", ""]).encode()
        if answer.rest is None:
            self._transport.write(head + answer.body)
            return
        self._transport.write(head + _chunk(answer.body))
        self._transport.write(_chunk(await answer.rest) + b"0\r\n\r\n")

    def reap(self, before: float) -> None:
        """Close it if it was idle since before then (loop time)."""
        if self._task is None and self._idle_since < before:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
