"""The server side of vnodes, called over TLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from server_fakes import pod
from vnode_fakes import FakeTransport, until

from turbokube.api import pki
from turbokube.api.transport import Response, Unreachable
from turbokube.vnode.client import Client
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Vnode
from turbokube.vnode.server import access, certificate, listener
from turbokube.vnode.server.endpoints import Server
from turbokube.vnode.spec import Spec, SpecError

GOOD, FORBIDDEN, BAD = "good", "forbidden", "bad"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def reviewer(method: str, path: str, body: bytes) -> Response:
    """An API server that knows two tokens, and lets one of them and the CA's admin do all."""
    if path.endswith("/tokenreviews"):
        token = json.loads(body)["spec"]["token"]
        if token == BAD:
            return Response(201, b'{"status":{"user":{},"error":"invalid bearer token"}}')
        user = {"username": f"system:serviceaccount:ns:{token}", "groups": ["system:authenticated"]}
        return Response(201, json.dumps({"status": {"authenticated": True, "user": user}}).encode())
    if path.endswith("/subjectaccessreviews"):
        spec = json.loads(body)["spec"]
        allowed = spec["user"].endswith(GOOD) or "system:masters" in spec["groups"]
        return Response(201, json.dumps({"status": {"allowed": allowed}}).encode())
    return Response(200, b'{"kind":"PodList","items":[]}')


