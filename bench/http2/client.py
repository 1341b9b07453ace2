"""N connections of N nodes with watches on them, in one process: by api.http2, or by the h2 package and uvloop's TLS.

Steered by run.py over standard input and output: one word in, one line of JSON out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.settings
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from turbokube import procfs
from turbokube.api import messages, protobuf
from turbokube.api.credentials import Credential
from turbokube.api.http2 import Http2
from turbokube.api.target import load_target
from turbokube.api.transport import PROTOBUF, Response
from turbokube.vnode import identity
from turbokube.vnode.nodes import LEASES

ACCEPT = f"{PROTOBUF},application/json"
AT_ONCE = 32  # handshakes, and PUTs
WATCHES = (  # a kubelet's, and some of them again
    "/api/v1/services?watch=1",
    "/apis/storage.k8s.io/v1/csidrivers?watch=1",
    "/apis/node.k8s.io/v1/runtimeclasses?watch=1",
    "/api/v1/nodes?watch=1&fieldSelector=metadata.name%3D{name}",
    "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3D{name}",
)


class Count:
    """A listener that counts frames, shared by the watches of one connection."""

    __slots__ = ("opened", "rest")
    seen = 0

    def __init__(self) -> None:
        self.opened = False
        self.rest = b""

    def head(self, status: int, retry_after: float) -> None:
        assert status == 200, status
        self.opened = True

    def data(self, chunk: bytes) -> None:
        found, self.rest = protobuf.frames(self.rest + chunk)
        Count.seen += len(found)

    def ended(self, why: str) -> None:
        raise RuntimeError(f"a watch ended: {why}")


class Package(asyncio.Protocol):
    """The same by the h2 package, as its documentation's asyncio example has it."""

    def __init__(self, authority: str) -> None:
        config = h2.config.H2Configuration(header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.authority = authority
        self.streams: dict[int, Any] = {}

    @classmethod
    async def connect(cls, credential: Credential, context: Any, server: str) -> Package:
        address = urlsplit(server)
        context.load_cert_chain(credential.pem_file)
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: cls(address.netloc), address.hostname, address.port, ssl=context)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 30)
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.streams[event.stream_id].head(int(dict(event.headers)[b":status"]), 0.0)
            elif isinstance(event, h2.events.DataReceived):
                self.streams[event.stream_id].data(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.streams.pop(event.stream_id).ended("")
        if out := self.h2.data_to_send():
            self.transport.write(out)

    def start(self, method: str, path: str, listener: Any, body: bytes = b"") -> None:
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = listener
        headers = [
            (":method", method),
            (":authority", self.authority),
            (":scheme", "https"),
            (":path", path),
            ("accept", ACCEPT),
            ("user-agent", "turbokube-bench"),
        ]
        if body:
            headers += [("content-type", PROTOBUF), ("content-length", str(len(body)))]
        self.h2.send_headers(number, headers, end_stream=not body)
        if body:
            self.h2.send_data(number, body, end_stream=True)
        self.transport.write(self.h2.data_to_send())

    def open(self, path: str, accept: str, listener: Any) -> None:
        self.start("GET", path, listener)

    async def request(
        self, method: str, path: str, body: bytes = b"", content_type: str = "", timeout: float = 30.0, accept: str = ""
    ) -> Response:
        answer = Answer(asyncio.get_running_loop().create_future())
        self.start(method, path, answer, body)
        async with asyncio.timeout(timeout):
            return await answer.future


class Answer:
    """The listener of one request of the package's."""

    def __init__(self, future: asyncio.Future[Response]) -> None:
        self.future = future
        self.status = 0
        self.parts: list[bytes] = []

    def head(self, status: int, retry_after: float) -> None:
        self.status = status

    def data(self, chunk: bytes) -> None:
        self.parts.append(chunk)

    def ended(self, why: str) -> None:
        self.future.set_result(Response(self.status, b"".join(self.parts)))


class Bench:
    """The phases; each returns what it measured."""

    def __init__(self, kind: str, target: Path, names: list[str], watches: int) -> None:
        self.kind = kind
        self.names = names
        self.watches = [WATCHES[number % len(WATCHES)] for number in range(watches)]
        known = load_target(target)
        fleet = known.credential("fleet")
        self.servers = known.addresses(fleet)
        self.who = [identity.kubelet(fleet, target.parent / "fleet" / "pki", name) for name in names]
        self.clients: list[Any] = []
        self.leases: list[bytes] = []
        self.opened: list[Count] = []
        self.gate = asyncio.Semaphore(AT_ONCE)

    async def connect(self) -> dict[str, float]:
        """Connections, and one request on each."""
        gc.collect()
        memory, cpu, began = resident(), time.process_time(), time.monotonic()
        context = Credential("", self.who[0].ca).ssl_context()
        context.set_alpn_protocols(["h2"])
        for index, who in enumerate(self.who):
            if self.kind == "ours":
                self.clients.append(Http2(who, self.servers, user_agent="turbokube-bench", index=index, gate=self.gate))
            else:  # one at a time: the context is one for all
                self.clients.append(await Package.connect(who, context, self.servers[index % len(self.servers)]))
        self.leases = await self.each(self.create)
        gc.collect()
        count = len(self.names)
        return {
            "connect_s": time.monotonic() - began,
            "connect_cpu_ms": 1e3 * (time.process_time() - cpu) / count,
            "connection_kb": (resident() - memory) / count,
        }

    async def watch(self) -> dict[str, float]:
        """All watches on all connections."""
        gc.collect()
        memory, cpu, began = resident(), time.process_time(), time.monotonic()
        for client, name in zip(self.clients, self.names, strict=True):
            for path in self.watches:
                self.opened.append(Count())
                client.open(path.format(name=name), ACCEPT, self.opened[-1])
            await asyncio.sleep(0)
        while not all(count.opened for count in self.opened):
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        gc.collect()
        count = len(self.opened)
        return {
            "watch_s": time.monotonic() - began,
            "watch_cpu_us": 1e6 * (time.process_time() - cpu) / count,
            "watch_kb": (resident() - memory) / count,
        }

    async def renew(self) -> dict[str, float]:
        """Five PUTs of each lease."""
        cpu, began = time.process_time(), time.monotonic()
        for _ in range(5):
            self.leases = await self.each(self.put)
        count = 5 * len(self.names)
        return {
            "put_cpu_us": 1e6 * (time.process_time() - cpu) / count,
            "puts_per_s": count / (time.monotonic() - began),
        }

    async def events(self) -> dict[str, float]:
        """What comes until nothing has come for two seconds; run.py changes Services meanwhile."""
        cpu, before = time.process_time(), Count.seen
        while True:
            last = Count.seen
            await asyncio.sleep(2)
            if last == Count.seen > before:
                break
        seen = Count.seen - before
        return {"events": seen, "event_cpu_us": 1e6 * (time.process_time() - cpu) / seen}

    async def memory(self) -> dict[str, float]:
        gc.collect()
        return {"resident_mb": resident() / 1024}

    async def each(self, call: Any) -> list[bytes]:
        """Do it for each connection, as many at once as AT_ONCE."""
        found: list[bytes] = [b""] * len(self.clients)
        numbers = iter(range(len(self.clients)))

        async def work() -> None:
            for number in numbers:
                found[number] = await call(number)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return found

    async def create(self, number: int) -> bytes:
        name = self.names[number]
        lease = {
            "metadata": {"name": name, "namespace": "kube-node-lease", "labels": {"turbokube.io/run": "bench-http2"}},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": time.time()},
        }
        body = messages.encode("coordination.k8s.io/v1", "Lease", messages.LEASE, lease)
        answer = await self.clients[number].request("POST", LEASES, body, PROTOBUF, accept=ACCEPT)
        if answer.status == 409:
            answer = await self.clients[number].request("GET", f"{LEASES}/{name}", accept=ACCEPT)
        return answer.checked().body

    async def put(self, number: int) -> bytes:
        body = protobuf.renewed(self.leases[number], time.time())
        path = f"{LEASES}/{self.names[number]}"
        return (await self.clients[number].request("PUT", path, body, PROTOBUF, accept=ACCEPT)).checked().body


def resident() -> int:
    """KB of this process in memory."""
    return procfs.memory().resident // 1024


async def main() -> None:
    kind, target, prefix, count, watches = sys.argv[1:]
    names = [f"{prefix}{number:05d}" for number in range(int(count))]
    bench = Bench(kind, Path(target), names, int(watches))
    loop = asyncio.get_running_loop()
    while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        print(json.dumps(await getattr(bench, word)()), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
