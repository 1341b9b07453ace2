from __future__ import annotations

import asyncio
import json
import time

import pytest
from vnode_fakes import FakeTransport, until

from turbokube.api.transport import ApiError, Response, Unreachable
from turbokube.vnode.client import Client
from turbokube.vnode.crew import Crew
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Vnode
from turbokube.vnode.renewals import Renewals
from turbokube.vnode.spec import Spec

SPEC = Spec(run="trial", count=1, lease_interval=0.2, lease_duration=1)


class Server:
    """A lease with a version, as an API server keeps it."""

    def __init__(self) -> None:
        self.version: int | None = 5
        self.trouble: list[Response | Exception] = []

    def __call__(self, method: str, path: str, body: bytes) -> Response | Exception:
        if self.trouble:
            return self.trouble.pop(0)
        if method == "POST":
            self.version = 100
            return Response(201, self._body())
        if self.version is None:
            return Response(404, b"{}")
        if method == "GET":
            return Response(200, self._body())
        if json.loads(body)["metadata"]["resourceVersion"] != str(self.version):
            return Response(409, b"{}")
        self.version += 1
        return Response(200, self._body())

    def _body(self) -> bytes:
        return b'{"metadata":{"name":"vnode-00000","resourceVersion":"%d"}}' % (self.version or 0)


def scene(server: Server) -> tuple[Renewals, FakeTransport, Counts, Vnode]:
    counts, transport = Counts(), FakeTransport(server)
    client = Client(transport, counts, 1.0)
    vnode = Vnode(0, "vnode-00000", client)
    vnode.uid, vnode.joined, vnode.lease_version, vnode.renewed = "u", True, b"5", time.time()
    return Renewals(SPEC, client, Crew(2)), transport, counts, vnode


def renew(server: Server, version: bytes = b"5") -> tuple[list[str], Counts, Vnode]:
    async def run() -> tuple[list[str], Counts, Vnode]:
        renewals, transport, counts, vnode = scene(server)
        vnode.lease_version = version
        vnode.queued = True
        await renewals.renew(vnode, time.monotonic() - 0.3)
        return [method for method, *_ in transport.asked], counts, vnode

    return asyncio.run(run())


def test_a_renewal_carries_the_version_of_the_last_answer():
    methods, counts, vnode = renew(Server())
    assert (methods, vnode.lease_version, vnode.queued) == (["PUT"], b"6", False)
    assert counts.renewals == 1
    assert 0.3 <= counts.lateness.sum < 0.5
    assert counts.requests["update", "leases", "200"] == 1


def test_a_conflict_is_read_and_written_again():
    methods, counts, vnode = renew(Server(), b"1")
    assert (methods, vnode.lease_version, counts.renewals) == (["PUT", "GET", "PUT"], b"6", 1)


def test_a_lease_that_is_gone_is_made_anew():
    server = Server()
    server.version = None
    methods, counts, vnode = renew(server)
    assert (methods, vnode.lease_version, counts.renewals) == (["PUT", "POST"], b"100", 1)


def test_a_refusal_is_counted_and_the_next_turn_tries_again():
    server = Server()
    server.trouble = [Response(422, b'{"reason":"Invalid","message":"no"}')]

    async def run() -> None:
        renewals, _, counts, vnode = scene(server)
        vnode.queued = True
        with pytest.raises(ApiError, match="422 Invalid"):
            await renewals.renew(vnode, time.monotonic())
        assert (counts.renewal_errors, counts.renewals, vnode.queued) == (1, 0, False)

    asyncio.run(run())


def test_who_has_left_renews_nothing():
    async def run() -> None:
        renewals, transport, _, vnode = scene(Server())
        vnode.joined = False
        await renewals.renew(vnode, time.monotonic())
        assert transport.asked == []

    asyncio.run(run())


def test_an_outage_is_met_with_few_tries_and_lateness_tells_how_long_it_was():
    server = Server()

    async def run() -> None:
        renewals, transport, counts, vnode = scene(server)
        server.trouble = [Unreachable("refused", sent=False)] * 3
        renewals.enter(vnode)
        task = asyncio.create_task(renewals.run())
        await until(lambda: counts.renewals > 0)
        task.cancel()
        assert counts.renewal_errors == 3
        assert len(transport.asked) == 4
        assert counts.lateness.sum > 0.35  # 3 pauses of at least 0.1, 0.2, 0.4 seconds; several turns missed
        assert sum(counts.lateness.counts) == 1

    asyncio.run(run())


def test_a_lease_taken_over_late_is_renewed_at_once():
    async def run() -> None:
        renewals, _, _, vnode = scene(Server())
        vnode.renewed = time.time() - 30
        renewals.enter(vnode)
        assert vnode.queued

    asyncio.run(run())
