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


def test_a_process_takes_over_and_removes_what_is_its_own_alone():
    node = '{"metadata":{"name":"vnode-%05d","uid":"u%d"},"spec":{},"status":{}}'
    lease = '{"metadata":{"name":"%s"},"spec":{}}'
    nodes_body = ",".join(node % (index, index) for index in range(6))
    leases_body = ",".join(lease % name for name in [*(f"vnode-{index:05d}" for index in range(8)), "stranger"])

    def answer(method: str, path: str, body: bytes) -> Response:
        if method == "GET":
            items = leases_body if "/leases" in path else nodes_body
            return Response(200, f'{{"metadata":{{"resourceVersion":"1"}},"items":[{items}]}}'.encode())
        return Response(201 if method == "POST" else 200, b'{"metadata":{"resourceVersion":"2"}}')

    async def engine(shard: int) -> tuple[list[str], set[str]]:
        spec = Spec(run="trial", count=4, processes=2).part(shard)
        transport = FakeTransport(answer)
        crew, client = Crew(1), Client(transport, Counts(), 1.0)
        nodes = Nodes(spec, "v1.36.3", client, crew)
        nodes.on_joined = nodes.on_left = lambda vnode: None
        work = [asyncio.create_task(each) for each in (crew.run(), nodes.run())]
        await until(lambda: nodes.synced and not len(crew) and len(nodes.by_name) == 2)
        await asyncio.sleep(0.05)
        for each in work:
            each.cancel()
        return list(nodes.by_name), {
            path.rpartition("/")[2] for method, path, _ in transport.asked if method == "DELETE"
        }

    assert asyncio.run(engine(0)) == (["vnode-00000", "vnode-00002"], {"vnode-00004", "vnode-00006", "stranger"})
    assert asyncio.run(engine(1)) == (["vnode-00001", "vnode-00003"], {"vnode-00005", "vnode-00007"})
