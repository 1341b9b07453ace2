from __future__ import annotations

import asyncio

from vnode_fakes import FakeTransport, until

from turbokube.api.transport import Response
from turbokube.vnode.client import Client
from turbokube.vnode.crew import Crew
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Nodes, Vnode
from turbokube.vnode.spec import Spec


def test_a_lease_that_is_collected_while_its_vnode_joins_is_made_anew():
    answers = [Response(409, b"{}"), Response(404, b"{}"), Response(201, b'{"metadata":{"resourceVersion":"7"}}')]

    async def join() -> tuple[list[str], Vnode]:
        transport = FakeTransport(lambda method, path, body: answers.pop(0))
        crew, client = Crew(1), Client(transport, Counts(), 1.0)
        vnode = Vnode(0, "vnode-00000", client)
        nodes = Nodes(Spec(run="trial", count=1), "v1.36.3", client, crew)
        nodes.on_joined = lambda joined: None
        vnode.uid = "u"  # its Node is there
        work = asyncio.create_task(crew.run())
        crew.put(nodes._join, vnode)
        await until(lambda: vnode.joined)
        work.cancel()
        return [method for method, *_ in transport.asked], vnode

    methods, vnode = asyncio.run(join())
    assert methods == ["POST", "GET", "POST"]
    assert vnode.lease_version == b"7"