class Scene:
    """Two vnodes that serve; the second has not joined."""

    def __init__(self, pem: Path, authority: str | None, answer: Callable[..., Response | Exception]) -> None:
        self.spec = Spec(run="trial", count=3, serve=True, serve_port=free_port())
        self.transport = FakeTransport(answer)
        client = Client(self.transport, Counts(), 1.0)
        self.vnodes = {(name := self.spec.name(n)): Vnode(n, name, client) for n in range(3)}
        self.vnodes["vnode-00000"].joined = self.vnodes["vnode-00001"].joined = True
        self.server = Server(self.spec, self.vnodes, "v1.36.3", str(pem), authority)
        self.server.usage.see(pod(1), self.vnodes["vnode-00000"])
        self.task = asyncio.create_task(self.server.run())

    def asked(self, part: str) -> list[dict[str, Any]]:
        return [json.loads(body) for _, path, body in self.transport.asked if part in path]

    async def get(self, path: str, token: str = GOOD, **how: Any) -> tuple[int, str]:
        return await asyncio.to_thread(self._get, path, token, **how)

    def _get(
        self, path: str, token: str = "", *, index: int = 0, method: str = "GET", context: ssl.SSLContext | None = None
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with contextlib.closing(self.connect(self.spec.address(index), context)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def connect(self, address: str, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        context = context or ssl._create_unverified_context()
        return http.client.HTTPSConnection(address, self.spec.serve_port, context=context, timeout=5)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate.ensure(tmp_path_factory.mktemp("serving") / "serving.pem", "trial")


def play(
    pem: Path,
    story: Callable[[Scene], Coroutine[Any, Any, None]],
    answer: Callable[..., Response | Exception] = reviewer,
    authority: str | None = None,
) -> None:
    async def run() -> None:
        scene = Scene(pem, authority, answer)
        await asyncio.sleep(0.05)
        try:
            await story(scene)
        finally:
            scene.task.cancel()
            await asyncio.wait([scene.task])

    uvloop.run(run())  # as the engine


def test_each_vnode_answers_at_its_own_address(pem):
    async def story(scene: Scene) -> None:
        first, second = [await scene.get("/metrics/resource", index=n) for n in (0, 1)]
        assert first[0] == second[0] == 200
        assert ('pod="p1"' in first[1], 'pod="p1"' in second[1]) == (True, False)
        assert 'kubelet_node_name{node="vnode-00001"} 1' in (await scene.get("/metrics", index=1))[1]
        assert json.loads((await scene.get("/stats/summary"))[1])["node"]["nodeName"] == "vnode-00000"
        assert await scene.get("/healthz") == (200, "ok")
        assert (await scene.get("/metrics/nothing"))[0] == (await scene.get("/favicon.ico"))[0] == 404

    play(pem, story)


@pytest.mark.parametrize("index", [2, 7, -256])
def test_where_no_vnode_is_nobody_answers(pem, index):
    async def story(scene: Scene) -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            await scene.get("/healthz", index=index)

    play(pem, story)


def test_a_machine_that_is_cut_off_does_not_answer(pem):
    async def story(scene: Scene) -> None:
        scene.vnodes["vnode-00000"].silent = True
        with pytest.raises((OSError, http.client.HTTPException)):
            await scene.get("/healthz")

    play(pem, story)


def test_nobody_gets_in_without_a_token_and_few_with_one(pem):
    async def story(scene: Scene) -> None:
        for path in ("/healthz", "/metrics/resource", "/pods", "/nothing"):
            assert await scene.get(path, "") == await scene.get(path, BAD) == (401, "Unauthorized")
        assert await scene.get("/metrics/resource", FORBIDDEN) == (
            403,
            f"Forbidden (user=system:serviceaccount:ns:{FORBIDDEN}, verb=get, resource=nodes, "
            "subresource(s)=[metrics])\n",
        )
        status, text = await scene.get("/pods", FORBIDDEN)
        assert status == 403
        assert "subresource(s)=[pods proxy]" in text

    play(pem, story)


def test_the_api_server_is_asked_once_for_what_holds(pem):
    async def story(scene: Scene) -> None:
        await asyncio.gather(*(scene.get("/metrics/resource") for _ in range(5)))
        await scene.get("/metrics/resource", index=1)
        await scene.get("/metrics/resource", BAD)
        await scene.get("/metrics/resource", BAD)
        assert [one["spec"]["token"] for one in scene.asked("tokenreviews")] == [GOOD, BAD, BAD]
        reviews = [one["spec"]["resourceAttributes"] for one in scene.asked("subjectaccessreviews")]
        what = {"verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics"}
        assert reviews == [{**what, "name": "vnode-00000"}, {**what, "name": "vnode-00001"}]

    play(pem, story)


def test_an_api_server_that_is_away_lets_nobody_in(pem):
    def away(method: str, path: str, body: bytes) -> Response | Exception:
        return Unreachable("refused", sent=False) if "subject" in path else reviewer(method, path, body)

    async def story(scene: Scene) -> None:
        status, text = await scene.get("/healthz")
        assert (status, text.partition(" (")[0]) == (500, "Authorization error")

    play(pem, story, away)
    play(pem, _refused_as_unknown, lambda *_: Unreachable("refused", sent=False))


def test_an_api_server_that_throttles_is_asked_again(pem, monkeypatch):
    monkeypatch.setattr(access, "_PAUSES", (0.01, 0.01))
    troubles = {
        "tokenreviews": [Response(429, b"{}"), Unreachable("reset", sent=True)],
        "subjectaccessreviews": [Response(500, b"{}"), Response(504, b"{}")],
    }

    def busy(method: str, path: str, body: bytes) -> Response | Exception:
        trouble = troubles[path.rpartition("/")[2]]
        return trouble.pop() if trouble else reviewer(method, path, body)

    async def story(scene: Scene) -> None:
        assert await scene.get("/healthz") == (200, "ok")

    play(pem, story, busy)


async def _refused_as_unknown(scene: Scene) -> None:
    assert await scene.get("/healthz") == (401, "Unauthorized")


def test_logs_say_which_vnode_and_since_when(pem):
    async def story(scene: Scene) -> None:
        logs = "/containerLogs/ns/p1/a"
        status, text = await scene.get(logs)
        lines = text.splitlines()
        assert status == 200
        assert lines[0].startswith("vnode-00000 is a virtual node of run trial")
        assert "container a of pod ns/p1 (u1), image pause" in lines[1]
        assert lines[2].startswith("running since 20")
        assert (await scene.get(f"{logs}?tailLines=1"))[1] == lines[2] + "\n"
        assert (await scene.get(f"{logs}?tailLines=0"))[1] == ""
        assert (await scene.get(f"{logs}?limitBytes=5"))[1] == "vnode"
        assert (await scene.get(f"{logs}?timestamps=true"))[1].splitlines()[2].endswith("Z " + lines[2])
        assert (await scene.get(f"{logs}?sinceTime={datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"))[
            1
        ] == ""
        assert (await scene.get(f"{logs}?tailLines=x"))[0] == 422
        assert await scene.get("/containerLogs/ns/p1/b") == (404, 'container "b" not found in pod "p1"')
        assert await scene.get("/containerLogs/ns/p2/a") == (404, 'pod "p2" does not exist')
        assert (await scene.get(f"{logs}?previous=true"))[0] == 400
        scene.server.usage.see(pod(2, phase="Pending"), scene.vnodes["vnode-00000"])
        assert "waiting to start" in (await scene.get("/containerLogs/ns/p2/a"))[1]

    play(pem, story)


def test_followed_logs_end_with_the_pod(pem):
    async def story(scene: Scene) -> None:
        began = time.monotonic()
        following = asyncio.create_task(scene.get("/containerLogs/ns/p1/a?follow=true&tailLines=1"))
        await until(lambda: scene.server.usage.pod("vnode-00000", "ns", "p1").waiting is not None)
        await asyncio.sleep(0.2)
        assert not following.done()
        scene.server.usage.see(pod(1, phase="Succeeded"), scene.vnodes["vnode-00000"])
        status, text = await following
        assert (status, len(text.splitlines())) == (200, 2)
        assert text.splitlines()[1].startswith("ended at")
        assert time.monotonic() - began < 3
        assert len((await scene.get("/containerLogs/ns/p1/a?follow=true"))[1].splitlines()) == 4

    play(pem, story)


@pytest.mark.parametrize("verb", ["exec", "attach", "run", "portForward"])
def test_what_needs_a_process_is_refused_with_the_reason(pem, verb):
    async def story(scene: Scene) -> None:
        status, text = await scene.get(f"/{verb}/ns/p1/a?command=ls", method="POST")
        assert status == 501
        assert json.loads(text)["message"].startswith("vnode-00000 is a virtual node: its containers run no process")
        assert await scene.get(f"/{verb}/ns/p9/a", method="POST") == (404, "pod does not exist")

    play(pem, story)


def test_a_request_for_an_upgrade_is_answered_without_one(pem):
    async def story(scene: Scene) -> None:
        def upgrade() -> tuple[int, str | None]:
            with contextlib.closing(scene.connect(scene.spec.address(0))) as connection:
                headers = {"Authorization": f"Bearer {GOOD}", "Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
                connection.request("POST", "/exec/ns/p1/a", headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.getheader("Connection")

        assert await asyncio.to_thread(upgrade) == (501, "close")

    play(pem, story)


def test_pods_are_those_of_the_api_server(pem):
    async def story(scene: Scene) -> None:
        assert await scene.get("/pods") == (200, '{"kind":"PodList","items":[]}')
        assert scene.transport.asked[-1][:2] == ("GET", "/api/v1/pods?fieldSelector=spec.nodeName=vnode-00000")

    play(pem, story)


def test_a_connection_serves_many_requests(pem):
    async def story(scene: Scene) -> None:
        def many() -> list[int]:
            with contextlib.closing(scene.connect(scene.spec.address(0))) as connection:
                found = []
                for _ in range(3):
                    connection.request("GET", "/healthz", headers={"Authorization": f"Bearer {GOOD}"})
                    answer = connection.getresponse()
                    answer.read()
                    found.append(answer.status)
                return found

        assert await asyncio.to_thread(many) == [200] * 3

    play(pem, story)


# certificates


class Authority:
    """A cluster's CA."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = self._build(self.name, self.key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.pem = made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def client(self, user: str, group: str, usage: x509.ObjectIdentifier) -> ssl.SSLContext:
        """A TLS client with a certificate of this CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        pairs = ((x509.NameOID.ORGANIZATION_NAME, group), (x509.NameOID.COMMON_NAME, user))
        name = x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])
        made = self._build(name, key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        file = self.folder / f"{user}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl._create_unverified_context()
        context.load_cert_chain(file)
        return context

    def _build(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )


def test_client_certificates_of_the_cluster_are_who_they_say(pem, tmp_path):
    authority, stranger = Authority(tmp_path, "kubernetes"), Authority(tmp_path, "stranger")
    client, server = x509.ExtendedKeyUsageOID.CLIENT_AUTH, x509.ExtendedKeyUsageOID.SERVER_AUTH

    async def story(scene: Scene) -> None:
        admin = authority.client("admin", "system:masters", client)
        assert (await scene.get("/metrics/resource", "", context=admin))[0] == 200
        spec = scene.asked("subjectaccessreviews")[0]["spec"]
        assert (spec["user"], spec["groups"]) == ("admin", ["system:masters", "system:authenticated"])
        poor = authority.client("poor", "nobody", client)
        assert (await scene.get("/metrics/resource", "", context=poor))[0] == 403
        for wrong in (stranger.client("admin2", "system:masters", client), authority.client("s", "masters", server)):
            with pytest.raises(OSError, match=r"alert|reset|closed"):
                await scene.get("/metrics/resource", "", context=wrong)
        assert await scene.get("/metrics/resource", "") == (401, "Unauthorized")
        assert not scene.asked("tokenreviews")

    play(pem, story, authority=authority.pem)


# listening


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_refused_in_a_sentence(taken):
    with pytest.raises(SpecError, match=f"serve_port is {taken}, but another process listens there; allowed is"):
        listener.check(Spec(run="trial", count=1, serve=True, serve_port=taken), ["https://127.0.0.1:6443"])


def test_loopback_serves_nobody_elsewhere():
    spec = Spec(run="trial", count=1, serve=True, serve_port=free_port())
    with pytest.raises(SpecError, match=r"with the API server https://10\.0\.0\.1:6443 on another machine"):
        listener.check(spec, ["https://10.0.0.1:6443"])
    for local in ("https://127.0.0.1:6443", "https://localhost", "https://[::1]:6443"):
        listener.check(spec, [local])


def test_the_socket_is_bound_to_loopback():
    with listener.listen(Spec(run="trial", count=1, serve=True, serve_port=free_port())) as listening:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"


@pytest.mark.parametrize(
    ("cidr", "reached"), [("172.16.0.0/12", []), ("127.16.0.0/12", ["127.16.1.0"]), ("127.0.0.1/32", ["127.0.0.1"])]
)
def test_given_addresses_are_served_and_no_others(monkeypatch, cidr, reached):
    monkeypatch.setattr(listener, "is_loopback", lambda _: False)  # as if they were an interface's
    spec = Spec(run="trial", count=1, serve=True, serve_port=free_port(), node_ip_range=cidr)
    with listener.listen(spec):
        assert [address for address in ("127.0.0.1", "127.16.1.0") if _answers(address, spec.serve_port)] == reached


def _answers(address: str, port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(0.3)
        try:
            caller.connect((address, port))
        except TimeoutError:
            return False
        return True


# the certificate


def test_the_serving_certificate_is_kept_until_it_nears_its_end(tmp_path, monkeypatch):
    path = tmp_path / "fleet" / "serving.pem"
    first = certificate.ensure(path, "trial").read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert certificate.ensure(path, "trial").read_bytes() == first
    monkeypatch.setattr(pki, "_RENEWED", timedelta(days=366))
    assert certificate.ensure(path, "trial").read_bytes() != first


def test_a_serving_certificate_that_is_broken_is_made_anew(tmp_path):
    path = tmp_path / "serving.pem"
    path.write_text("broken")
    certificate.ensure(path, "trial")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
